#include "kernels/in_memory.h"

#include "kernels/assembly.h"

namespace deepseek::kernels {

using namespace loops;

std::optional<LeftInMemory> left_in_memory(Scope& scope, const Contraction& c, const Expr& batch,
                                           DType operands) {
  const Axis row = make_axis("m", expr_of(product_of(c.m))), depth = make_axis("k", expr_of(product_of(c.k)));
  const Expr x = cast(
      operands, c.left(scope, unflatten(batch, extents_of(c.batch)), unflatten(var(row.var), extents_of(c.m)),
                       unflatten(var(depth.var), extents_of(c.k)), {}));
  if (x.op() != Op::Load || x->args.size() != 1 || x.type() != operands) return std::nullopt;
  const auto by_row = coefficient(x->args[0], row.var), by_depth = coefficient(x->args[0], depth.var);
  if (!by_row || !by_row->int_value() || !by_depth || by_depth->int_value() != 1) return std::nullopt;
  const Var from[] = {row.var, depth.var};
  const Expr to[] = {0, 0};
  return LeftInMemory{x->buffer, substitute(x->args[0], from, to), *by_row->int_value()};
}

std::optional<RightInMemory> right_in_memory(Scope& scope, const Contraction& c, const Expr& batch) {
  if (c.k.size() != 1 || c.n.size() != 1) return std::nullopt;
  const Axis k = make_axis("k", expr_of(c.k[0])), j = make_axis("j", expr_of(c.n[0]));
  const std::vector<Expr> column = {var(j.var)}, depth = {var(k.var)};
  const Expr x = c.right(scope, unflatten(batch, extents_of(c.batch)), column, depth, {});
  if (x.op() != Op::Load || x->args.size() != 1) return std::nullopt;
  const auto by_depth = coefficient(x->args[0], k.var), by_column = coefficient(x->args[0], j.var);
  if (!by_depth || !by_depth->int_value() || !by_column || !by_column->int_value()) return std::nullopt;
  const Var from[] = {k.var, j.var};
  const Expr to[] = {0, 0};
  return RightInMemory{x->buffer, substitute(x->args[0], from, to), *by_depth, *by_column};
}

}  // namespace deepseek::kernels
