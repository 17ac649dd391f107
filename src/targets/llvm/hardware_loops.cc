#include "targets/llvm/hardware_loops.h"

#include <algorithm>

#include "targets/llvm/emitter.h"

namespace deepseek::codegen {
namespace {

using loops::as;
using loops::LoopKind;
using loops::Stmt;

bool of_grid(LoopKind k) { return k == LoopKind::Block || k == LoopKind::Parallel; }
bool alike(LoopKind a, LoopKind b) { return a == b || (of_grid(a) && of_grid(b)); }

}  // namespace

std::size_t hardware_axis(const loops::For& loop) {
  std::size_t axis = 0;
  loops::visit_stmts(loop.body, [&](const Stmt& s) {
    const auto* inner = as<loops::For>(s);
    if (inner && alike(inner->kind, loop.kind)) axis = std::max(axis, hardware_axis(*inner) + 1);
  });
  if (axis > 2) unsupported("more than three nested Block or Thread loops");
  return axis;
}

std::array<std::int64_t, 3> block_dims(const Stmt& phase) {
  std::array<std::int64_t, 3> dims{1, 1, 1};
  loops::visit_stmts(phase, [&](const Stmt& s) {
    const auto* f = as<loops::For>(s);
    if (!f || f->kind != LoopKind::Thread) return;
    const auto extent = f->extent.int_value();
    if (!extent) unsupported("a Thread loop of unknown extent");
    auto& dim = dims[hardware_axis(*f)];
    dim = std::max(dim, *extent);
  });
  return dims;
}

}  // namespace deepseek::codegen
