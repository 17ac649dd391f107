// An Accumulate that a Vector loop keeps in registers until its end.
#pragma once

#include <llvm/IR/Instructions.h>

#include <vector>

#include "loops/ir.h"

namespace deepseek::codegen {

// Sums are kept in this many registers, so that one addition need not wait for the last.
constexpr int kAccumulators = 4;

struct Accumulator {
  const loops::StmtNode* key;
  const loops::Accumulate* source;
  std::vector<llvm::AllocaInst*> registers;  // vectors of partial results
  llvm::AllocaInst* used;                    // whether any lane ever got there; null when that is certain
  bool conditional;
};

}  // namespace deepseek::codegen
