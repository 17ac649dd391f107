// Poolings to a given size. Window i of an axis of size d pooled to s covers [floor(i*d/s), ceil((i+1)*d/s)), so windows
// differ in size and overlap where s does not divide d; the axes are independent.
#include <limits>

#include "ops/entries.h"

namespace deepseek {
namespace {

std::vector<Type> infer(const Node& n) {
  const Shape& size = shape_attr(n, "size");
  if (n.in(0).rank() < static_cast<int>(size.size()))
    bad_input(n, "x with " + std::to_string(size.size()) + " spatial axes", str(n.in(0).type()));
  Shape shape = n.in(0).shape();
  std::copy(size.begin(), size.end(), shape.end() - static_cast<std::ptrdiff_t>(size.size()));
  return {{n.in(0).dtype(), shape}};
}

// [d, s]: whether element d lies in window s.
Value membership(GraphBuilder& g, const Dim& d, const Dim& s) {
  const Value element = g.iota({d, Dim(1)}, DType::I64, 0), window = g.iota({Dim(1), s}, DType::I64, 1);
  const Value from = g.dim(d, DType::I64), to = g.dim(s, DType::I64);
  const Value begin = g.binary("floor_div", g.mul(window, from), to);
  const Value end = g.binary("floor_div", g.sub(g.add(g.mul(g.add(window, 1), from), to), 1), to);
  return g.logical_and(g.less_equal(begin, element), g.less(element, end));
}

// The pooled axis moved last, handed to f, and put back.
Value over_axis(GraphBuilder& g, Value x, int axis, const std::function<Value(Value)>& f) {
  const int last = x.rank() - 1;
  if (axis == last) return f(x);
  auto perm = axes_range(0, x.rank());
  std::swap(perm[static_cast<std::size_t>(axis)], perm[static_cast<std::size_t>(last)]);
  return g.transpose(f(g.transpose(x, perm)), perm);
}

std::vector<Value> pool(Graph& graph, const Node& n, bool average) {
  GraphBuilder g(graph);
  const Shape& size = shape_attr(n, "size");
  Value x = g.widen(n.in(0));
  const int first = x.rank() - static_cast<int>(size.size());
  for (std::size_t i = 0; i < size.size(); ++i) {
    const int axis = first + static_cast<int>(i);
    const Dim d = x.dim(axis), s = size[i];
    if (d == s) continue;
    if (s == Dim(1)) {
      x = g.reduce(average ? "mean" : "max", x, {axis}, true);
      continue;
    }
    const Value inside = membership(g, d, s);
    x = over_axis(g, x, axis, [&](Value v) {
      if (average) {
        const Value weights = g.cast(inside, v.dtype());
        return g.matmul(v, g.div(weights, g.sum(weights, {0}, true)));
      }
      const Value candidates = g.select(inside, g.unsqueeze(v, -1), -std::numeric_limits<double>::infinity());
      return g.max(candidates, {v.rank() - 1}, false);
    });
  }
  return {g.cast(x, n.in(0).dtype())};
}

}  // namespace

void add_adaptive_pool_ops(OpTable& t) {
  for (const bool average : {true, false})
    t.add(average ? "adaptive_avg_pool" : "adaptive_max_pool")
        .doc(std::string("The ") + (average ? "mean" : "largest element") +
             " of each of `size` windows that divide the last axes evenly: window i of s over d elements is "
             "[floor(i*d/s), ceil((i+1)*d/s)).")
        .input("x", Accepts::Float)
        .attr("size", AttrKind::Shape, "The result's spatial dims.")
        .infer(infer)
        .composed([average](Graph& g, const Node& n) { return pool(g, n, average); });
}

}  // namespace deepseek
