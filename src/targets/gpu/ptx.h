// NVIDIA GPUs: loop programs as PTX text.
//
// Each phase becomes an entry point NAME_phaseN. Its parameters: the address of each buffer, then each symbol's value
// (64 bits each), then the address of the status word. Block loops are the grid and Thread loops the threads of a
// block; the innermost loop of a nest is x. The entry's .reqntid says how many threads to launch; gpu_grid says how
// many blocks. A Parallel loop at the top level is a grid, too. Vector loops run one lane after another, and tiles live
// in each thread's registers.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "loops/ir.h"

namespace deepseek {

// `sm`: the architecture, "sm_80". Throws Error{Unsupported} for what cannot be compiled.
std::string emit_ptx(const loops::Program& p, std::string_view sm);

// Extents along x, y, z, over the program's symbols; 1 where there is no loop.
using GpuExtents = std::array<loops::Expr, 3>;
// Blocks of the grid, for each phase.
std::vector<GpuExtents> gpu_grid(const loops::Program& p);

}  // namespace deepseek
