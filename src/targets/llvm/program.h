// A loop program as an LLVM module with the C ABI of runtime/kernel.h.
#pragma once

#include <llvm/IR/Module.h>

#include <vector>

#include "loops/ir.h"
#include "targets/llvm/machine.h"

namespace deepseek::codegen {

// A statement of a program's top level, with the Lets and Allocs before it that it may use.
struct Phase {
  std::vector<loops::Stmt> prefix;
  loops::Stmt body;
  const loops::For* parallel = nullptr;  // the loop that threads divide, if it is one

  loops::Stmt whole() const;
};
std::vector<Phase> phases(const loops::Program& p);

// Adds NAME_extents and NAME_phaseN to the module. Throws Error{Unsupported} for what cannot be compiled.
void emit_program(llvm::Module& module, const Machine& machine, const loops::Program& p);

}  // namespace deepseek::codegen
