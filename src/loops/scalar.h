// One scalar of any type and the evaluation of one operation on it: constant folding.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "loops/ir.h"

namespace deepseek::loops {

// Integers and Bool in i (unsigned 64 as its bits, narrower ones with their value), floats in d.
struct Scalar {
  std::int64_t i = 0;
  double d = 0;
};

Scalar scalar_of(const ExprNode& constant);
Expr constant_of(DType t, Scalar s);
// v brought into t's range by wrapping; for Bool: v != 0.
std::int64_t wrap_to(DType t, std::int64_t v);
std::int64_t integer_min(DType t);
std::int64_t integer_max(DType t);  // of U64: its bits, -1

// The operation on arguments of type `arg` (the last two for Select). Not for Load, Reduce and leaves.
Scalar evaluate(Op op, DType arg, std::span<const Scalar> args);
Scalar convert(DType from, DType to, Scalar s);
// Nothing when a type's bits are not those of the other.
std::optional<Scalar> reinterpret(DType from, DType to, Scalar s);

}  // namespace deepseek::loops
