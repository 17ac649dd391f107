// The typing rules of expressions and the literals' adaptation to their neighbours.
#pragma once

#include <string>
#include <vector>

#include "loops/ir.h"

namespace deepseek::loops {

enum class OpClass : std::uint8_t { Leaf, Unary, Test /* unary to Bool */, Binary, Comparison, Other };
OpClass op_class(Op op);
// Arguments that `make` takes for the op; 0 for leaves.
int arity(Op op);

// Index (I64) and F64 constants among `args` take the type of the others, where the op wants one type.
void adapt_literals(Op op, std::vector<Expr>& args);
// The type of `op` applied to `args`. Throws Error{Internal} when they do not fit. Cast, Bitcast, Load and
// Reduce have their own constructors.
DType result_type(Op op, const std::vector<Expr>& args);

[[noreturn]] void bad_type(const std::string& where, const std::string& expected, const std::string& got);

}  // namespace deepseek::loops
