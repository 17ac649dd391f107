// A loop program as an LLVM module with the C ABI of runtime/kernel.h.
#pragma once

#include <llvm/IR/Module.h>

#include "loops/ir.h"
#include "targets/llvm/machine.h"

namespace deepseek::codegen {

// Adds NAME_extents and NAME_phaseN to the module. Throws Error{Unsupported} for what cannot be compiled.
void emit_program(llvm::Module& module, const Machine& machine, const loops::Program& p);

}  // namespace deepseek::codegen
