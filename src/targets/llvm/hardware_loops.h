// Block and Thread loops as a GPU's grid: which loop is x, y or z, and how much is launched.
#pragma once

#include <array>
#include <cstdint>

#include "loops/ir.h"

namespace deepseek::codegen {

// 0 (x) for the innermost loop of its kind, 1 for the one around it, and so on. Parallel counts as Block.
std::size_t hardware_axis(const loops::For& loop);
// Threads along x, y, z: the largest constant extent of the Thread loops on each axis.
std::array<std::int64_t, 3> block_dims(const loops::Stmt& phase);

}  // namespace deepseek::codegen
