// Products with one of several matrices for each row.
#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

namespace {

// Whether each row is each expert's: [experts, rows, 1].
std::string membership(Writer& w, const Node& n, const Dim& experts) {
  const DType t = n.in(2).dtype();
  const std::string index = t == DType::I64 ? w.in(n, 2) : w.cast(w.in(n, 2), DType::I64);
  const std::string all = w.add("Range", {w.scalar(0, DType::I64), w.dim(experts), w.scalar(1, DType::I64)});
  return w.add("Equal", {w.unsqueeze(index, {0, 2}), w.unsqueeze(all, {1, 2})});
}

// The products with every matrix, of which at most one counts.
Names expert_matmul(Writer& w, const Node& n) {
  const std::string products = w.add("MatMul", {w.in(n, 0), w.in(n, 1)});
  const std::string mine =
      w.add("Where", {membership(w, n, n.in(1).dim(0)), products, w.scalar(0, n.in(0).dtype())});
  return {w.add("ReduceSum", {mine, w.ints({0})}, {{"keepdims", std::int64_t{0}}})};
}

// The rows of others are 0 in both factors.
Names expert_matmul_weights(Writer& w, const Node& n) {
  const std::string mine = membership(w, n, n.attr<Shape>("experts")[0]), zero = w.scalar(0, n.in(0).dtype());
  const auto rows = [&](int i) { return w.add("Where", {mine, w.unsqueeze(w.in(n, i), {0}), zero}); };
  return {w.add("MatMul", {w.transpose(rows(0), {0, 2, 1}), rows(1)})};
}

}  // namespace

void add_expert_rules(Rules& r) {
  r.add("expert_matmul", expert_matmul);
  r.add("expert_matmul_weights", expert_matmul_weights);
}

}  // namespace deepseek::onnx_export
