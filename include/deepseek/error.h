// What goes wrong, said once and well. Every user error is one Error that names the op, the user's line, what
// was expected and what came. Building, importing and compiling throw it; running reports it as a Status
// inside the runtime and throws it at the API border.
#pragma once

#include <exception>
#include <string>

namespace deepseek {

enum class Code : int {
  Ok = 0,
  InvalidArgument,    // wrong dtype, shape, rank, name, attribute
  NotFound,           // no such op, input, file
  Unsupported,        // understood, and not something this build or target does
  OutOfRange,         // a gather index, a dim or an extent beyond its bounds
  DataLoss,           // a truncated or corrupt file
  ResourceExhausted,  // memory, cache space
  Internal,           // a bug of ours
};

class Error : public std::exception {
 public:
  // `op`: the operation ("matmul"), `source`: the user's line or module path, `expected` and `got`: prose.
  Error(Code code, std::string op, std::string source, std::string expected, std::string got);

  const char* what() const noexcept override { return message_.c_str(); }
  Code code() const { return code_; }
  const std::string& op() const { return op_; }
  const std::string& source() const { return source_; }
  const std::string& expected() const { return expected_; }
  const std::string& got() const { return got_; }
  // The same error with op and source filled in where they were empty: inner layers need not know them.
  Error with_context(const std::string& op, const std::string& source) const;

 private:
  Code code_;
  std::string op_, source_, expected_, got_, message_;
};

// For invariants of ours: throws Error{Internal} when `holds` is false.
void check(bool holds, const char* what);

}  // namespace deepseek
