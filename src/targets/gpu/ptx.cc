#include "targets/gpu/ptx.h"

#include "deepseek/error.h"
#include "targets/llvm/hardware_loops.h"
#include "targets/llvm/object.h"

namespace deepseek {

std::string emit_ptx(const loops::Program& p, std::string_view sm) {
  codegen::Machine machine;
  machine.isa = sm;
  machine.triple = "nvptx64-nvidia-cuda";
  machine.cpu = sm;
  machine.gpu = true;
  return codegen::compile_assembly(p, machine);
}

std::vector<GpuExtents> gpu_grid(const loops::Program& p) {
  std::vector<GpuExtents> grids;
  for (const loops::Phase& phase : loops::phases(p)) {
    GpuExtents& grid = grids.emplace_back(GpuExtents{1, 1, 1});
    loops::visit_stmts(phase.body, [&](const loops::Stmt& s) {
      const auto* f = loops::as<loops::For>(s);
      if (!f || (f->kind != loops::LoopKind::Block && f->kind != loops::LoopKind::Parallel)) return;
      loops::Expr& extent = grid[codegen::hardware_axis(*f)];
      extent = loops::max(extent, f == phase.parallel ? phase.grid() : f->extent);
    });
  }
  return grids;
}

}  // namespace deepseek
