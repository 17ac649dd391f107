// How many rows a register tile gets.
#pragma once

#include <algorithm>
#include <cstdint>

#include "deepseek/shape.h"

namespace deepseek::kernels {

// Rows per tile for m rows in all and at most `most` per tile: a divisor of m where one is near, else rows shared out
// evenly among as few tiles as possible.
inline std::int64_t tile_rows(const Dim& m, std::int64_t most) {
  if (!m.is_static()) return most;
  const std::int64_t rows = std::max<std::int64_t>(m.value(), 1);
  if (rows <= most) return rows;
  for (std::int64_t r = most; r * 3 >= most * 2; --r)
    if (rows % r == 0) return r;
  const std::int64_t tiles = (rows + most - 1) / most;
  return (rows + tiles - 1) / tiles;
}

}  // namespace deepseek::kernels
