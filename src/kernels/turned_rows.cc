#include "kernels/turned_rows.h"

#include "kernels/panels.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

// Of a task of the phase: as many tiles' rows as fill a few lines, and steps enough to be worth a task.
constexpr std::int64_t kTiles = 8, kSteps = 64;
// Steps lie in pages of their own, one after the other, which hardware does not follow: each is asked for so many before.
constexpr std::int64_t kStepsAhead = 8;
constexpr std::int64_t kLine = 16;  // elements

bool is_one_axis(const std::vector<Dim>& dims) { return dims.size() == 1 && dims[0].is_static(); }

}  // namespace

bool lies_turned(const Group& group, const Contraction& c) {
  if (!is_one_axis(c.m) || !is_one_axis(c.k)) return false;
  Assembly a(group);
  const std::vector<Axis> batch = make_axes("b", extents_of(c.batch)), row = make_axes("m", extents_of(c.m)),
                          depth = make_axes("k", extents_of(c.k));
  const Expr x = c.left(a.scope(), coords_of(batch), coords_of(row), coords_of(depth), {});
  bool along_rows = false, across = !a.scope().take_checks().empty();
  visit(x, [&](const Expr& e) {
    if (e.op() == Op::Reduce) across = true;
    if (e.op() != Op::Load) return;
    const auto by_row = coefficient(e->args[0], row[0].var), by_depth = coefficient(e->args[0], depth[0].var);
    const bool known = by_row && by_row->int_value() && by_depth && by_depth->int_value();
    across = across || !known || *by_row->int_value() > 1;
    along_rows = along_rows || (known && by_row->int_value() == 1 && *by_depth->int_value() > 1);
  });
  return along_rows && !across;
}

std::int64_t turned_tile_size(std::int64_t steps, std::int64_t mr) {
  return (ceil_of(steps * mr, kLine) / 2 * 2 + 1) * kLine;
}

Stmt pack_turned(Assembly& a, const Contraction& c, const TurnedTiles& tiles, const Expr& first,
                 const Expr& count, const Buffer& to, const Expr& position) {
  const Axis step = make_axis("k", count), tile = make_axis("tile", tiles.count),
             row = make_axis("r", tiles.mr);
  const Expr k = first + var(step.var), r = tiles.first_row + var(tile.var) * tiles.mr + var(row.var);
  const Expr rows = expr_of(c.m[0]);
  const Expr valid = c.m[0].value() % tiles.mr == 0 ? Expr() : r < rows;
  const Expr at_row[] = {r}, at_step[] = {k};
  const Expr value = c.left(a.scope(), unflatten(tiles.batch, extents_of(c.batch)), at_row, at_step, valid);
  const Expr index = position + var(tile.var) * tiles.size + k * tiles.mr + var(row.var);
  std::vector<Stmt> body = a.scope().take_checks();
  body.push_back(stmt(Store{to, index, cast(to->dtype, value), {}}));
  const Var from[] = {step.var, row.var};
  const Expr ahead[] = {var(step.var) + kStepsAhead, 0};
  std::vector<Stmt> in_tile;
  visit(value, [&](const Expr& e) {
    if (e.op() == Op::Load && uses(e->args[0], row.var))
      in_tile.push_back(stmt(Prefetch{e->buffer, substitute(e->args[0], from, ahead)}));
  });
  in_tile.push_back(loop(row, LoopKind::Vector, block(std::move(body))));
  return loop(step, LoopKind::Serial, loop(tile, LoopKind::Serial, block(std::move(in_tile))));
}

Buffer pack_all_turned(Assembly& a, const Contraction& c, DType type, std::int64_t mr) {
  const std::int64_t tiles = ceil_of(c.m[0].value(), mr), steps = c.k[0].value();
  const Expr batches = expr_of(product_of(c.batch));
  const Buffer rows = a.workspace("rows", type, batches * (tiles * mr * steps));
  const Axis batch = make_axis("b", batches), block_of = make_axis("tiles", ceil_of(tiles, kTiles)),
             chunk = make_axis("steps", ceil_of(steps, kSteps));
  const Expr tile = var(block_of.var) * kTiles, first = var(chunk.var) * kSteps;
  const auto at_most = [](std::int64_t whole, std::int64_t part, const Expr& from) {
    return whole % part == 0 ? Expr(part) : loops::min(Expr(part), whole - from);
  };
  const Axis grid[] = {batch, block_of, chunk};
  const TurnedTiles in_task{var(batch.var), tile * mr, at_most(tiles, kTiles, tile), mr, steps * mr};
  a.phase(parallel_over(grid, pack_turned(a, c, in_task, first, at_most(steps, kSteps, first), rows,
                                          (var(batch.var) * tiles + tile) * (steps * mr))));
  return rows;
}

}  // namespace deepseek::kernels
