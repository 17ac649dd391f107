// LLVM modules to object code: the pass pipeline and the code generator.
#pragma once

#include <string>

#include "loops/ir.h"
#include "targets/llvm/machine.h"

namespace deepseek::codegen {

// The relocatable object of a program: it defines NAME_extents and NAME_phaseN and imports nothing. Thread-safe.
// With DEEPSEEK_DUMP=dir, dir/NAME.{loops,ll,s} show the stages.
std::string compile_object(const loops::Program& p, const Machine& machine);
// The same as assembly text; a GPU's is what compile_object cannot give.
std::string compile_assembly(const loops::Program& p, const Machine& machine);

// Whether DEEPSEEK_DUMP asks for the stages.
bool dumping();

// Names of the symbols that an object needs from elsewhere.
std::vector<std::string> imported_symbols(const std::string& object);

}  // namespace deepseek::codegen
