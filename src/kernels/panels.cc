#include "kernels/panels.h"

#include "kernels/assembly.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

Type panels_type(const Contraction& c, std::int64_t nr, DType stored) {
  return {stored, {product_of(c.batch) * ceildiv(product_of(c.n), nr) * product_of(c.k) * nr}};
}

namespace {

// Loops over the depth of a panel, whose iterations are independent, and what they write.
struct PanelLoops {
  std::vector<Axis> axes;
  Stmt body;
};

// Element (k, j) of the part goes to to[(first + k) * nr + j].
PanelLoops panel_loops(Assembly& a, const Contraction& c, std::int64_t nr, const PanelPart& part,
                       const Buffer& to, const Expr& first, const TargetInfo& target) {
  const Dim n = product_of(c.n);
  const std::int64_t lanes = target.vector_bytes / 4;
  const auto from = right_in_memory(a.scope(), c, part.batch);
  const bool squares = register_tile(target) && to->dtype == DType::F32 && nr % lanes == 0;
  if (from && from->is_turned() && from->buffer->dtype == DType::F32 && squares) {
    const Axis k = make_axis("k", ceil_of(part.count, lanes)), square = make_axis("square", nr / lanes);
    const Expr row = var(k.var) * lanes, in_panel = var(square.var) * lanes,
               column = part.panel * nr + in_panel;
    const Tile t = std::make_shared<const TileNode>(TileNode{"turned", DType::F32, lanes, lanes});
    const Var i = loop_var("i", lanes), j = loop_var("j", lanes), x = make_var("x", DType::F32);
    const Expr rows = loops::min(Expr(lanes), part.count - row);
    const Stmt store = stmt(Store{to, (first + row + var(i)) * nr + in_panel + var(j), var(x), {}});
    return {{k, square},
            block({stmt(TileAlloc{t}),
                   stmt(TileLoad{t, from->buffer, from->first + part.first + row + column * from->by_column,
                                 1, from->by_column, rows, loops::min(Expr(lanes), expr_of(n) - column)}),
                   stmt(TileStore{t, i, j, x, rows, lanes, store})})};
  }
  a.scope().take_checks();
  std::vector<Axis> depth = {make_axis("k", part.count)};
  std::vector<Expr> k = {part.first + var(depth[0].var)};
  Expr row = var(depth[0].var);
  if (c.k.size() != 1) {
    depth = make_axes("k", extents_of(c.k));
    k = coords_of(depth);
    row = flat_index(c.k, k);
  }
  const Axis lane = make_axis("j", nr);
  const Expr column = part.panel * nr + var(lane.var);
  const Expr valid = n.is_static() && n.value() % nr == 0 ? Expr() : column < expr_of(n);
  const Expr value = c.right(a.scope(), unflatten(part.batch, extents_of(c.batch)),
                             unflatten(column, extents_of(c.n)), k, valid);
  std::vector<Stmt> body = a.scope().take_checks();
  body.push_back(stmt(Store{to, (first + row) * nr + var(lane.var), cast(to->dtype, value), {}}));
  return {std::move(depth), split_on_predicates(loop(lane, LoopKind::Vector, block(std::move(body))))};
}

}  // namespace

Call pack_panels(const Group& group, const Contraction& c, std::int64_t nr, const Type& packed, int temp,
                 const TargetInfo& target, const std::optional<NarrowRight>& narrow) {
  Assembly a(group);
  if (narrow) bind_whole(a.scope(), *narrow);
  const Expr panels = ceil_of(expr_of(product_of(c.n)), nr), depth = expr_of(product_of(c.k));
  std::vector<Axis> axes = {make_axis("b", expr_of(product_of(c.batch))), make_axis("panel", panels)};
  const PanelPart part{var(axes[0].var), var(axes[1].var), 0, depth};
  const Buffer out = a.temp(temp, packed, Access::Write);
  const PanelLoops steps =
      panel_loops(a, c, nr, part, out, (part.batch * panels + part.panel) * depth, target);
  axes.insert(axes.end(), steps.axes.begin(), steps.axes.end());
  a.phase(parallel_over(axes, steps.body));
  return a.finish("pack_" + group.name());
}

Stmt packed_panel(Assembly& a, const Contraction& c, std::int64_t nr, const PanelPart& part, const Buffer& to,
                  const Expr& first, const TargetInfo& target) {
  PanelLoops steps = panel_loops(a, c, nr, part, to, first, target);
  for (std::size_t i = steps.axes.size(); i-- > 0;)
    steps.body = loop(steps.axes[i], LoopKind::Serial, std::move(steps.body));
  return std::move(steps.body);
}

Call pack_words(const Group& group, const Contraction& c, std::int64_t nr, const Words& words, int temp,
                const std::optional<NarrowRight>& narrow) {
  Assembly a(group);
  if (narrow) bind_whole(a.scope(), *narrow);
  const Dim all = product_of(c.batch), n = product_of(c.n), k = product_of(c.k), panels = ceildiv(n, nr);
  const Axis batch = make_axis("b", expr_of(all)), panel = make_axis("panel", expr_of(panels)),
             word = make_axis("k", floordiv(expr_of(words.depth), words.in_word)), lane = make_axis("j", nr);
  const Expr column = var(panel.var) * nr + var(lane.var);
  const bool all_columns = n.is_static() && n.value() % nr == 0;
  const std::int64_t width = bits(words.element);
  const DType whole = width == 16 ? DType::U16 : DType::U8;
  Expr value;
  for (std::int64_t r = 0; r < words.in_word; ++r) {
    const Expr row = var(word.var) * words.in_word + r;
    Expr valid = all_columns ? Expr() : column < expr_of(n);
    if (!(words.depth == k)) valid = valid ? valid && row < expr_of(k) : row < expr_of(k);
    const Expr element = c.right(a.scope(), unflatten(var(batch.var), extents_of(c.batch)),
                                 unflatten(column, extents_of(c.n)), unflatten(row, extents_of(c.k)), valid);
    Expr bits_of =
        width < 8 ? make(Op::And, {cast(whole, element), constant(whole, (std::int64_t{1} << width) - 1)})
                  : bitcast(whole, cast(words.element, element));
    const Expr part = make(Op::Shl, {cast(DType::U32, std::move(bits_of)), constant(DType::U32, r * width)});
    value = value ? make(Op::Or, {value, part}) : part;
  }
  const Dim count = all * panels * floordiv(words.depth, words.in_word) * nr;
  const Buffer out = a.temp(temp, Type{DType::U32, {count}}, Access::Write);
  const Expr row = (var(batch.var) * panel.extent + var(panel.var)) * word.extent + var(word.var);
  std::vector<Stmt> body = a.scope().take_checks();
  body.push_back(stmt(Store{out, row * nr + var(lane.var), value, {}}));
  const std::vector<Axis> axes = {batch, panel, word};
  a.phase(parallel_over(axes, split_on_predicates(loop(lane, LoopKind::Vector, block(std::move(body))))));
  return a.finish("pack_" + group.name());
}

}  // namespace deepseek::kernels
