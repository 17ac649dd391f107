// The matrix registers of x86 (AMX): eight tiles of at most 16 rows of 64 bytes. A register tile of a phase that is
// multiplied by them takes several, so that each operand loaded is used twice.
#pragma once

#include <algorithm>
#include <optional>

#include "loops/ir.h"
#include "targets/llvm/machine.h"

namespace deepseek::codegen {

// The tiles of a phase that live in matrix registers: c += a * b, cut into blocks of 16 rows and 16 columns of 32 bits.
struct AmxPlan {
  static constexpr std::int64_t kSide = 16, kRowBytes = 64, kRegisters = 8;

  const loops::TileNode *c, *a, *b;
  std::int64_t down, across;  // blocks of c

  bool holds(const loops::TileNode* t) const { return t == c || t == a || t == b; }
  std::int64_t rows_of_block(std::int64_t i) const { return std::min(kSide, c->rows - i * kSide); }
  std::int64_t result(std::int64_t i, std::int64_t j) const { return i * across + j; }
  std::int64_t left(std::int64_t i) const { return down * across + i; }
  std::int64_t right(std::int64_t j) const { return down * across + down + j; }
};

// Nothing where the phase multiplies no tiles, tiles of other kinds, or more than one set of them: one configuration
// serves the whole phase.
std::optional<AmxPlan> plan_amx(const loops::Stmt& phase, const Machine& machine);

}  // namespace deepseek::codegen
