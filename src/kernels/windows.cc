#include "kernels/windows.h"

#include <algorithm>

namespace deepseek::kernels {

using namespace loops;

namespace {

bool all_static(const std::vector<Dim>& dims) {
  return std::all_of(dims.begin(), dims.end(), [](const Dim& d) { return d.is_static() && d.value() > 0; });
}

// Fills in steps for `index`, linear in the last of `rows` and in `depth`; false when it is not.
bool find_steps(const Expr& index, const std::vector<Axis>& rows, const std::vector<Axis>& depth,
                Windows& w) {
  const auto by_row = coefficient(index, rows.back().var);
  if (!by_row || !by_row->int_value()) return false;
  w.row_step = *by_row->int_value();
  for (const Axis& axis : depth) {
    const std::int64_t extent = *axis.extent.int_value();
    if (extent == 1) continue;
    const auto by_depth = coefficient(index, axis.var);
    if (!by_depth || !by_depth->int_value()) return false;
    const std::int64_t stride = *by_depth->int_value();
    if (!w.depth.empty() && w.depth.back().stride == stride * extent)
      w.depth.back() = {w.depth.back().extent * extent, stride};
    else
      w.depth.push_back({extent, stride});
  }
  if (w.depth.empty()) w.depth.push_back({1, 1});
  return true;
}

bool plain_load(const Expr& x) { return x.op() == Op::Load && x->args.size() == 1; }

}  // namespace

std::optional<Windows> windows_of(const Group& group, const Contraction& c, DType operands) {
  if (!c.bordered || !all_static({c.m.back()}) || !all_static(c.k)) return std::nullopt;
  const std::vector<Axis> batch = make_axes("b", extents_of(c.batch)), rows = make_axes("m", extents_of(c.m)),
                          depth = make_axes("k", extents_of(c.k));
  Assembly a(group);
  const Expr x = cast(operands, c.left(a.scope(), coords_of(batch), coords_of(rows), coords_of(depth), {}));
  Windows w{c.m.back().value(), 0, {}, false, 0};
  if (a.scope().take_checks().empty() && plain_load(x) && find_steps(x->args[0], rows, depth, w)) return w;
  w = {c.m.back().value(), 0, {}, true, 1};
  for (const Dim& d : c.bordered->shape) {
    if (d.is_static() && d.value() <= 0) return std::nullopt;
    w.copied = w.copied * d;
  }
  const Expr index = flat_index(c.bordered->shape,
                                c.bordered->position(coords_of(batch), coords_of(rows), coords_of(depth)));
  if (!find_steps(index, rows, depth, w)) return std::nullopt;
  return w;
}

Buffer bordered_copy(Assembly& a, const Contraction& c, DType operands) {
  const Shape& shape = c.bordered->shape;
  const Buffer copy = a.workspace("bordered", operands, expr_of(numel(shape)));
  std::vector<Axis> axes = make_axes("i", extents_of(shape));
  const std::vector<Expr> at = coords_of(axes);
  const Expr value = cast(operands, c.bordered->element(a.scope(), at));
  std::vector<Stmt> body = a.scope().take_checks();
  body.push_back(stmt(Store{copy, flat_index(shape, at), value, {}}));
  const Axis inner = axes.back();
  axes.pop_back();
  a.phase(parallel_over(axes, split_on_predicates(loop(inner, LoopKind::Vector, block(std::move(body))))));
  return copy;
}

WindowBuffer read_windows(Assembly& a, const Contraction& c, const Windows& w, DType operands) {
  const std::vector<Expr> none(c.k.size(), Expr(0));
  if (!w.bordered) {
    const std::vector<Axis> batch = make_axes("b", extents_of(c.batch)),
                            rows = make_axes("m", extents_of(c.m));
    const Expr x = cast(operands, c.left(a.scope(), coords_of(batch), coords_of(rows), none, {}));
    std::vector<Var> from;
    for (const auto* axes : {&batch, &rows})
      for (const Axis& axis : *axes) from.push_back(axis.var);
    return {x->buffer, [from, index = x->args[0]](std::span<const Expr> b, std::span<const Expr> m) {
              std::vector<Expr> to(b.begin(), b.end());
              to.insert(to.end(), m.begin(), m.end());
              return substitute(index, from, to);
            }};
  }
  const Shape shape = c.bordered->shape;
  return {bordered_copy(a, c, operands),
          [shape, position = c.bordered->position, none](std::span<const Expr> b, std::span<const Expr> m) {
            return flat_index(shape, position(b, m, none));
          }};
}

}  // namespace deepseek::kernels
