// Matrix products.
#include "ops/entries.h"

namespace deepseek {
namespace {

// A rank-1 operand counts as a row (a) or a column (b) whose axis the result drops.
Shape as_matrix(const Value& v, bool left) {
  Shape s = v.shape();
  if (s.size() == 1) s.insert(left ? s.begin() : s.end(), Dim(1));
  return s;
}

}  // namespace

DType product_dtype(const Node& n) {
  const DType a = n.in(0).dtype(), b = n.in(1).dtype();
  if (a == b) return a;
  if (a != DType::U8 || b != DType::I8)
    bad_input(n, "operands of one dtype, or of uint8 and int8",
              std::string(name(a)) + " and " + std::string(name(b)));
  return DType::I32;
}

namespace {

std::vector<Type> infer_matmul(const Node& n) {
  const Value a = n.in(0), b = n.in(1);
  if (a.rank() == 0 || b.rank() == 0)
    bad_input(n, "operands of rank 1 or more", str(a.type()) + " and " + str(b.type()));
  const Shape x = as_matrix(a, true), y = as_matrix(b, false);
  const auto joined = broadcast_assuming(Shape(x.begin(), x.end() - 2), Shape(y.begin(), y.end() - 2));
  if (!joined || !may_equal(x.back(), y[y.size() - 2]))
    bad_input(n, "shapes [..., m, k] and [..., k, n]", str(a.type()) + " and " + str(b.type()));
  Shape shape = *joined;
  if (a.rank() > 1) shape.push_back(x[x.size() - 2]);
  if (b.rank() > 1) shape.push_back(y.back());
  return {{product_dtype(n), shape}};
}

// Coordinates in an operand's batch axes.
std::vector<Expr> batch_coords(const Value& v, std::span<const Expr> batch) {
  std::vector<Expr> result;
  const int count = std::max(0, v.rank() - 2);
  for (int i = 0; i < count; ++i)
    result.push_back(v.dim(i) == Dim(1) ? Expr(0)
                                        : batch[batch.size() - static_cast<std::size_t>(count - i)]);
  return result;
}

Expr matmul_element(const Node& n, Elements& e, std::span<const Expr> coords) {
  const Value a = n.in(0), b = n.in(1);
  const std::size_t own = (a.rank() > 1 ? 1 : 0) + (b.rank() > 1 ? 1 : 0);
  const auto batch = coords.first(coords.size() - own);
  const std::vector<Expr> extents = {e.dim(a.dim(-1))};
  return e.reduce(loops::Reducer::Sum, extents, [&](std::span<const Expr> k) {
    std::vector<Expr> x = batch_coords(a, batch), y = batch_coords(b, batch);
    if (a.rank() > 1) x.push_back(coords[batch.size()]);
    x.push_back(k[0]);
    y.push_back(k[0]);
    if (b.rank() > 1) y.push_back(coords.back());
    const DType t = compute_type(n.outputs[0].dtype);
    return loops::cast(t, element(e, n, 0, x)) * loops::cast(t, element(e, n, 1, y));
  });
}

std::vector<Value> matmul_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                   const std::vector<bool>& needed) {
  std::vector<Value> result(2);
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const Value a = g.reshape(n.in(0), as_matrix(n.in(0), true)),
              b = g.reshape(n.in(1), as_matrix(n.in(1), false));
  Value dy = dys[0];
  if (n.in(1).rank() == 1) dy = g.unsqueeze(dy, -1);
  if (n.in(0).rank() == 1) dy = g.unsqueeze(dy, -2);
  if (needed[0]) {
    const Value da = g.matmul(dy, g.swap_last_two(b));
    result[0] = g.reshape(unbroadcast(graph, da, a), n.in(0).shape());
  }
  if (needed[1]) {
    Value x = a, d = dy;
    // A weight shared by a batch: one product over all rows instead of a sum of products.
    if (b.rank() == 2 && a.rank() > 2) {
      const Dim rows = numel(Shape(a.shape().begin(), a.shape().end() - 1));
      x = g.reshape(a, {rows, a.dim(-1)});
      d = g.reshape(dy, {rows, dy.dim(-1)});
    }
    result[1] = g.reshape(unbroadcast(graph, g.matmul(g.swap_last_two(x), d), b), n.in(1).shape());
  }
  return result;
}

Value bias_added(GraphBuilder& g, const Node& n, Value y, double beta) {
  if (!n.has(2) || beta == 0) return y;
  return g.add(y, beta == 1 ? n.in(2) : g.mul(n.in(2), beta));
}

void add_products(OpTable& t) {
  t.add("matmul")
      .doc(
          "The matrix product over the last two axes, NumPy's rules: leading axes broadcast, a vector on "
          "the left is a row and on the right a column. Narrow floats accumulate in float32, integers wrap; "
          "uint8 by int8 gives int32.")
      .input("a", Accepts::Number)
      .input_free("b", Accepts::Number)
      .infer(infer_matmul)
      .indexed(matmul_element)
      .gradient(matmul_gradient);
  t.add("linear")
      .doc("x times the transpose of `weight` [out, in], plus bias [out].")
      .input("x", Accepts::Number)
      .input("weight", Accepts::Number)
      .input_optional("bias", Accepts::Number)
      .infer([](const Node& n) {
        const Value x = n.in(0), w = n.in(1);
        if (x.rank() == 0 || w.rank() != 2 || !may_equal(x.dim(-1), w.dim(1)))
          bad_input(n, "x [..., in] and weight [out, in]", str(x.type()) + " and " + str(w.type()));
        if (n.has(2) && (n.in(2).rank() != 1 || !may_equal(n.in(2).dim(0), w.dim(0))))
          bad_input(n, "bias [" + w.dim(0).str() + "]", str(n.in(2).type()));
        Shape shape = x.shape();
        shape.back() = w.dim(0);
        return std::vector<Type>{{x.dtype(), shape}};
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        return std::vector<Value>{bias_added(g, n, g.matmul(n.in(0), g.transpose(n.in(1), {1, 0})), 1)};
      });
  t.add("gemm")
      .doc("alpha * op(a) op(b) + beta * c, op transposing where asked; a and b are matrices, c broadcasts.")
      .input("a", Accepts::Number)
      .input("b", Accepts::Number)
      .input_optional("c", Accepts::Number)
      .attr("alpha", AttrKind::Float, 1.0, "")
      .attr("beta", AttrKind::Float, 1.0, "")
      .attr("transpose_a", AttrKind::Bool, false, "")
      .attr("transpose_b", AttrKind::Bool, false, "")
      .infer([](const Node& n) {
        const Value a = n.in(0), b = n.in(1);
        if (a.rank() != 2 || b.rank() != 2)
          bad_input(n, "two matrices", str(a.type()) + " and " + str(b.type()));
        const bool ta = flag(n, "transpose_a"), tb = flag(n, "transpose_b");
        if (!may_equal(a.dim(ta ? 0 : 1), b.dim(tb ? 1 : 0)))
          bad_input(n, "inner dims that agree", str(a.type()) + " and " + str(b.type()));
        const Shape shape = {a.dim(ta ? 1 : 0), b.dim(tb ? 0 : 1)};
        if (n.has(2)) {
          const auto joined = broadcast_assuming(shape, n.in(2).shape());
          if (!joined || joined->size() != 2)
            bad_input(n, "c that broadcasts to " + str(shape), str(n.in(2).type()));
        }
        return std::vector<Type>{{a.dtype(), shape}};
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const Value a = flag(n, "transpose_a") ? g.transpose(n.in(0), {1, 0}) : n.in(0);
        const Value b = flag(n, "transpose_b") ? g.transpose(n.in(1), {1, 0}) : n.in(1);
        const double alpha = number(n, "alpha");
        const Value y = g.matmul(a, b);
        return std::vector<Value>{bias_added(g, n, alpha == 1 ? y : g.mul(y, alpha), number(n, "beta"))};
      });
}

}  // namespace

void add_matmul_ops(OpTable& t) { add_products(t); }

}  // namespace deepseek
