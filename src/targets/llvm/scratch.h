// Which buffers of a phase live in its scratch memory, and where.
#pragma once

#include <unordered_map>

#include "loops/ir.h"
#include "targets/llvm/machine.h"

namespace deepseek::codegen {

// Offsets are in bytes, multiples of 64; they may use symbols.
struct ScratchPlan {
  std::unordered_map<const loops::BufferNode*, loops::Expr> offset;
  loops::Expr bytes = 0;
};

// Register buffers up to this many bytes (all lanes together) stay on the stack.
inline constexpr std::int64_t kMaxStackBytes = 16 << 10;

// Buffers whose scopes do not overlap share memory. A GPU has none: its Shared memory is declared in the code.
ScratchPlan plan_scratch(const loops::Stmt& phase, const Machine& machine);

}  // namespace deepseek::codegen
