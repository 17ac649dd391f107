// Rows of a product's left operand packed through the prologue, which is where convolution gathers its patches.
#pragma once

#include <optional>

#include "kernels/assembly.h"
#include "kernels/contraction.h"

namespace deepseek::kernels {

// What rows are packed as: elements of `type`, `padded` of them, those beyond the depth 0.
struct PackedRows {
  DType type;
  Dim padded;
  std::optional<loops::Buffer> copy;  // of a convolution's input with its border, to pack out of
};
// Row `value` of `batch`, which is `row` in what is written; 0 where `valid` (which may be empty) is false.
struct RowToPack {
  Expr batch;
  loops::Var row;
  Expr value, valid;
};
// Writes it to `to`, from `position` on.
loops::Stmt packed_row(Assembly& a, const Contraction& c, const PackedRows& as, const RowToPack& row,
                       const loops::Buffer& to, const Expr& position);

}  // namespace deepseek::kernels
