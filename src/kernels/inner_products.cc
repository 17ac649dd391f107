// Inner products: a few results of great depth, both operands along memory. The depth is cut into parts, whose number
// depends on it alone; a task goes over all results, so that each operand is read from memory once.
#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kMostResults = 64, kLeastDepth = 1 << 14;
constexpr std::int64_t kLeastPart = 1 << 12;
constexpr double kLoads = 2;  // for each multiply-add, which take as long

bool takes(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Contraction || context.target.gpu_mapped) return false;
  const Node& n = *group.anchor;
  if (n.op->name != "matmul" || !(n.in(0).dtype() == DType::F32 || n.in(0).dtype() == DType::F64) ||
      n.in(1).dtype() != n.in(0).dtype())
    return false;
  const Contraction c = contraction_of(n);
  const Dim results = numel(n.outputs[0].shape);
  if (c.k.size() != 1 || !c.k[0].is_static() || !results.is_static()) return false;
  if (c.k[0].value() < kLeastDepth || results.value() > kMostResults) return false;
  // Everything is read along the depth.
  Assembly a(group);
  const Axis k = make_axis("k", c.k[0].value());
  const std::vector<Expr> b(c.batch.size(), Expr(0)), i(c.m.size(), Expr(0)), j(c.n.size(), Expr(0));
  const Expr depth[] = {var(k.var)};
  bool along = true;
  for (const Expr& x : {c.left(a.scope(), b, i, depth, {}), c.right(a.scope(), b, j, depth, {})})
    visit(x, [&](const Expr& e) {
      if (e.op() == Op::Reduce) along = false;
      if (e.op() != Op::Load) return;
      const auto step = coefficient(e->args[0], k.var);
      along = along && step && (step->int_value() == 0 || step->int_value() == 1);
    });
  return along && a.scope().take_checks().empty();
}

}  // namespace

std::optional<Price> price_inner_products(const Group& group, const LoweringContext& context) {
  if (!takes(group, context)) return std::nullopt;
  const Node& n = *group.anchor;
  const auto depth = static_cast<double>(contraction_of(n).k[0].value());
  return Price{kLoads * depth * static_cast<double>(numel(n.outputs[0].shape).value())};
}

std::optional<Lowered> lower_inner_products(const Group& group, const LoweringContext& context) {
  if (!takes(group, context)) return std::nullopt;
  const Node& n = *group.anchor;
  const Contraction c = contraction_of(n);
  const DType type = n.outputs[0].dtype;
  const std::int64_t depth = c.k[0].value();
  const std::int64_t each = part_length(depth, kLeastPart), parts = ceil_of(depth, each);

  Assembly a(group);
  std::vector<Axis> grid = make_axes("b", extents_of(c.batch));
  const std::vector<Axis> rows = make_axes("i", extents_of(c.m)), columns = make_axes("j", extents_of(c.n));
  const std::vector<Expr> b = coords_of(grid), i = coords_of(rows), j = coords_of(columns);
  const Axis part = make_axis("part", parts);
  const Expr first = var(part.var) * each;
  const Axis k = make_axis("k", depth % each == 0 ? Expr(each) : loops::min(Expr(each), depth - first));
  const Expr at[] = {first + var(k.var)};
  const Expr product = c.left(a.scope(), b, i, at, {}) * c.right(a.scope(), b, j, at, {});
  std::vector<Stmt> checks;
  Computed sum = expand_reductions(reduce(Reducer::Sum, {k}, product), true, checks);
  const Buffer sums = a.workspace("sums", type, numel(n.outputs[0].shape).value() * parts);
  sum.stmts.push_back(stmt(
      Store{sums, flat_index(n.outputs[0].shape, c.result(b, i, j)) * parts + var(part.var), sum.value, {}}));
  Stmt task = block(std::move(sum.stmts));
  for (const auto& axes : {columns, rows})
    for (std::size_t x = axes.size(); x-- > 0;) task = loop(axes[x], LoopKind::Serial, std::move(task));
  grid.push_back(part);
  a.phase(parallel_over(grid, std::move(task)));

  a.scope().bind(n.out(), [&](std::span<const Expr> coords, const Expr&) {
    const Axis p = make_axis("p", parts);
    return reduce(Reducer::Sum, {p}, load(sums, flat_index(n.outputs[0].shape, coords) * parts + var(p.var)));
  });
  a.phase(map_phase(a, group.domain, stored_outputs(group), stored_index));
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.calls.back().flops = numel(n.outputs[0].shape) * c.k[0] * 2;
  result.way = "inner products";
  return result;
}

}  // namespace deepseek::kernels
