#include "deepseek/error.h"

namespace deepseek {
namespace {

std::string describe(const std::string& op, const std::string& source, const std::string& expected,
                     const std::string& got) {
  std::string text;
  if (!source.empty()) text += source + ": ";
  if (!op.empty()) text += op + ": ";
  text += "expected " + expected;
  if (!got.empty()) text += ", got " + got;
  return text;
}

}  // namespace

Error::Error(Code code, std::string op, std::string source, std::string expected, std::string got)
    : code_(code),
      op_(std::move(op)),
      source_(std::move(source)),
      expected_(std::move(expected)),
      got_(std::move(got)),
      message_(describe(op_, source_, expected_, got_)) {}

Error Error::with_context(const std::string& op, const std::string& source) const {
  return Error(code_, op_.empty() ? op : op_, source_.empty() ? source : source_, expected_, got_);
}

void check(bool holds, const char* what) {
  if (!holds) throw Error(Code::Internal, "", "", what, "the contrary");
}

}  // namespace deepseek
