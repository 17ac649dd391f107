// An Accumulate that a Vector loop keeps in registers until its end.
#pragma once

#include <llvm/IR/Instructions.h>

#include <cstdint>
#include <vector>

#include "loops/ir.h"

namespace deepseek::codegen {

// Sums are kept in this many registers, so that one addition need not wait for the last.
constexpr int kAccumulators = 4;

// A register takes so many numbers at most before its sum is put away: the rounding error of a chain of additions grows with
// its length (Higham, "The accuracy of floating point summation", 1993).
constexpr std::int64_t kLongestChain = 32;

struct Accumulator {
  const loops::StmtNode* key;
  const loops::Accumulate* source;
  std::vector<llvm::AllocaInst*> registers;  // vectors of partial results
  llvm::AllocaInst* used;                    // whether any lane ever got there; null when that is certain
  bool conditional;
  // Of a long sum of floats: what has been put away, and what that lost by rounding (Knuth's two-sum).
  llvm::AllocaInst* total = nullptr;
  llvm::AllocaInst* lost = nullptr;
};

}  // namespace deepseek::codegen
