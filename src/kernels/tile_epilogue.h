// What becomes of a register tile's sums, and what lies in memory beside them.
#pragma once

#include <vector>

#include "loops/ir.h"

namespace deepseek::kernels {

// `stores` for element (i, j), whose sum is `value`.
struct TileEpilogue {
  loops::Var i, j, value;
  loops::Stmt stores;
};

// Where element (i, j) of a tile lies in memory, neighbours in j beside each other.
struct TileLine {
  loops::Buffer buffer;
  loops::Expr index;
};
// What the epilogue reads for each element, such as a residual; and what it writes.
struct TileLines {
  std::vector<TileLine> read, written;
};
TileLines lines_of(const TileEpilogue& e);

loops::Stmt prefetch_at(const TileLine& x, const TileEpilogue& e, const loops::Expr& row,
                        const loops::Expr& column);

}  // namespace deepseek::kernels
