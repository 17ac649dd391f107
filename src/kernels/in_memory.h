// Operands of a matrix product that lie in memory as matrices.
#pragma once

#include <optional>

#include "kernels/contraction.h"

namespace deepseek::kernels {

// Element (row, k) of the left operand is buffer[first + row * stride + k], of type `operands`.
struct LeftInMemory {
  loops::Buffer buffer;
  Expr first;
  std::int64_t stride;
};
std::optional<LeftInMemory> left_in_memory(Scope& scope, const Contraction& c, const Expr& batch,
                                           DType operands);

// Element (k, j) of the right operand is buffer[first + k * by_depth + j * by_column].
struct RightInMemory {
  loops::Buffer buffer;
  Expr first, by_depth, by_column;
  bool is_turned() const { return by_depth.int_value() == 1 && by_column.int_value().value_or(0) > 1; }
};
std::optional<RightInMemory> right_in_memory(Scope& scope, const Contraction& c, const Expr& batch);

}  // namespace deepseek::kernels
