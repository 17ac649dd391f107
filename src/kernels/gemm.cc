// The matrix product: every matmul and convolution that a target's tiles can take.
//
// The right operand is packed into panels of NR columns, [batch][panel][k][NR] (its own program: computed
// once when it derives from constants). A task owns a block of rows and a group of panels. It reads the left
// operand in place when that is a plain matrix, else packs its rows through the prologue (which is where
// convolution gathers its patches), and sends each tile of results through the epilogue.
#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/contraction.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kWantedTasks = 8;  // enough for a few threads to share evenly
constexpr std::int64_t kRowPadding = 16;  // keeps packed rows off the same cache sets
constexpr std::int64_t kAliasingStride =
    1024;  // elements: rows this far apart (or multiples) share cache sets

Dim product_of(const std::vector<Dim>& dims) {
  Dim p = 1;
  for (const Dim& d : dims) p = p * d;
  return p;
}

std::vector<Expr> exprs_of(const std::vector<Dim>& dims) {
  std::vector<Expr> result;
  for (const Dim& d : dims) result.push_back(expr_of(d));
  return result;
}

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
Expr ceil_of(const Expr& a, std::int64_t b) { return floordiv(a + (b - 1), b); }

// How the product is cut up.
struct Blocking {
  std::int64_t mr, nr;   // the tile
  Expr tiles;            // rows of tiles in all
  Expr tiles_per_block;  // rows of tiles per task
  Expr row_blocks;
  Expr panels, panels_per_group, panel_groups;
};

std::int64_t tile_rows(const Dim& m, std::int64_t most) {
  if (!m.is_static()) return most;
  const std::int64_t rows = std::max<std::int64_t>(m.value(), 1);
  if (rows <= most) return rows;
  for (std::int64_t r = most; r * 3 >= most * 2; --r)
    if (rows % r == 0) return r;
  return ceil_of(rows, ceil_of(rows, most));
}

Blocking block_for(const Dim& m, const Dim& n, const Dim& k, const Dim& batch, const TileShape& tile,
                   const TargetInfo& target) {
  Blocking b;
  const std::int64_t lanes = target.vector_bytes / 4;
  b.mr = tile.any_rows ? tile_rows(m, tile.m) : tile.m;
  b.nr = tile.n;
  if (tile.any_rows && n.is_static())
    b.nr = std::min(tile.n, ceil_of(std::max<std::int64_t>(n.value(), 1), lanes) * lanes);
  b.tiles = ceil_of(expr_of(m), b.mr);
  b.panels = ceil_of(expr_of(n), b.nr);
  const std::int64_t depth = k.is_static() ? k.value() : 1024;
  const std::int64_t row_bytes = b.mr * (depth + kRowPadding) * 4;
  std::int64_t per_block = std::max<std::int64_t>(1, target.l2_bytes * 3 / 4 / row_bytes);
  std::int64_t groups = 1;
  if (m.is_static() && n.is_static()) {
    const std::int64_t tiles = ceil_of(m.value(), b.mr), panels = ceil_of(n.value(), b.nr);
    const std::int64_t batches = batch.is_static() ? batch.value() : 4;
    if (n.value() >= m.value()) {  // the right operand is the larger one: stream it once
      groups = std::clamp<std::int64_t>(ceil_of(kWantedTasks, batches), 1, panels);
      per_block = std::min(per_block, tiles);
    } else {
      per_block = std::min(per_block, std::max<std::int64_t>(1, tiles * batches / kWantedTasks));
      groups =
          std::clamp<std::int64_t>(ceil_of(kWantedTasks, batches * ceil_of(tiles, per_block)), 1, panels);
    }
    per_block = ceil_of(tiles, ceil_of(tiles, per_block));
  }
  b.tiles_per_block = per_block;
  b.row_blocks = ceil_of(b.tiles, per_block);
  if (groups > 1) {
    b.panels_per_group = ceil_of(*b.panels.int_value(), groups);
    b.panel_groups = ceil_of(b.panels, *b.panels_per_group.int_value());
  } else {
    b.panels_per_group = b.panels;
    b.panel_groups = 1;
  }
  return b;
}

class GemmLowering {
 public:
  GemmLowering(const Group& group, const TileShape& tile, const LoweringContext& context)
      : g_(group),
        tile_(tile),
        c_(contraction_of(*group.anchor)),
        m_(product_of(c_.m)),
        n_(product_of(c_.n)),
        k_(product_of(c_.k)),
        batch_(product_of(c_.batch)),
        b_(block_for(m_, n_, k_, batch_, tile, context.target)) {}

  Lowered run() {
    Lowered result;
    const Dim panels = ceildiv(n_, b_.nr);
    result.temps = {Type{tile_.operands, {batch_ * panels * k_ * b_.nr}}};
    result.calls = {pack(result.temps[0]), multiply(result.temps[0])};
    result.calls[1].flops = batch_ * m_ * n_ * k_ * 2;
    result.way = "gemm";
    return result;
  }

 private:
  Call pack(const Type& packed) {
    Assembly a(g_);
    std::vector<Axis> axes = {make_axis("b", expr_of(batch_)), make_axis("panel", b_.panels)};
    const std::vector<Axis> depth = make_axes("k", exprs_of(c_.k));
    axes.insert(axes.end(), depth.begin(), depth.end());
    const Axis lane = make_axis("j", b_.nr);
    const Expr column = var(axes[1].var) * b_.nr + var(lane.var);
    const Expr valid = n_.is_static() && n_.value() % b_.nr == 0 ? Expr() : column < expr_of(n_);
    const std::vector<Expr> k = coords_of(depth);
    Expr value = c_.right(a.scope(), unflatten(var(axes[0].var), exprs_of(c_.batch)),
                          unflatten(column, exprs_of(c_.n)), k, valid);
    value = cast(tile_.operands, value);
    const Buffer out = a.temp(0, packed, Access::Write);
    Expr row = 0;
    for (std::size_t i = 0; i < k.size(); ++i) row = row * expr_of(c_.k[i]) + k[i];
    const Expr index =
        ((var(axes[0].var) * b_.panels + var(axes[1].var)) * expr_of(k_) + row) * b_.nr + var(lane.var);
    std::vector<Stmt> body = a.scope().take_checks();
    body.push_back(stmt(Store{out, index, value, {}}));
    a.phase(parallel_over(axes, split_on_predicates(loop(lane, LoopKind::Vector, block(std::move(body))))));
    return a.finish("pack_" + g_.name());
  }

  // The row stride when the left operand can be read in place: one load, linear in row and depth.
  std::optional<std::int64_t> plain_stride(Assembly& a, const Expr& batch, const Axis& row, const Axis& depth,
                                           Buffer& buffer, Expr& base) {
    if (!m_.is_static() || m_.value() % b_.mr != 0 || tile_.operands_in != Space::Global) return std::nullopt;
    const Expr x =
        c_.left(a.scope(), unflatten(batch, exprs_of(c_.batch)), unflatten(var(row.var), exprs_of(c_.m)),
                unflatten(var(depth.var), exprs_of(c_.k)), {});
    if (x.op() != Op::Load || x->args.size() != 1 || x.type() != tile_.operands) return std::nullopt;
    const auto by_row = coefficient(x->args[0], row.var), by_depth = coefficient(x->args[0], depth.var);
    if (!by_row || !by_row->int_value() || !by_depth || by_depth->int_value() != 1) return std::nullopt;
    const std::int64_t stride = *by_row->int_value();
    if (b_.mr > 8 && stride % kAliasingStride == 0) return std::nullopt;
    const Var from[] = {row.var, depth.var};
    const Expr to[] = {0, 0};
    buffer = x->buffer;
    base = substitute(x->args[0], from, to);
    return stride;
  }

  Stmt pack_rows(Assembly& a, const Buffer& rows, const Expr& stride, const Expr& batch,
                 const Expr& first_row) {
    const Axis r = make_axis("r", b_.tiles_per_block * b_.mr);
    std::vector<Axis> depth = make_axes("k", exprs_of(c_.k));
    const std::vector<Expr> k = coords_of(depth);
    const Var row = make_var("row");
    const bool exact = m_.is_static() && m_.value() % (b_.mr * *b_.tiles_per_block.int_value()) == 0;
    const Expr valid = exact ? Expr() : var(row) < expr_of(m_);
    const std::vector<Expr> m = unflatten(var(row), exprs_of(c_.m));
    std::vector<Stmt> lets = {stmt(Let{row, first_row + var(r.var)})};
    std::vector<Expr> named;  // row coordinates, divided once per row
    for (std::size_t i = 0; i < m.size(); ++i) {
      if (m.size() == 1) {
        named.push_back(m[0]);
        break;
      }
      const Var v = make_var("m" + std::to_string(i));
      lets.push_back(stmt(Let{v, m[i]}));
      named.push_back(var(v));
    }
    Expr value = c_.left(a.scope(), unflatten(batch, exprs_of(c_.batch)), named, k, valid);
    value = cast(tile_.operands, value);
    Expr position = 0;
    for (std::size_t i = 0; i < k.size(); ++i) position = position * expr_of(c_.k[i]) + k[i];
    Expr index = var(r.var) * stride + position;
    Expr* exprs[] = {&value, &index};
    std::vector<Stmt> body = a.scope().take_checks();
    if (body.empty()) merge_axes(depth, exprs);
    body.push_back(stmt(Store{rows, index, value, {}}));
    Stmt s = block(std::move(body));
    for (std::size_t i = depth.size(); i-- > 0;)
      s = loop(depth[i], i + 1 == depth.size() ? LoopKind::Vector : LoopKind::Serial, std::move(s));
    lets.push_back(split_on_predicates(s));
    return loop(r, LoopKind::Serial, block(std::move(lets)));
  }

  // One tile of results: the depth loop and the epilogue.
  Stmt tile(Assembly& a, const Buffer& left, const Expr& left_base, const Expr& left_stride,
            const Buffer& right, const Expr& right_base, const Expr& batch, const Expr& first_row,
            const Expr& first_column) {
    const Tile c = std::make_shared<const TileNode>(TileNode{"c", tile_.accumulator, b_.mr, b_.nr});
    const Tile x = std::make_shared<const TileNode>(TileNode{"a", tile_.operands, b_.mr, tile_.k});
    const Tile y = std::make_shared<const TileNode>(TileNode{"b", tile_.operands, tile_.k, b_.nr});
    const Axis step = make_axis("k", ceil_of(expr_of(k_), tile_.k));
    const Expr k = var(step.var) * tile_.k;
    const Expr depth_left = loops::min(Expr(tile_.k), expr_of(k_) - k);
    const Stmt multiply =
        loop(step, LoopKind::Serial,
             block({stmt(TileLoad{x, left, left_base + k, left_stride, 1, b_.mr, depth_left}),
                    stmt(TileLoad{y, right, right_base + k * b_.nr, b_.nr, 1, depth_left, b_.nr}),
                    stmt(TileMma{c, x, y})}));

    const Var i = loop_var("i", b_.mr), j = loop_var("j", b_.nr), value = make_var("x", tile_.accumulator);
    const std::vector<Expr> coords =
        c_.result(unflatten(batch, exprs_of(c_.batch)), unflatten(first_row + var(i), exprs_of(c_.m)),
                  unflatten(first_column + var(j), exprs_of(c_.n)));
    const Value product = g_.anchor->out();
    a.scope().bind(product, [value, product](std::span<const Expr>, const Expr&) {
      return cast(product.dtype(), var(value));
    });
    std::vector<Stmt> stores;
    for (const Stored& s : stored_outputs(g_)) {
      std::vector<Expr> at = coords;
      for (std::size_t d = 0; d < s.perm.size(); ++d) at[d] = coords[static_cast<std::size_t>(s.perm[d])];
      const Expr result = a.scope().at(s.value, coords);
      for (Stmt& check : a.scope().take_checks()) stores.push_back(std::move(check));
      stores.push_back(stmt(Store{a.output(s.memory), flat_index(s.memory.shape(), at), result, {}}));
    }
    const bool full_rows = m_.is_static() && m_.value() % b_.mr == 0;
    const bool full_columns = n_.is_static() && n_.value() % b_.nr == 0;
    const Expr rows = full_rows ? Expr(b_.mr) : loops::min(Expr(b_.mr), expr_of(m_) - first_row);
    const Expr columns = full_columns ? Expr(b_.nr) : loops::min(Expr(b_.nr), expr_of(n_) - first_column);
    return block({stmt(TileAlloc{c}), stmt(TileAlloc{x}), stmt(TileAlloc{y}),
                  stmt(TileFill{c, zero(tile_.accumulator)}), multiply,
                  stmt(TileStore{c, i, j, value, rows, columns, block(std::move(stores))})});
  }

  Call multiply(const Type& packed) {
    Assembly a(g_);
    const Axis batch = make_axis("b", expr_of(batch_)), group = make_axis("group", b_.panel_groups),
               rows = make_axis("block", b_.row_blocks);
    const Axis panel = make_axis("panel", b_.panels_per_group), t = make_axis("t", b_.tiles_per_block);
    const Expr which = var(group.var) * b_.panels_per_group + var(panel.var);
    const Expr block_row = var(rows.var) * (b_.tiles_per_block * b_.mr);
    const Var first_row = make_var("first_row"), batch_index = make_var("batch"),
              panel_index = make_var("panel_index");
    const Expr row = var(first_row), column = var(panel_index) * b_.nr;

    const Axis row_axis = make_axis("m", expr_of(m_)), depth_axis = make_axis("k", expr_of(k_));
    Buffer left;
    Expr base;
    std::vector<Stmt> task;
    const auto stride = plain_stride(a, var(batch.var), row_axis, depth_axis, left, base);
    Expr left_base, left_stride;
    if (stride) {
      left_base = base + row * *stride;
      left_stride = *stride;
    } else {
      a.scope().take_checks();
      left_stride = floordiv(expr_of(k_) + (2 * kRowPadding - 1), kRowPadding) * kRowPadding;
      left = make_buffer("rows", tile_.operands, Space::Shared, b_.tiles_per_block * b_.mr * left_stride);
      task.push_back(stmt(Alloc{left}));
      task.push_back(pack_rows(a, left, left_stride, var(batch.var), block_row));
      left_base = var(t.var) * (b_.mr * left_stride);
    }
    const Buffer right = a.temp(0, packed, Access::Read);
    const Expr right_base = (var(batch.var) * b_.panels + var(panel_index)) * expr_of(k_) * b_.nr;
    Stmt one = tile(a, left, left_base, left_stride, right, right_base, var(batch.var), row, column);
    if (!(m_.is_static() && m_.value() % (b_.mr * *b_.tiles_per_block.int_value()) == 0))
      one = stmt(If{row < expr_of(m_), std::move(one), nullptr});
    Stmt tiles = loop(t, LoopKind::Serial,
                      block({stmt(Let{first_row, block_row + var(t.var) * b_.mr}), std::move(one)}));
    if (!(b_.panel_groups.int_value() == 1))
      tiles = stmt(If{var(panel_index) < b_.panels, std::move(tiles), nullptr});
    task.push_back(loop(panel, LoopKind::Serial, block({stmt(Let{panel_index, which}), std::move(tiles)})));
    const std::vector<Axis> grid = {batch, group, rows};
    a.phase(parallel_over(grid, block(std::move(task))));
    return a.finish(g_.name());
  }

  const Group& g_;
  const TileShape& tile_;
  Contraction c_;
  Dim m_, n_, k_, batch_;
  Blocking b_;
};

}  // namespace

std::optional<Lowered> lower_gemm(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Contraction) return std::nullopt;
  const DType type = compute_type(group.anchor->in(0).dtype());
  for (const TileShape& tile : context.target.tiles)
    if (tile.operands == type) return GemmLowering(group, tile, context).run();
  return std::nullopt;
}

}  // namespace deepseek::kernels
