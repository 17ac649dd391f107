#include "kernels/packed_rows.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kFewRuns = 16;  // are moved one after another, without a loop

Expr element(Assembly& a, const Contraction& c, const PackedRows& as, Contraction::Coords batch,
             Contraction::Coords m, Contraction::Coords k, const Expr& valid) {
  if (!as.copy) return c.left(a.scope(), batch, m, k, valid);
  const Expr at = flat_index(c.bordered->shape, c.bordered->position(batch, m, k));
  return valid.get() ? load(*as.copy, at, valid, zero(as.type)) : load(*as.copy, at);
}

}  // namespace

Stmt packed_row(Assembly& a, const Contraction& c, const PackedRows& as, const RowToPack& row,
                const Buffer& to, const Expr& position) {
  std::vector<Axis> depth = make_axes("k", extents_of(c.k));
  const std::vector<Expr> k = coords_of(depth);
  std::vector<Stmt> stmts = {stmt(Let{row.row, row.value})};
  std::vector<Expr> m = unflatten(var(row.row), extents_of(c.m));
  if (m.size() > 1)  // divided once per row
    for (Expr& coord : m) {
      const Var v = make_var("m" + std::to_string(stmts.size()));
      stmts.push_back(stmt(Let{v, coord}));
      coord = var(v);
    }
  Expr value = cast(as.type, element(a, c, as, unflatten(row.batch, extents_of(c.batch)), m, k, row.valid));
  Expr index = 0;
  for (std::size_t i = 0; i < k.size(); ++i) index = index * expr_of(c.k[i]) + k[i];
  index = position + index;
  Expr* exprs[] = {&value, &index};
  std::vector<Stmt> body = a.scope().take_checks();
  if (body.empty()) merge_axes(depth, exprs);
  body.push_back(stmt(Store{to, index, value, {}}));
  Stmt s = block(std::move(body));
  for (std::size_t i = depth.size(); i-- > 0;) {
    const bool unrolled = as.copy && i + 2 == depth.size() && *depth[i].extent.int_value() <= kFewRuns;
    const LoopKind outer = unrolled ? LoopKind::Unrolled : LoopKind::Serial;
    s = loop(depth[i], i + 1 == depth.size() ? LoopKind::Vector : outer, std::move(s));
  }
  stmts.push_back(split_on_predicates(s, true));
  if (const Dim whole = product_of(c.k); !(as.padded == whole)) {
    const Axis rest = make_axis("z", expr_of(as.padded) - expr_of(whole));
    stmts.push_back(loop(rest, LoopKind::Vector,
                         stmt(Store{to, position + expr_of(whole) + var(rest.var), zero(as.type), {}})));
  }
  return block(std::move(stmts));
}

}  // namespace deepseek::kernels
