// Attention: two matrix products with a reduction along rows between them, softmax as a rule, as one kernel. A task owns
// as many rows of scores as a tile has: it computes them, reduces each row (rows.h) and multiplies them by the values,
// so that scores never leave the second cache. Keys and values that many tiles read are packed into panels first, as
// gemm.cc packs; one tile reads them where they lie.
#include "kernels/attention.h"

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/gemm_blocking.h"
#include "kernels/panels.h"
#include "kernels/register_tile.h"
#include "kernels/rows.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

Expr padded(const Dim& length) {
  return floordiv(expr_of(length) + (2 * kRowPadding - 1), kRowPadding) * kRowPadding;
}

class AttentionLowering {
 public:
  AttentionLowering(const Group& group, const TileShape& tile, const TargetInfo& target)
      : g_(group),
        target_(target),
        scores_(group.parts[0]),
        reduced_(group.parts[1]),
        c_(contraction_of(*scores_.anchor)),
        d_(contraction_of(*g_.anchor)),
        rows_(c_.m.back()),
        length_(c_.n[0]),
        batch_(numel(leading(scores_.domain))),
        b_(block_for(rows_, rows_, length_, c_.k[0], batch_, tile, target, 1)),
        width_(value_columns(tile)) {
    if (!(b_.tiles.int_value() == 1)) return;
    Assembly a(g_);
    const auto keys = right_in_memory(a.scope(), c_, 0), values = right_in_memory(a.scope(), d_, 0);
    keys_in_place_ = keys && (keys->is_turned() || keys->by_column.int_value() == 1);
    turns_ = keys_in_place_ && keys->is_turned();
    values_in_place_ = values && values->by_column.int_value() == 1;
  }

  Lowered run() {
    Lowered result;
    const auto pack = [&](const char* name, const Group& part, const Contraction& c, std::int64_t width) {
      const int temp = static_cast<int>(result.temps.size());
      result.temps.push_back(panels_type(c, width, DType::F32));
      result.calls.push_back(pack_panels(part, c, width, result.temps.back(), temp, target_));
      result.calls.back().program.name = name + g_.name();
    };
    if (!keys_in_place_) pack("keys_", scores_, c_, b_.nr);
    if (!values_in_place_) pack("values_", g_.parts[2], d_, width_);
    result.calls.push_back(attend(result.temps));
    result.calls.back().flops = batch_ * rows_ * length_ * (c_.k[0] + d_.n[0]) * 2;
    result.way = "attention";
    return result;
  }

 private:
  // As many as stay in registers beside as many rows as the scores' tiles have.
  std::int64_t value_columns(const TileShape& tile) const {
    const Blocking own = block_for(rows_, rows_, d_.n[0], length_, batch_, tile, target_, 1);
    return own.mr < b_.mr ? std::min(own.nr, tile.n) : own.nr;
  }

  // What becomes of a tile's sums: `stores` for element (i, j), whose sum is `sum`.
  struct Sums {
    Var i, j, sum;
    Stmt stores;
  };
  struct Right {  // the operand's columns from some one on
    RightInMemory at;
    bool padded;  // beyond its last column as well
  };
  Right right(Scope& scope, const Contraction& c, const std::optional<Buffer>& packed, const Expr& matrix,
              const Expr& panel, std::int64_t width) const {
    const Expr which = c.batch.empty() ? Expr(0) : matrix;  // one may serve all
    if (packed) {
      const Expr panels = ceil_of(expr_of(c.n[0]), width);
      return {{*packed, (which * panels + panel) * expr_of(c.k[0]) * width, width, 1}, true};
    }
    RightInMemory at = *right_in_memory(scope, c, which);
    at.first = at.first + panel * width * at.by_column;
    return {at, false};
  }
  // A tile of `width` columns, of which so many are there.
  Stmt tile(const Buffer& left, const Expr& stride, const Right& right, const Expr& depth, std::int64_t width,
            const Expr& columns, const Sums& s) const {
    const auto piece = [](const char* name, std::int64_t rows, std::int64_t cols) {
      return std::make_shared<const TileNode>(TileNode{name, DType::F32, rows, cols});
    };
    const std::int64_t step = right.at.is_turned() ? width : 1;  // squares are turned
    const Tile c = piece("c", b_.mr, width), x = piece("a", b_.mr, step), y = piece("b", step, width);
    const Axis steps = make_axis("k", ceil_of(depth, step));
    const Expr k = var(steps.var) * step;
    const Expr deep = step == 1 ? Expr(1) : loops::min(Expr(step), depth - k);
    std::vector<Stmt> body = {
        stmt(TileLoad{x, left, k, stride, 1, b_.mr, step}),
        stmt(TileLoad{y, right.at.buffer, right.at.first + k * right.at.by_depth, right.at.by_depth,
                      right.at.by_column, deep, right.padded ? Expr(width) : columns, 1}),
        stmt(TileMma{c, x, y})};
    if (!right.padded) body.insert(body.begin(), prefetch(right.at, k, width));
    return block({stmt(TileAlloc{c}), stmt(TileAlloc{x}), stmt(TileAlloc{y}),
                  stmt(TileFill{c, zero(DType::F32)}), loop(steps, LoopKind::Serial, block(std::move(body))),
                  stmt(TileStore{c, s.i, s.j, s.sum, valid_rows_, columns, s.stores})});
  }
  // What lies in place comes from memory: asks for lines some steps before, of the next square's or of rows.
  static Stmt prefetch(const RightInMemory& x, const Expr& k, std::int64_t width) {
    constexpr std::int64_t kRowsAhead = 16, kElements = kLineBytes / 4;
    const Axis line = make_axis("line", x.is_turned() ? width : ceil_of(width, kElements));
    const Expr at = x.is_turned() ? k + (var(line.var) + width) * x.by_column
                                  : (k + kRowsAhead) * x.by_depth + var(line.var) * kElements;
    return loop(line, LoopKind::Unrolled, stmt(Prefetch{x.buffer, x.first + at}));
  }
  Sums sums(std::int64_t nr) const {
    return {loop_var("i", b_.mr), loop_var("j", nr), make_var("x", DType::F32), {}};
  }
  static void bind(Scope& scope, const Node& product, const Var& sum) {
    scope.bind(product.out(), [sum](std::span<const Expr>, const Expr&) { return var(sum); });
  }
  static Expr columns_of(const Dim& all, std::int64_t nr, const Expr& first, bool whole_panels = false) {
    const bool whole = whole_panels || (all.is_static() && all.value() % nr == 0);
    return whole ? Expr(nr) : loops::min(Expr(nr), expr_of(all) - first);
  }

  Call attend(std::span<const Type> packed) {
    Assembly a(g_);
    Scope& scope = a.scope();
    const Axis batch = make_axis("b", expr_of(batch_)), block_of_rows = make_axis("t", b_.tiles);
    const Var first_row = make_var("first_row");
    std::optional<Buffer> keys, values;
    if (!keys_in_place_) keys = a.temp(0, packed.front(), Access::Read);
    if (!values_in_place_) values = a.temp(static_cast<int>(packed.size()) - 1, packed.back(), Access::Read);
    // Where a tile's rows are all there, the last one begins earlier; else rows that are not there are not stored.
    const bool whole = rows_.is_static() && rows_.value() >= b_.mr;
    const Expr begin = var(block_of_rows.var) * b_.mr;
    valid_rows_ = whole ? Expr(b_.mr) : loops::min(Expr(b_.mr), expr_of(rows_) - var(first_row));
    std::vector<Stmt> task = {
        stmt(Let{first_row, whole ? loops::min(begin, Expr(rows_.value() - b_.mr)) : begin})};
    const auto strip = [&](const char* name, const Expr& stride, DType type = DType::F32) {
      const Buffer buffer = make_buffer(name, type, Space::Shared, stride * b_.mr);
      task.push_back(stmt(Alloc{buffer}));
      return buffer;
    };
    const auto coords_at = [&](const Group& part, const Expr& row, const Expr& column) {
      std::vector<Expr> coords = unflatten(var(batch.var), extents_of(leading(part.domain)));
      coords.insert(coords.end(), {row, column});
      return coords;
    };

    const Expr query_stride = padded(c_.k[0]);
    const Buffer queries = strip("queries", query_stride);
    task.push_back(copy_queries(scope, queries, query_stride, var(batch.var), var(first_row)));

    const Expr stride = padded(length_);
    const Buffer scores = strip("scores", stride, scores_.outputs[0].dtype());
    const std::int64_t lanes = target_.vector_bytes / 4, key_width = turns_ ? lanes : b_.nr;
    const auto scores_tile = [&](const Expr& panel, std::int64_t width, const Expr& columns) {
      Sums s = sums(width);
      const Expr column = panel * key_width + var(s.j);
      bind(scope, *scores_.anchor, s.sum);
      const Expr value = scope.at(scores_.outputs[0], coords_at(scores_, var(first_row) + var(s.i), column));
      std::vector<Stmt> stores = scope.take_checks();
      stores.push_back(stmt(Store{scores, var(s.i) * stride + column, value, {}}));
      s.stores = block(std::move(stores));
      return tile(queries, query_stride, right(scope, c_, keys, var(batch.var), panel, key_width),
                  expr_of(c_.k[0]), width, columns, s);
    };
    // Whole panels, and a narrower one for the keys that are left.
    const bool known = length_.is_static();
    const std::int64_t whole_panels = known ? length_.value() / key_width : 0,
                       rest = known ? length_.value() % key_width : 0;
    const Axis panel = make_axis("panel", known ? Expr(whole_panels) : ceil_of(expr_of(length_), key_width));
    if (!known || whole_panels > 0)
      task.push_back(loop(panel, LoopKind::Serial,
                          scores_tile(var(panel.var), key_width,
                                      columns_of(length_, key_width, var(panel.var) * key_width, known))));
    if (rest > 0) task.push_back(scores_tile(whole_panels, ceil_of(rest, lanes) * lanes, rest));

    const Buffer weights = strip("weights", stride);
    std::vector<std::pair<Value, Buffer>> of_rows;  // results that are one element per row
    for (const Value& v : reduced_.outputs)
      if (!(v == weights_value())) of_rows.emplace_back(v, strip("of_row", 1, v.dtype()));
    {
      const Axis i = make_axis("i", valid_rows_);
      for (const Value& v : reduced_.inputs)
        if (memory_of(v) == memory_of(scores_.outputs[0]))
          scope.bind(v, [scores, stride, i](std::span<const Expr> c, const Expr&) {
            return load(scores, var(i.var) * stride + c.back());
          });
      std::vector<Expr> row = unflatten(var(batch.var), extents_of(leading(reduced_.domain)));
      row.push_back(var(first_row) + var(i.var));
      const auto place = [&](Value v, bool) -> RowPlace {
        for (const auto& [value, buffer] : of_rows)
          if (value == v) return {buffer, [i](std::span<const Expr>) { return var(i.var); }};
        return {weights, [i, stride](std::span<const Expr> c) { return var(i.var) * stride + c.back(); }};
      };
      task.push_back(loop(i, LoopKind::Serial, block(row_stages(reduced_, {&scope, std::move(row), place}))));
    }

    const Axis columns = make_axis("panel", ceil_of(expr_of(d_.n[0]), width_));
    Sums s = sums(width_);
    const Expr first = var(columns.var) * width_;
    bind(scope, *g_.anchor, s.sum);
    for (const auto& [value, buffer] : of_rows)
      scope.bind(value, [buffer, s](std::span<const Expr>, const Expr&) { return load(buffer, var(s.i)); });
    s.stores = block(store_outputs(a, g_, coords_at(g_, var(first_row) + var(s.i), first + var(s.j))));
    task.push_back(
        loop(columns, LoopKind::Serial,
             tile(weights, stride, right(scope, d_, values, var(batch.var), var(columns.var), width_),
                  expr_of(length_), width_, columns_of(d_.n[0], width_, first), s)));
    const std::vector<Axis> grid = {batch, block_of_rows};
    a.phase(parallel_over(grid, block(std::move(task))));
    return a.finish(g_.name());
  }

  Stmt copy_queries(Scope& scope, const Buffer& to, const Expr& stride, const Expr& batch,
                    const Expr& first_row) const {
    const Axis i = make_axis("i", valid_rows_), k = make_axis("k", expr_of(c_.k[0]));
    const std::vector<Expr> matrix = unflatten(batch, extents_of(leading(scores_.domain))),
                            depth = {var(k.var)};
    std::vector<Expr> m = c_.batch.empty() ? matrix : std::vector<Expr>();
    m.push_back(first_row + var(i.var));
    const Expr value = c_.left(scope, c_.batch.empty() ? std::vector<Expr>() : matrix, m, depth, {});
    std::vector<Stmt> body = scope.take_checks();
    body.push_back(stmt(Store{to, var(i.var) * stride + var(k.var), value, {}}));
    std::vector<Stmt> row = {loop(k, LoopKind::Vector, block(std::move(body)))};
    if (turns_) {  // whole squares are multiplied
      const std::int64_t lanes = target_.vector_bytes / 4, size = c_.k[0].value();
      const Axis rest = make_axis("rest", ceil_of(size, lanes) * lanes - size);
      row.push_back(loop(rest, LoopKind::Serial,
                         stmt(Store{to, var(i.var) * stride + size + var(rest.var), zero(DType::F32), {}})));
    }
    return loop(i, LoopKind::Serial, block(std::move(row)));
  }

  static Shape leading(const Shape& domain) { return {domain.begin(), domain.end() - 2}; }

  // What the second product multiplies, in memory.
  Value weights_value() const { return memory_of(g_.anchor->in(0)); }

  const Group& g_;
  const TargetInfo& target_;
  const Group &scores_, &reduced_;
  Contraction c_, d_;
  Dim rows_, length_, batch_;
  Blocking b_;
  std::int64_t width_;  // of the panels of values
  // Read where they lie; `turns_`: in squares, since neighbours in memory are of one key.
  bool keys_in_place_ = false, values_in_place_ = false, turns_ = false;
  Expr valid_rows_;
};

}  // namespace

bool takes_attention(const LoweringContext& context) {
  return context.allows("attention") && context.precision == Precision::Fp32 && register_tile(context.target);
}

std::optional<Lowered> lower_attention(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Attention) return std::nullopt;
  return AttentionLowering(group, *register_tile(context.target), context.target).run();
}

}  // namespace deepseek::kernels
