// Products with one of several matrices for each row: mixtures of experts.
#include "ops/loop_writer.h"
#include "ops/shape_ops.h"

namespace deepseek {
namespace {

void check_rows(const Node& n, const Value& rows, const Value& index) {
  if (rows.rank() != 2 || index.rank() != 1 || !may_equal(rows.dim(0), index.dim(0)))
    bad_input(n, "rows [m, k] and an index [m]", str(rows.type()) + " and " + str(index.type()));
}

// -- expert_matmul -------------------------------------------------------------------------------------------------

std::vector<Type> infer_expert_matmul(const Node& n) {
  const Value x = n.in(0), w = n.in(1);
  check_rows(n, x, n.in(2));
  if (w.rank() != 3 || !may_equal(x.dim(1), w.dim(1)))
    bad_input(n, "matrices [experts, " + x.dim(1).str() + ", n]", str(w.type()));
  return {{x.dtype(), {x.dim(0), w.dim(2)}}};
}

Expr expert_matmul(const Node& n, Elements& e, std::span<const Expr> coords) {
  const Value w = n.in(1);
  const Expr expert = loops::cast(DType::I64, e.in(2, coords.first(1)));
  const Expr valid = inside(expert, e.dim(w.dim(0)));
  const std::vector<Expr> depth = {e.dim(w.dim(1))};
  return e.reduce(loops::Reducer::Sum, depth, [&](std::span<const Expr> k) {
    const std::vector<Expr> left = {coords[0], k[0]}, right = {expert, k[0], coords[1]};
    return element(e, n, 0, left) * element(e, n, 1, right, valid, Expr(0));
  });
}

std::vector<Value> expert_matmul_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                          const std::vector<bool>& needed) {
  std::vector<Value> result(3);
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const Value x = n.in(0), w = n.in(1), index = n.in(2);
  if (needed[0]) result[0] = g.op("expert_matmul", {dys[0], g.transpose(w, {0, 2, 1}), index});
  if (needed[1])
    result[1] = g.op("expert_matmul_weights", {x, dys[0], index}, {{"experts", Shape{w.dim(0)}}});
  return result;
}

// -- expert_matmul_weights -----------------------------------------------------------------------------------------

std::vector<Type> infer_weights(const Node& n) {
  const Value x = n.in(0), y = n.in(1);
  check_rows(n, x, n.in(2));
  check_rows(n, y, n.in(2));
  if (shape_attr(n, "experts").size() != 1) bad_input(n, "one number of experts", "several");
  return {{x.dtype(), {shape_attr(n, "experts")[0], x.dim(1), y.dim(1)}}};
}

// Rows of the results are independent; each takes the rows of x and y in their order.
void weights(const Node& n, ProgramBuilder& p) {
  const Value x = n.in(0), y = n.in(1);
  const Expr rows = p.dim(x.dim(0)), depth = p.dim(x.dim(1)), columns = p.dim(y.dim(1)),
             experts = p.dim(shape_attr(n, "experts")[0]);
  const loops::Buffer out = p.output(0), left = p.input(0), right = p.input(1), index = p.input(2);
  p.phase(for_each(p.dim(numel(n.outputs[0].shape)), kCopyBlock,
                   [&](const Expr& i) { return store(out, i, loops::zero(compute_type(out->dtype))); }));
  p.phase(parallel("k", depth, [&](const Expr& k) {
    return serial("row", rows, [&](const Expr& row) {
      const Named expert = let("expert", read_index(index, row)),
                  factor = let("factor", read(left, row * depth + k)),
                  first = let("first", (expert.value * depth + k) * columns);
      const Stmt add = lanes("j", columns, [&](const Expr& j) {
        const Expr slot = first.value + j;
        return store(out, slot, read(out, slot) + factor.value * read(right, row * columns + j));
      });
      return loops::block(
          {expert.let, when(inside(expert.value, experts), loops::block({factor.let, first.let, add}))});
    });
  }));
}

}  // namespace

void add_expert_ops(OpTable& t) {
  t.add("expert_matmul")
      .doc(
          "y[i] = x[i] @ w[index[i]]: each row times the matrix that its index names; 0 where there is no "
          "such matrix.")
      .input("x", Accepts::Float)
      .input("w", Accepts::Float)
      .input_free("index", Accepts::Index)
      .infer(infer_expert_matmul)
      .indexed(expert_matmul)
      .gradient(expert_matmul_gradient);
  t.add("expert_matmul_weights")
      .doc(
          "w[e] = the sum of the outer products of x[i] and y[i] over the rows i with index[i] = e: the "
          "gradient of expert_matmul.")
      .input("x", Accepts::Float)
      .input("y", Accepts::Float)
      .input_free("index", Accepts::Index)
      .attr("experts", AttrKind::Shape, "How many results: a list of one.")
      .infer(infer_weights)
      .program(weights)
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(3);
        if (!dys[0]) return result;
        GraphBuilder g(graph);
        if (needed[0]) result[0] = g.op("expert_matmul", {n.in(1), g.transpose(dys[0], {0, 2, 1}), n.in(2)});
        if (needed[1]) result[1] = g.op("expert_matmul", {n.in(0), dys[0], n.in(2)});
        return result;
      });
}

}  // namespace deepseek
