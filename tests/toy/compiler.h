// From a phase of a loop program to the toy's instructions.
#pragma once

#include <vector>

#include "loops/ir.h"
#include "toy/isa.h"

namespace deepseek::toy {

// Buffers are numbered: the program's parameters first, then what the phase allocates in the scratchpad.
struct Routine {
  std::vector<Instruction> instructions;
  std::vector<loops::Scalar> registers;  // constants in place
  int first_symbol = 0;                  // register of the program's first symbol
  int iteration = 0;                     // register of the phase's parallel loop's variable
  int tiles = 0;
  std::vector<loops::Buffer> scratchpad;  // extents over symbols alone
};

// Throws Error{Unsupported} for what the accelerator lacks.
Routine compile(const loops::Program& program, const loops::Phase& phase);

}  // namespace deepseek::toy
