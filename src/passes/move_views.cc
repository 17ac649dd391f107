// Views out of the way of fusion: reshapes sink below what is elementwise, rise above slices and transposes, so that
// they stand next to memory, where they are aliases.
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

// reshape(transpose(x)) that only adds or drops dims of 1: the reshape goes to x.
std::vector<Value> unit_reshape_of_transpose(Graph& g, const Node& n) {
  const Value t = n.in(0);
  if (!is_op(t, "transpose")) return {};
  const Value x = t.node->in(0);
  const auto& perm = ints(*t.node, "perm");
  std::vector<std::int64_t> order;  // x's axes that are not 1, as they stand in t
  for (const std::int64_t p : perm)
    if (!(x.dim(static_cast<int>(p)) == Dim(1))) order.push_back(p);
  const Shape& target = n.outputs[0].shape;
  std::vector<std::int64_t> kept = order;
  std::sort(kept.begin(), kept.end());
  Shape flat;  // x without its dims of 1, then as many as the target has
  for (const std::int64_t axis : kept) flat.push_back(x.dim(static_cast<int>(axis)));
  std::vector<std::int64_t> moved;
  std::size_t next = 0;
  for (const Dim& d : target) {
    if (d == Dim(1)) {
      moved.push_back(static_cast<std::int64_t>(flat.size()));
      flat.emplace_back(1);
    } else {
      if (next == order.size() || !(x.dim(static_cast<int>(order[next])) == d)) return {};
      const auto at = std::find(kept.begin(), kept.end(), order[next++]);
      moved.push_back(at - kept.begin());
    }
  }
  if (next != order.size()) return {};
  return {g.op("transpose", {g.op("reshape", {x}, {{"shape", flat}})}, {{"perm", moved}})};
}

// reshape(slice(x)) that splits the last axis into pieces which the slice respects: slice(reshape(x)).
std::vector<Value> split_of_slice(Graph& g, const Node& n) {
  const Value s = n.in(0);
  if (!is_op(s, "slice")) return {};
  const Value x = s.node->in(0);
  const Shape& target = n.outputs[0].shape;
  const auto rank = static_cast<std::size_t>(x.rank());
  if (rank == 0 || target.size() != rank + 1) return {};
  const auto& starts = s.node->attr<Shape>("starts");
  const auto& limits = s.node->attr<Shape>("limits");
  const auto& steps = ints(*s.node, "steps");
  for (std::size_t i = 0; i + 1 < rank; ++i)
    if (!(starts[i] == Dim(0)) || !(limits[i] == x.shape()[i]) || steps[i] != 1 ||
        !(target[i] == x.shape()[i]))
      return {};
  const Dim piece = target.back(), whole = x.shape().back();
  if (!piece.is_static() || !whole.is_static() || !starts.back().is_static() || !limits.back().is_static())
    return {};
  const std::int64_t p = piece.value();
  if (p == 0 || steps.back() != 1 || whole.value() % p != 0 || starts.back().value() % p != 0 ||
      limits.back().value() % p != 0)
    return {};
  Shape split(x.shape().begin(), x.shape().end() - 1);
  split.insert(split.end(), {whole.value() / p, p});
  Shape from(rank + 1, Dim(0)), to = split;
  from[rank - 1] = starts.back().value() / p;
  to[rank - 1] = limits.back().value() / p;
  const std::vector<std::int64_t> ones(rank + 1, 1);
  return {g.op("slice", {g.op("reshape", {x}, {{"shape", split}})},
               {{"starts", from}, {"limits", to}, {"steps", ones}})};
}

}  // namespace

std::span<const Rule> view_rules() {
  static const std::vector<Rule> rules = {
      {"sink_reshape", {}, sink_reshape},
      {"unit_reshape_of_transpose", {"reshape"}, unit_reshape_of_transpose},
      {"split_of_slice", {"reshape"}, split_of_slice},
  };
  return rules;
}

}  // namespace deepseek
