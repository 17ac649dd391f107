// From a phase to the interpreter's instructions.
#pragma once

#include "loops/bytecode.h"

namespace deepseek::loops {

// Throws Error{Internal} for what the language has no meaning for; the program is taken to be verified.
Assembled assemble(const Program& program, const Phase& phase, bool check);

}  // namespace deepseek::loops
