// Reductions over axes.
#include <algorithm>

#include "ops/entries.h"

namespace deepseek {
namespace {

using loops::Reducer;

// The reduced axes, sorted; an empty list means every axis.
std::vector<int> reduced_axes(const Node& n) {
  auto axes = normalize_axes(n, ints(n, "axes"), n.in(0).rank());
  if (axes.empty())
    for (int i = 0; i < n.in(0).rank(); ++i) axes.push_back(i);
  return axes;
}
bool is_reduced(const std::vector<int>& axes, int i) {
  return std::find(axes.begin(), axes.end(), i) != axes.end();
}

Shape reduced_shape(const Node& n) {
  const auto axes = reduced_axes(n);
  Shape shape;
  for (int i = 0; i < n.in(0).rank(); ++i) {
    if (!is_reduced(axes, i))
      shape.push_back(n.in(0).dim(i));
    else if (flag(n, "keepdims"))
      shape.emplace_back(1);
  }
  return shape;
}
std::vector<Type> infer_reduction(const Node& n) { return {{n.in(0).dtype(), reduced_shape(n)}}; }

Dim reduced_count(const Node& n) {
  Dim count(1);
  for (const int a : reduced_axes(n)) count = count * n.in(0).dim(a);
  return count;
}

Expr reduction(const Node& n, Elements& e, std::span<const Expr> coords, Reducer r) {
  const auto axes = reduced_axes(n);
  std::vector<Expr> extents;
  for (const int a : axes) extents.push_back(e.dim(n.in(0).dim(a)));
  if (extents.empty()) return element(e, n, 0, coords);
  return e.reduce(r, extents, [&](std::span<const Expr> inner) {
    std::vector<Expr> source;
    std::size_t next_inner = 0, next_outer = 0;
    for (int i = 0; i < n.in(0).rank(); ++i) {
      const bool reduced = is_reduced(axes, i);
      source.push_back(reduced ? inner[next_inner++] : coords[next_outer]);
      if (!reduced || flag(n, "keepdims")) ++next_outer;
    }
    return element(e, n, 0, source);
  });
}

// y or dy with the reduced axes put back at size 1.
Value with_axes(GraphBuilder& g, const Node& n, Value v) {
  Shape shape = n.in(0).shape();
  for (const int a : reduced_axes(n)) shape[static_cast<std::size_t>(a)] = Dim(1);
  return g.reshape(v, shape);
}

OpBuilder reduction_op(OpTable& t, std::string name, std::string doc, Accepts accepts, IndexedFn f) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc))
      .input("x", accepts)
      .attr("axes", AttrKind::Ints, std::vector<std::int64_t>{}, "Which axes; empty: all.")
      .attr("keepdims", AttrKind::Bool, false, "Whether the reduced axes stay, at size 1.")
      .infer(infer_reduction)
      .indexed(std::move(f));
  return b;
}
IndexedFn reducing(Reducer r) {
  return [r](const Node& n, Elements& e, std::span<const Expr> coords) { return reduction(n, e, coords, r); };
}

// dy divided evenly among the elements that are the extremum.
Value extremum_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const Value chosen = g.cast(g.equal(n.in(0), with_axes(g, n, n.out())), n.in(0).dtype());
  return g.mul(chosen, g.div(with_axes(g, n, dy), g.sum(chosen, ints(n, "axes"), true)));
}

// One axis at a time: the product of all others is the exclusive product from both ends.
Value product_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const auto axes = reduced_axes(n);
  std::vector<Value> stages = {n.in(0)};
  for (const int a : axes) stages.push_back(g.reduce("prod", stages.back(), {a}, true));
  Value d = with_axes(g, n, dy);
  for (std::size_t i = axes.size(); i-- > 0;) {
    const auto others = [&](bool reverse) {
      return g.op("cumprod", {stages[i]},
                  {{"axis", std::int64_t{axes[i]}}, {"exclusive", true}, {"reverse", reverse}});
    };
    d = g.mul(d, g.mul(others(false), others(true)));
  }
  return d;
}

void add_basic(OpTable& t) {
  reduction_op(t, "sum", "The sum over axes; 0 over nothing. Integers keep their dtype and wrap.",
               Accepts::Number, reducing(Reducer::Sum))
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        return g.broadcast_to(with_axes(g, n, dy), n.in(0).shape());
      }));
  reduction_op(t, "prod", "The product over axes; 1 over nothing. Integers keep their dtype and wrap.",
               Accepts::Number, reducing(Reducer::Prod))
      .gradient(unary_gradient(product_gradient));
  reduction_op(t, "max",
               "The largest element; NaN if there is one; -inf or the dtype's minimum over nothing.",
               Accepts::Number, reducing(Reducer::Max))
      .gradient(unary_gradient(extremum_gradient));
  reduction_op(t, "min",
               "The smallest element; NaN if there is one; +inf or the dtype's maximum over nothing.",
               Accepts::Number, reducing(Reducer::Min))
      .gradient(unary_gradient(extremum_gradient));
  reduction_op(t, "any", "Whether one element at least holds.", Accepts::Bool, reducing(Reducer::Or));
  reduction_op(t, "all", "Whether every element holds.", Accepts::Bool, reducing(Reducer::And));
  reduction_op(t, "mean",
               "The sum over axes divided by the number of elements; NaN over nothing; integers truncate.",
               Accepts::Number,
               [](const Node& n, Elements& e, std::span<const Expr> coords) {
                 const Expr total = reduction(n, e, coords, Reducer::Sum);
                 const Dim count = reduced_count(n);
                 if (is_float(total.type()) && count.is_static() && count.value() > 0)
                   return total * (1.0 / static_cast<double>(count.value()));
                 return total / loops::cast(total.type(), e.dim(count));
               })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        const Value share = g.div(with_axes(g, n, dy), g.dim(reduced_count(n), dy.dtype()));
        return g.broadcast_to(share, n.in(0).shape());
      }));
}

// -- composed reductions
// ---------------------------------------------------------------------------------------

using Reduce = std::function<Value(GraphBuilder&, const Node&)>;
OpBuilder composed_reduction(OpTable& t, std::string name, std::string doc, Reduce f) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc))
      .input("x", Accepts::Float)
      .attr("axes", AttrKind::Ints, std::vector<std::int64_t>{}, "Which axes; empty: all.")
      .attr("keepdims", AttrKind::Bool, false, "Whether the reduced axes stay, at size 1.")
      .infer(infer_reduction)
      .composed([f = std::move(f)](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        return std::vector<Value>{g.cast(g.reshape(f(g, n), n.outputs[0].shape), n.in(0).dtype())};
      });
  return b;
}

void add_composed(OpTable& t) {
  composed_reduction(
      t, "var", "The mean squared distance from the mean: the sum of squares over count - correction.",
      [](GraphBuilder& g, const Node& n) {
        const Value x = g.widen(n.in(0));
        const auto& axes = ints(n, "axes");
        if (n.in(0).rank() == 0) return g.div(g.sub(x, x), g.scalar(1 - number(n, "correction"), x.dtype()));
        const Value centred = g.sub(x, g.mean(x, axes, true));
        const Value count = g.maximum(g.sub(g.dim(reduced_count(n), x.dtype()), number(n, "correction")), 0);
        return g.div(g.sum(g.square(centred), axes, true), count);
      })
      .attr("correction", AttrKind::Float, 1.0, "What is taken off the count (Bessel's: 1).");
  composed_reduction(t, "logsumexp", "log(sum(exp(x))), without overflow; -inf over nothing.",
                     [](GraphBuilder& g, const Node& n) {
                       const Value x = g.widen(n.in(0));
                       const auto& axes = ints(n, "axes");
                       const Value top = g.max(x, axes, true);
                       const Value shift = g.select(g.unary("is_inf", top), 0.0, top);
                       return g.add(g.log(g.sum(g.exp(g.sub(x, shift)), axes, true)), shift);
                     });
  composed_reduction(t, "norm", "(sum |x|^p)^(1/p); p = inf: the largest |x|; p = 0: how many are not 0.",
                     [](GraphBuilder& g, const Node& n) {
                       const Value x = g.widen(n.in(0));
                       const auto& axes = ints(n, "axes");
                       const double p = number(n, "p");
                       if (p == 1) return g.sum(g.abs(x), axes, true);
                       if (p == 2) return g.sqrt(g.sum(g.square(x), axes, true));
                       if (p == 0)
                         return g.sum(g.cast(g.op("not_equal", {x, g.scalar(0, x.dtype())}), x.dtype()), axes,
                                      true);
                       if (p > 1e300) return g.max(g.abs(x), axes, true);
                       if (p < -1e300) return g.reduce("min", g.abs(x), axes, true);
                       return g.pow(g.sum(g.pow(g.abs(x), p), axes, true), 1 / p);
                     })
      .attr("p", AttrKind::Float, 2.0, "The order.");
}

// -- arg
// ---------------------------------------------------------------------------------------------------------

// The first (or last) coordinate whose element is the extremum; where that is NaN, of a NaN.
std::vector<Value> arg_extremum(Graph& graph, const Node& n, std::string_view extremum) {
  GraphBuilder g(graph);
  const Value x = n.in(0);
  const int axis = normalize_axis(n, integer(n, "axis"), x.rank());
  Value chosen = g.equal(x, g.reduce(extremum, x, {axis}, true));
  if (is_float(x.dtype())) chosen = g.logical_or(chosen, g.unary("is_nan", x));
  const Value positions = g.iota(x.shape(), DType::I64, axis);
  const bool last = flag(n, "select_last_index");
  const Value candidates =
      last ? g.select(chosen, positions, -1) : g.select(chosen, positions, g.dim(x.dim(axis), DType::I64));
  return {g.reduce(last ? "max" : "min", candidates, {axis}, flag(n, "keepdims"))};
}

void add_arg(OpTable& t) {
  for (const bool largest : {true, false}) {
    t.add(largest ? "argmax" : "argmin")
        .doc(std::string("The coordinate of the ") + (largest ? "largest" : "smallest") +
             " element along an axis as int64, the first of equals unless asked for the last; NaN wins over "
             "all.")
        .input("x", Accepts::Number)
        .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis.")
        .attr("keepdims", AttrKind::Bool, false, "Whether the axis stays, at size 1.")
        .attr("select_last_index", AttrKind::Bool, false, "The last of equals instead of the first.")
        .infer([](const Node& n) {
          const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
          if (n.in(0).dim(axis) == Dim(0)) bad_input(n, "an axis that is not empty", str(n.in(0).type()));
          Shape shape = n.in(0).shape();
          if (flag(n, "keepdims"))
            shape[static_cast<std::size_t>(axis)] = Dim(1);
          else
            shape.erase(shape.begin() + axis);
          return std::vector<Type>{{DType::I64, shape}};
        })
        .composed([largest](Graph& g, const Node& n) { return arg_extremum(g, n, largest ? "max" : "min"); });
  }
}

}  // namespace

void add_reduce_ops(OpTable& t) {
  add_basic(t);
  add_composed(t);
  add_arg(t);
}

}  // namespace deepseek
