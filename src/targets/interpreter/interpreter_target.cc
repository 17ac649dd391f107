#include "targets/interpreter/interpreter_target.h"

namespace deepseek {

InterpreterTarget::InterpreterTarget(InterpreterTargetOptions options) : options_(options) {
  info_.name = "interpreter";
  info_.isa = "interpreter";
  info_.gpu_mapped = options.gpu_mapped;
  if (options.gpu_mapped) {
    info_.vector_bytes = 4;  // a thread is scalar
    info_.tiles = {{DType::BF16, DType::F32, 16, 8, 16, false, loops::Space::Shared},
                   {DType::F32, DType::F32, 16, 8, 8, false, loops::Space::Shared},
                   {DType::I8, DType::I32, 16, 8, 32, false, loops::Space::Shared}};
  } else {
    info_.tiles = {{DType::F32, DType::F32, 6, 16, 32, true, loops::Space::Global}};
  }
}

std::vector<std::shared_ptr<const Kernel>> InterpreterTarget::compile(
    std::span<const loops::Program> programs) {
  std::vector<std::shared_ptr<const Kernel>> kernels;
  kernels.reserve(programs.size());
  for (const loops::Program& p : programs) kernels.push_back(loops::interpret(p, options_.interpreter));
  return kernels;
}

}  // namespace deepseek
