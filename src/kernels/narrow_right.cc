#include "kernels/narrow_right.h"

#include <algorithm>

#include "kernels/panels.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

bool is_named(const Value& v, std::string_view name) { return v.node->op && v.node->op->name == name; }

Dim blocks_of(const NarrowRight& right, const Contraction& c) {
  return ceildiv(product_of(c.k), right.block);
}

// Zero points take a byte each.
DType zero_type(const NarrowRight& right) { return is_signed(right.stored) ? DType::I8 : DType::U8; }

}  // namespace

std::optional<NarrowRight> narrow_right_of(const Group& group) {
  const Value w = group.anchor->in(1);
  if (w.dtype() != DType::F32) return std::nullopt;
  if (is_named(w, "cast") && w.node->in(0).dtype() == DType::I8) return NarrowRight{DType::I8, w, {}, {}, {}};
  const bool inside = std::find(group.members.begin(), group.members.end(), w.node) != group.members.end();
  if (!inside || !is_named(w, "dequantize_blocks") || group.anchor->op->name != "matmul") return std::nullopt;
  const Value whole = w.node->in(0);
  const std::int64_t width = bits(whole.dtype()), block = w.node->attr<std::int64_t>("block");
  const int axis = normalize_axis(*w.node, w.node->attr<std::int64_t>("axis"), w.rank());
  if (axis != w.rank() - 2 || (width != 4 && width != 8) || (width == 4 && block * width % 32 != 0))
    return std::nullopt;
  Value scale = w.node->in(1);
  if (is_named(scale, "cast") && bits(scale.node->in(0).dtype()) < bits(scale.dtype()))
    scale = scale.node->in(0);
  return NarrowRight{whole.dtype(), w, whole, scale, w.node->has(2) ? w.node->in(2) : Value(), block};
}

void bind_whole(Scope& scope, const NarrowRight& right) {
  if (!right.has_blocks()) return;
  scope.bind(right.operand,
             [&scope, whole = right.whole](std::span<const Expr> coords, const Expr& predicate) {
               return scope.at(whole, coords, predicate);
             });
}

std::vector<Type> block_temps(const NarrowRight& right, const Contraction& c, std::int64_t nr) {
  const Dim numbers = product_of(c.batch) * ceildiv(product_of(c.n), nr) * blocks_of(right, c) * nr;
  std::vector<Type> result;
  if (right.scale) result.push_back({right.scale.dtype(), {numbers}});
  if (right.zero) result.push_back({zero_type(right), {numbers}});
  return result;
}

Call pack_blocks(const Group& group, const NarrowRight& right, const Contraction& c, std::int64_t nr,
                 int temp) {
  Assembly a(group);
  const Dim n = product_of(c.n);
  const std::vector<Type> types = block_temps(right, c, nr);
  const Expr panels = ceil_of(expr_of(n), nr), blocks = expr_of(blocks_of(right, c));
  const Axis batch = make_axis("b", expr_of(product_of(c.batch))), panel = make_axis("panel", panels),
             block = make_axis("block", blocks), lane = make_axis("j", nr);
  const Expr column = var(panel.var) * nr + var(lane.var);
  const Expr valid = n.is_static() && n.value() % nr == 0 ? Expr() : column < expr_of(n);
  const Expr index =
      ((var(batch.var) * panels + var(panel.var)) * blocks + var(block.var)) * nr + var(lane.var);
  std::vector<Stmt> body;
  Value parts[] = {right.scale, right.zero};
  for (int i = 0; i < static_cast<int>(types.size()); ++i) {
    const Value part = parts[i];
    a.scope().bind(right.operand, [&a, part, &block](std::span<const Expr> coords, const Expr& predicate) {
      std::vector<Expr> of_block(coords.begin(), coords.end());
      of_block[of_block.size() - 2] = var(block.var);
      return a.scope().at(part, of_block, predicate);
    });
    const Expr k[] = {var(block.var) * right.block};
    const Expr value = c.right(a.scope(), unflatten(var(batch.var), extents_of(c.batch)),
                               unflatten(column, extents_of(c.n)), k, valid);
    const DType to = types[static_cast<std::size_t>(i)].dtype;
    const Buffer out = a.temp(temp + i, types[static_cast<std::size_t>(i)], Access::Write);
    body.push_back(stmt(Store{out, index, cast(to, value), {}}));
  }
  std::vector<Stmt> checks = a.scope().take_checks();
  body.insert(body.begin(), checks.begin(), checks.end());
  const std::vector<Axis> axes = {batch, panel, block};
  a.phase(parallel_over(axes,
                        split_on_predicates(loop(lane, LoopKind::Vector, kernels::block(std::move(body))))));
  return a.finish("pack_scales_" + group.name());
}

Stmt apply_blocks(Assembly& a, const NarrowRight& right, const Contraction& c, std::int64_t nr, int temp,
                  const Tile& tile, const Expr& panel, const Expr& depth) {
  const Var i = loop_var("i", tile->rows), j = loop_var("j", nr), x = make_var("w", DType::F32);
  const Expr block = floordiv(depth, right.block);
  const Expr index = (panel * expr_of(blocks_of(right, c)) + block) * nr + var(j);
  const std::vector<Type> types = block_temps(right, c, nr);
  const auto of_block = [&](int part) {
    return cast(DType::F32,
                load(a.temp(temp + part, types[static_cast<std::size_t>(part)], Access::Read), index));
  };
  Expr value = var(x);
  if (right.zero) value = value - of_block(1);
  return stmt(TileMap{tile, i, j, x, value * of_block(0)});
}

}  // namespace deepseek::kernels
