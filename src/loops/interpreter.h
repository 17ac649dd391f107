// Runs loop programs: the reference for every target, and a debugger of programs.
//
// A program is compiled to typed register instructions, one function call each. Loops run serially (Parallel and
// Block over the range that the caller gives); threads of a Thread loop run one after another from barrier to
// barrier; an asynchronous copy takes place at its Wait. Tile operations are done whole by whoever meets them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "loops/ir.h"
#include "runtime/kernel.h"

namespace deepseek::loops {

struct InterpreterOptions {
  // Every access is checked against its buffer's extent at the given dims and throws Error{Internal} that names
  // buffer, index and extent. Iterations of Parallel, Vector and Thread loops run in an order drawn from `seed`. Fresh
  // memory and destinations of unfinished copies hold garbage, and a copy's source must not change before its Wait.
  bool check = false;
  std::uint64_t seed = 1;
};

// The program must be verified. The kernel wants no scratch: it allocates its own.
std::shared_ptr<const Kernel> interpret(const Program& program, InterpreterOptions options = {});

// The value of an I64 expression over symbols. `symbols` and `dims` go together, symbols sorted.
std::int64_t evaluate(const Expr& e, std::span<const std::string> symbols,
                      std::span<const std::int64_t> dims);

}  // namespace deepseek::loops
