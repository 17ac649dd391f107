// The left operand of a product where neighbours in memory are rows of it rather than steps of its depth, as in
// gradients of weights, dy^T x. Packed row by row each line of it would be fetched once for every element; a step of
// the depth after the other each is read whole, and a tile finds a step's rows side by side: [tile][k][mr].
#pragma once

#include "kernels/assembly.h"
#include "kernels/contraction.h"

namespace deepseek::kernels {

// Whether it lies that way, and is packed so: what is read at all is read along the rows.
bool lies_turned(const Group& group, const Contraction& c);

// Elements from one tile of so many steps to the next where many are packed side by side: an odd number of lines, so that
// they do not share sets of the caches.
std::int64_t turned_tile_size(std::int64_t steps, std::int64_t mr);

// So many tiles of mr rows each, the first beginning at `first_row`; packed, each begins `size` elements after the last.
struct TurnedTiles {
  Expr batch, first_row, count;
  std::int64_t mr, size;
};
// Packs the steps [first, first + count) of the depth of `tiles`, through the prologue; `to` holds the first tile from
// `position` on. What lies beyond the operand's last row is 0.
loops::Stmt pack_turned(Assembly& a, const Contraction& c, const TurnedTiles& tiles, const Expr& first,
                        const Expr& count, const loops::Buffer& to, const Expr& position);

// The phase that packs all tiles into a workspace: batch by batch, [tile][k][mr].
loops::Buffer pack_all_turned(Assembly& a, const Contraction& c, DType type, std::int64_t mr);

}  // namespace deepseek::kernels
