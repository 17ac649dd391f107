#include "targets/interpreter/interpreter_target.h"

namespace deepseek {

InterpreterTarget::InterpreterTarget(InterpreterTargetOptions options) : options_(options) {
  info_.name = "interpreter";
  info_.isa = "interpreter";
  info_.gpu_mapped = options.gpu_mapped;
  if (options.gpu_mapped) {
    info_.vector_bytes = 4;                                                         // a thread is scalar
    info_.tiles = {{DType::F32, DType::F32, 4, 8, 1, true, loops::Space::Global}};  // a thread's registers
  } else {
    info_.tiles = {{DType::F32, DType::F32, 6, 16, 32, true, loops::Space::Global},
                   {DType::BF16, DType::F32, 6, 16, 32, true, loops::Space::Global, 2},
                   {DType::U8, DType::I32, 6, 16, 64, true, loops::Space::Global, 4, DType::I8},
                   {DType::I32, DType::I32, 6, 16, 32, true, loops::Space::Global}};
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
