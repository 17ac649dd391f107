// What entries that change shapes share.
#pragma once

#include "ops/entries.h"

namespace deepseek {

// Coordinates in a tensor of shape `from` of the element that stands at `coords` in its reshaping to `to`.
// Runs of dims with equal products map to each other, so that only they need division.
std::vector<Expr> reshape_coords(Elements& e, const Shape& from, const Shape& to,
                                 std::span<const Expr> coords);
// 0 <= x < d.
Expr inside(const Expr& x, const Expr& d);

void add_view_ops(OpTable& t);     // view.cc: reshape, transpose, broadcast_to, slice, reverse, ...
void add_join_ops(OpTable& t);     // join.cc: concat, pad, split, tile, ...
void add_gather_ops(OpTable& t);   // gather.cc
void add_scatter_ops(OpTable& t);  // scatter.cc
void add_make_ops(OpTable& t);     // make.cc: iota, full, one_hot, triangular, ...

}  // namespace deepseek
