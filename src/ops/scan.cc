// Running sums and products along an axis.
#include "ops/loop_writer.h"

namespace deepseek {
namespace {

void running(const Node& n, ProgramBuilder& p, loops::Reducer reducer) {
  const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
  const Shape& shape = n.in(0).shape();
  const auto dim = [&](const Dim& d) { return p.dim(d); };
  const Expr outer = count_of(dim, shape, 0, axis), inner = count_of(dim, shape, axis + 1, shape.size());
  const Expr count = p.dim(shape[axis]), blocks = ceil_div(inner, kColumnBlock);
  const bool exclusive = flag(n, "exclusive"), reverse = flag(n, "reverse");
  const loops::Buffer x = p.input(0), y = p.output(0);
  const DType type = compute_type(x->dtype);
  p.phase(parallel("block", outer * blocks, [&](const Expr& b) {
    const Expr o = loops::floordiv(b, blocks), first = loops::mod(b, blocks) * Expr(kColumnBlock);
    return lanes("j", loops::min(Expr(kColumnBlock), inner - first), [&](const Expr& j) {
      const Cell total("total", type);
      const Stmt steps = serial("i", count, [&](const Expr& i) {
        const Expr at = reverse ? count - Expr(1) - i : i;
        const Named slot = let("slot", (o * count + at) * inner + first + j);
        const Stmt add = total.set(loops::combine(reducer, total.get(), read(x, slot.value)));
        const Stmt write = store(y, slot.value, total.get());
        return exclusive ? loops::block({slot.let, write, add}) : loops::block({slot.let, add, write});
      });
      return loops::block({total.declare(loops::identity(reducer, type)), steps});
    });
  }));
}

OpBuilder running_op(OpTable& t, std::string name, std::string doc, loops::Reducer reducer) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc))
      .input("x", Accepts::Number)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis.")
      .attr("exclusive", AttrKind::Bool, false, "Whether an element's own value is left out.")
      .attr("reverse", AttrKind::Bool, false, "Whether to run from the end.")
      .infer([](const Node& n) {
        normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        return same_as()(n);
      })
      .program([reducer](const Node& n, ProgramBuilder& p) { running(n, p, reducer); });
  return b;
}

}  // namespace

void add_scan_ops(OpTable& t) {
  running_op(t, "cumsum", "Running sums along an axis; integers keep their dtype and wrap.",
             loops::Reducer::Sum)
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        return g.op("cumsum", {dy},
                    {{"axis", integer(n, "axis")},
                     {"exclusive", flag(n, "exclusive")},
                     {"reverse", !flag(n, "reverse")}});
      }));
  running_op(t, "cumprod", "Running products along an axis; integers keep their dtype and wrap.",
             loops::Reducer::Prod);
}

}  // namespace deepseek
