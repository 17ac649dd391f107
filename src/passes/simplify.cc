// Less work, same results. Each rule has a test where it fires and one where it must not (tests/passes).
#include <algorithm>
#include <numeric>

#include "passes/groups.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

std::vector<Value> reshape_of_reshape(Graph& g, const Node& n) {
  const Value x = n.in(0);
  if (!is_op(x, "reshape")) return {};
  return {g.op("reshape", {x.node->in(0)}, {{"shape", n.outputs[0].shape}})};
}

std::vector<Value> identity_reshape(Graph&, const Node& n) {
  if (!(n.in(0).shape() == n.outputs[0].shape)) return {};
  return {n.in(0)};
}

std::vector<Value> identity_transpose(Graph&, const Node& n) {
  const auto& perm = ints(n, "perm");
  for (std::size_t i = 0; i < perm.size(); ++i)
    if (perm[i] != static_cast<std::int64_t>(i)) return {};
  return {n.in(0)};
}

std::vector<Value> transpose_of_transpose(Graph& g, const Node& n) {
  const Value x = n.in(0);
  if (!is_op(x, "transpose")) return {};
  const auto& outer = ints(n, "perm");
  const auto& inner = ints(*x.node, "perm");
  std::vector<std::int64_t> perm;
  for (const std::int64_t p : outer) perm.push_back(inner[static_cast<std::size_t>(p)]);
  return {g.op("transpose", {x.node->in(0)}, {{"perm", perm}})};
}

// Moving only dims of 1 about is a reshape: no element changes its place.
std::vector<Value> transpose_of_ones(Graph& g, const Node& n) {
  const Value x = n.in(0);
  std::int64_t last = -1;
  for (const std::int64_t p : ints(n, "perm")) {
    if (x.dim(static_cast<int>(p)) == Dim(1)) continue;
    if (p < last) return {};
    last = p;
  }
  return {g.op("reshape", {x}, {{"shape", n.outputs[0].shape}})};
}

std::vector<Value> identity_broadcast(Graph&, const Node& n) {
  if (!(n.in(0).shape() == n.outputs[0].shape)) return {};
  return {n.in(0)};
}

std::vector<Value> identity_cast(Graph&, const Node& n) {
  if (n.in(0).dtype() != n.outputs[0].dtype) return {};
  return {n.in(0)};
}

std::vector<Value> identity_slice(Graph&, const Node& n) {
  const auto& steps = ints(n, "steps");
  const bool forward = std::all_of(steps.begin(), steps.end(), [](std::int64_t s) { return s == 1; });
  if (!forward || !(n.in(0).shape() == n.outputs[0].shape)) return {};
  return {n.in(0)};
}

// Only a view is worth settling.
std::vector<Value> copy_of_no_view(Graph&, const Node& n) {
  const Node& x = *n.in(0).node;
  if (x.op && is_view(x)) return {};
  return {n.in(0)};
}

// Elementwise ops broadcast by themselves.
std::vector<Value> implicit_broadcast(Graph& g, const Node& n) {
  if (!n.op->pointwise()) return {};
  for (std::size_t i = 0; i < n.inputs.size(); ++i) {
    if (!is_op(n.inputs[i], "broadcast_to")) continue;
    std::vector<Value> inputs = n.inputs;
    inputs[i] = inputs[i].node->in(0);
    std::optional<Shape> shape = Shape{};
    for (const Value& v : inputs)
      if (v && shape) shape = broadcast(*shape, v.shape());
    if (shape && *shape == n.outputs[0].shape) return {g.op(n.op->name, inputs, n.attrs)};
  }
  return {};
}

std::vector<Value> concat_of_one(Graph&, const Node& n) {
  if (n.inputs.size() != 1) return {};
  return {n.in(0)};
}

// conv(pad(x)) with zeros: the convolution pads by itself.
std::vector<Value> pad_into_conv(Graph& g, const Node& n) {
  const Value x = n.in(0);
  if (!is_op(x, "pad") || x.node->attr<std::string>("mode") != "constant" ||
      x.node->attr<double>("value") != 0)
    return {};
  const auto& low = x.node->attr<Shape>("low");
  const auto& high = x.node->attr<Shape>("high");
  const auto& layout = n.attr<std::string>("input_layout");
  auto pad_low = ints(n, "pad_low"), pad_high = ints(n, "pad_high");
  for (std::size_t i = 0; i < layout.size(); ++i) {
    if (!low[i].is_static() || !high[i].is_static() || low[i].value() < 0 || high[i].value() < 0) return {};
    const bool spatial = layout[i] >= '0' && layout[i] <= '9';
    if (!spatial && (low[i].value() != 0 || high[i].value() != 0)) return {};
    if (!spatial) continue;
    const auto d = static_cast<std::size_t>(layout[i] - '0');
    if (ints(n, "input_dilation")[d] != 1) return {};
    pad_low[d] += low[i].value();
    pad_high[d] += high[i].value();
  }
  Attrs attrs = n.attrs;
  attrs["pad_low"] = pad_low;
  attrs["pad_high"] = pad_high;
  return {g.op("conv", {x.node->in(0), n.in(1)}, attrs)};
}

// Powers that are products or roots.
std::vector<Value> power(Graph& g, const Node& n) {
  const Value x = n.in(0), e = n.in(1);
  if (!e.node->is_constant() || e.node->data.numel() != 1 || !is_float(x.dtype()) ||
      !(x.shape() == n.outputs[0].shape))
    return {};
  const double p = e.node->data.at(0);
  if (p == 1) return {x};
  if (p == 2) return {g.op("mul", {x, x})};
  if (p == 3) return {g.op("mul", {g.op("mul", {x, x}), x})};
  return {};
}

}  // namespace

std::span<const Rule> simplify_rules() {
  static const std::vector<Rule> rules = {
      {"reshape_of_reshape", {"reshape"}, reshape_of_reshape},
      {"identity_reshape", {"reshape"}, identity_reshape},
      {"identity_transpose", {"transpose"}, identity_transpose},
      {"transpose_of_transpose", {"transpose"}, transpose_of_transpose},
      {"transpose_of_ones", {"transpose"}, transpose_of_ones},
      {"identity_broadcast", {"broadcast_to"}, identity_broadcast},
      {"identity_cast", {"cast"}, identity_cast},
      {"identity_slice", {"slice"}, identity_slice},
      {"copy_of_no_view", {"copy"}, copy_of_no_view},
      {"implicit_broadcast", {}, implicit_broadcast},
      {"power", {"pow"}, power},
      {"concat_of_one", {"concat"}, concat_of_one},
      {"pad_into_conv", {"conv"}, pad_into_conv},
  };
  return rules;
}

}  // namespace deepseek
