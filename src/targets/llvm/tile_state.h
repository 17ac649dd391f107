// A register tile: each row is cut into vectors, each vector lives in a stack slot that becomes a register.
#pragma once

#include <llvm/IR/Constants.h>
#include <llvm/IR/Instructions.h>

#include <optional>
#include <vector>

#include "loops/ir.h"

namespace deepseek::codegen {

inline bool constant_at_least(const llvm::Value* v, std::int64_t bound) {
  const auto* c = llvm::dyn_cast<llvm::ConstantInt>(v);
  return c && c->getSExtValue() >= bound;
}

inline bool is_constant(const llvm::Value* v, std::int64_t value) {
  const auto* c = llvm::dyn_cast<llvm::ConstantInt>(v);
  return c && c->getSExtValue() == value;
}

struct TileState {
  // A load that waits for the multiply that wants its elements, so that it folds into it as a broadcast.
  struct Pending {
    llvm::Value* base;  // address of element (0, 0)
    llvm::Value *row_stride, *col_stride;
    llvm::Value *valid_rows, *valid_cols;
    DType dtype;
    std::int64_t group;  // as in TileLoad
  };

  const loops::TileNode* node;
  int width;  // lanes of a vector
  std::vector<llvm::AllocaInst*> slots;
  std::optional<Pending> pending;
  llvm::AllocaInst* spilled = nullptr;  // where the elements are, row by row, when not in `slots`

  std::int64_t per_row() const { return node->cols / width; }
  std::size_t slot(std::int64_t row, std::int64_t vector) const {
    return static_cast<std::size_t>(row * per_row() + vector);
  }
};

}  // namespace deepseek::codegen
