// Distances between points.
#include "ops/entries.h"

namespace deepseek {
namespace {

std::vector<Type> infer_distance(const Node& n) {
  const Value a = n.in(0), b = n.in(1);
  bool fits = a.rank() >= 2 && a.rank() == b.rank() && may_equal(a.dim(-1), b.dim(-1));
  for (int i = 0; fits && i < a.rank() - 2; ++i) fits = may_equal(a.dim(i), b.dim(i));
  if (!fits) bad_input(n, "points a [..., m, k] and b [..., n, k]", str(a.type()) + " and " + str(b.type()));
  Shape shape = a.shape();
  shape.back() = b.dim(-2);
  return {{a.dtype(), shape}};
}

Expr distance_element(const Node& n, Elements& e, std::span<const Expr> coords) {
  const std::vector<Expr> depth = {e.dim(n.in(0).dim(-1))};
  return e.reduce(loops::Reducer::Sum, depth, [&](std::span<const Expr> k) {
    std::vector<Expr> x(coords.begin(), coords.end()), y = x;
    x.back() = k[0];
    y.back() = k[0];
    y[y.size() - 2] = coords.back();
    const Expr difference = element(e, n, 0, x) - element(e, n, 1, y);
    return difference * difference;
  });
}

// The gradient of (a_i - b_j)^2 is 2 (a_i - b_j) for a_i and its negative for b_j, so da_i = 2 (a_i sum_j dy_ij - sum_j
// dy_ij b_j): a product.
std::vector<Value> distance_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                     const std::vector<bool>& needed) {
  std::vector<Value> result(2);
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const Value a = n.in(0), b = n.in(1), dy = dys[0], turned = g.swap_last_two(dy);
  const auto toward = [&](Value from, Value to, Value d) {
    const Value weights = g.sum(d, {d.rank() - 1}, true);
    return g.mul(g.sub(g.mul(from, weights), g.matmul(d, to)), 2);
  };
  if (needed[0]) result[0] = toward(a, b, dy);
  if (needed[1]) result[1] = toward(b, a, turned);
  return result;
}

}  // namespace

void add_distance_ops(OpTable& t) {
  t.add("squared_distance")
      .doc("y[..., i, j] = sum over k of (a[..., i, k] - b[..., j, k])^2.")
      .input("a", Accepts::Float)
      .input("b", Accepts::Float)
      .infer(infer_distance)
      .indexed(distance_element)
      .gradient(distance_gradient);
}

}  // namespace deepseek
