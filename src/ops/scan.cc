// Running sums, products and extremes along an axis.
#include <cmath>

#include "ops/loop_writer.h"

namespace deepseek {
namespace {

// Kahan's summation: `lost` is what the roundings so far have added to the total. Beyond infinity nothing is.
Stmt add_compensated(const Cell& total, const Cell& lost, const Expr& value) {
  const Named part = let("part", value - lost.get()), next = let("next", total.get() + part.value);
  const Named rest = let("rest", (next.value - total.get()) - part.value);
  const Expr zero = loops::zero(rest.value.type());
  return loops::block({part.let, next.let, rest.let,
                       lost.set(loops::select(loops::make(loops::Op::IsNan, {rest.value}), zero, rest.value)),
                       total.set(next.value)});
}

void running(const Node& n, ProgramBuilder& p, loops::Reducer reducer) {
  const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
  const Shape& shape = n.in(0).shape();
  const auto dim = [&](const Dim& d) { return p.dim(d); };
  const Expr outer = count_of(dim, shape, 0, axis), inner = count_of(dim, shape, axis + 1, shape.size());
  const Expr count = p.dim(shape[axis]), blocks = ceil_div(inner, kColumnBlock);
  const bool exclusive = flag(n, "exclusive"), reverse = flag(n, "reverse");
  const loops::Buffer x = p.input(0), y = p.output(0);
  const DType type = compute_type(x->dtype);
  const bool compensated = reducer == loops::Reducer::Sum && type == DType::F32;
  p.phase(parallel("block", outer * blocks, [&](const Expr& b) {
    const Expr o = loops::floordiv(b, blocks), first = loops::mod(b, blocks) * Expr(kColumnBlock);
    return lanes("j", loops::min(Expr(kColumnBlock), inner - first), [&](const Expr& j) {
      const Cell total("total", type), lost("lost", type);
      const auto add_to_total = [&](const Expr& value) {
        return compensated ? add_compensated(total, lost, value)
                           : total.set(loops::combine(reducer, total.get(), value));
      };
      const Stmt steps = serial("i", count, [&](const Expr& i) {
        const Expr at = reverse ? count - Expr(1) - i : i;
        const Named slot = let("slot", (o * count + at) * inner + first + j);
        const Stmt add = add_to_total(read(x, slot.value));
        const Stmt write = store(y, slot.value, total.get());
        return exclusive ? loops::block({slot.let, write, add}) : loops::block({slot.let, add, write});
      });
      return loops::block(
          {total.declare(loops::identity(reducer, type)), lost.declare(loops::zero(type)), steps});
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

// The largest or smallest element so far, and where the last such one was. NaN is taken for larger (smaller) than all.
void running_extreme(const Node& n, ProgramBuilder& p, bool largest) {
  const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
  const Shape& shape = n.in(0).shape();
  const auto dim = [&](const Dim& d) { return p.dim(d); };
  const Expr outer = count_of(dim, shape, 0, axis), inner = count_of(dim, shape, axis + 1, shape.size());
  const Expr count = p.dim(shape[axis]);
  const loops::Buffer x = p.input(0), values = p.output(0), indices = p.output(1);
  const DType type = compute_type(x->dtype);
  p.phase(parallel("row", outer * inner, [&](const Expr& row) {
    const Expr first = loops::floordiv(row, inner) * count * inner + loops::mod(row, inner);
    const Cell best("best", type), where("where", DType::I64);
    return loops::block(
        {best.declare(loops::zero(type)), where.declare(Expr(0)), serial("i", count, [&](const Expr& i) {
           const Named slot = let("slot", first + i * inner), next = let("next", read(x, slot.value));
           Expr better = largest ? best.get() <= next.value : next.value <= best.get();
           if (is_float(type)) better = better || loops::make(loops::Op::IsNan, {next.value});
           return loops::block(
               {slot.let, next.let,
                when(i == Expr(0) || better, loops::block({best.set(next.value), where.set(i)})),
                store(values, slot.value, best.get()), store(indices, slot.value, where.get())});
         })});
  }));
}

void add_running_extreme(OpTable& t, std::string name, std::string doc, bool largest) {
  t.add(std::move(name))
      .doc(std::move(doc))
      .input("x", Accepts::Number)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis.")
      .infer([](const Node& n) {
        normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        return std::vector<Type>{n.in(0).type(), {DType::I64, n.in(0).shape()}};
      })
      .program([largest](const Node& n, ProgramBuilder& p) { running_extreme(n, p, largest); });
}

// log(exp(a) + exp(b)) without overflow, one step of a running sum.
Expr log_add(const Expr& a, const Expr& b) {
  const Expr large = loops::max(a, b), small = loops::min(a, b);
  const Expr sum = large + loops::make(loops::Op::Log1p, {loops::make(loops::Op::Exp, {small - large})});
  return loops::select(large == small, large + loops::constant(large.type(), std::log(2.0)), sum);
}

void running_log_sum(const Node& n, ProgramBuilder& p) {
  const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
  const Shape& shape = n.in(0).shape();
  const auto dim = [&](const Dim& d) { return p.dim(d); };
  const Expr outer = count_of(dim, shape, 0, axis), inner = count_of(dim, shape, axis + 1, shape.size());
  const Expr count = p.dim(shape[axis]);
  const loops::Buffer x = p.input(0), y = p.output(0);
  const DType type = compute_type(x->dtype);
  p.phase(parallel("row", outer * inner, [&](const Expr& row) {
    const Expr first = loops::floordiv(row, inner) * count * inner + loops::mod(row, inner);
    const Cell total("total", type);
    return loops::block({total.declare(loops::lowest(type)), serial("i", count, [&](const Expr& i) {
                           const Named slot = let("slot", first + i * inner);
                           return loops::block({slot.let,
                                                total.set(log_add(total.get(), read(x, slot.value))),
                                                store(y, slot.value, total.get())});
                         })});
  }));
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
  add_running_extreme(t, "cummax",
                      "The largest element so far along an axis, and where it was: the last such one. NaN is "
                      "larger than every number.",
                      true);
  add_running_extreme(
      t, "cummin",
      "The smallest element so far along an axis, and where it was: the last such one. NaN is "
      "smaller than every number.",
      false);
  t.add("logcumsumexp")
      .doc("Logarithms of the running sums of exp(x) along an axis, without overflow.")
      .input("x", Accepts::Float)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis.")
      .infer([](const Node& n) {
        normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        return same_as()(n);
      })
      .program(running_log_sum);
}

}  // namespace deepseek
