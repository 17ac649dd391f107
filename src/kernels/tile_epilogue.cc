#include "kernels/tile_epilogue.h"

namespace deepseek::kernels {

using namespace loops;

TileLines lines_of(const TileEpilogue& e) {
  TileLines lines;
  const auto add = [&](std::vector<TileLine>& to, const Buffer& buffer, const Expr& index) {
    const auto step = coefficient(index, e.j);
    if (uses(index, e.i) && step && step->int_value() == 1) to.push_back({buffer, index});
  };
  visit_stmts(e.stores, [&](const Stmt& s) {
    visit_exprs(s, [&](const Expr& value) {
      visit(value, [&](const Expr& x) {
        if (x.op() == Op::Load) add(lines.read, x->buffer, x->args[0]);
      });
    });
    if (const auto* store = as<Store>(s)) add(lines.written, store->buffer, store->index);
  });
  return lines;
}

Stmt prefetch_at(const TileLine& x, const TileEpilogue& e, const Expr& row, const Expr& column) {
  const Var from[] = {e.i, e.j};
  const Expr to[] = {row, column};
  return stmt(Prefetch{x.buffer, substitute(x.index, from, to)});
}

}  // namespace deepseek::kernels
