// Views out of the way of fusion: reshapes sink below what is elementwise.
#include <algorithm>
#include <optional>

#include "passes/pipeline.h"

namespace deepseek {

namespace {

// Whether v is a product, or elementwise on one.
bool from_contraction(Value v) {
  while (v.node->op && v.node->op->pointwise()) {
    const auto& inputs = v.node->inputs;
    const auto same = std::find_if(inputs.begin(), inputs.end(),
                                   [&](const Value& in) { return in && in.shape() == v.shape(); });
    if (same == inputs.end()) return false;
    v = *same;
  }
  return is_op(v, "matmul") || is_op(v, "conv");
}

// An operand of an elementwise op on reshape(x), as an operand of the same op on x.
std::optional<Value> before_reshape(Graph& g, Value v, const Shape& reshaped, const Shape& x) {
  const Dim n = numel(v.shape());
  if (n == Dim(1)) return g.op("reshape", {v}, {{"shape", Shape{}}});
  if (v.shape() == reshaped) return g.op("reshape", {v}, {{"shape", x}});
  const bool along_last = !v.shape().empty() && n == v.dim(-1) && v.dim(-1) == reshaped.back();
  if (along_last && !x.empty() && x.back() == reshaped.back())
    return g.op("reshape", {v}, {{"shape", Shape{n}}});
  return std::nullopt;
}

// f(reshape(x), y) of a product x: reshape(f(x, y')), so that f joins the product's epilogue.
std::vector<Value> sink_reshape(Graph& g, const Node& n) {
  if (!n.op->pointwise() || n.op->name == "copy") return {};
  const Shape& shape = n.outputs[0].shape;
  for (const Value& v : n.inputs)  // it joins a product as it is
    if (v && v.shape() == shape && from_contraction(v)) return {};
  for (const Value& v : n.inputs) {
    if (!is_op(v, "reshape") || !(v.shape() == shape) || !from_contraction(v.node->in(0))) continue;
    const Value x = v.node->in(0);
    std::vector<Value> inputs;
    for (const Value& other : n.inputs) {
      if (other == v) {
        inputs.push_back(x);
      } else if (!other) {
        inputs.emplace_back();
      } else if (const auto moved = before_reshape(g, other, shape, x.shape())) {
        inputs.push_back(*moved);
      } else {
        break;
      }
    }
    if (inputs.size() != n.inputs.size()) continue;
    return {g.op("reshape", {g.op(n.op->name, inputs, n.attrs)}, {{"shape", shape}})};
  }
  return {};
}

}  // namespace

std::span<const Rule> view_rules() {
  static const std::vector<Rule> rules = {
      {"sink_reshape", {}, sink_reshape},
  };
  return rules;
}

}  // namespace deepseek
