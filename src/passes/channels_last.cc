// Convolutions and pools compute with channels innermost: vectors run over channels, a pixel's channels are
// one row of the matrix product. A transpose goes around each; transposes then sink through what is
// elementwise until they meet and cancel.
#include <algorithm>

#include "ops/conv.h"
#include "passes/groups.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

constexpr std::int64_t kFewChannels =
    4;  // an image: gathering patches from planes is cheaper than turning it

using Perm = std::vector<std::int64_t>;

Perm inverse(const Perm& p) {
  Perm q(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) q[static_cast<std::size_t>(p[i])] = static_cast<std::int64_t>(i);
  return q;
}

// "NC01" -> "N01C", and the transpose that brings the one into the other.
std::string last_layout(const std::string& layout) {
  std::string s;
  for (const char c : layout)
    if (c != 'C') s += c;
  return s + 'C';
}
Perm to_last(const std::string& layout) {
  Perm p;
  for (const char c : last_layout(layout)) p.push_back(static_cast<std::int64_t>(layout.find(c)));
  return p;
}

std::vector<Value> conv_channels_last(Graph& g, const Node& n) {
  const auto& in = n.attr<std::string>("input_layout");
  const auto& out = n.attr<std::string>("output_layout");
  if (out.back() == 'C' || n.attr<std::int64_t>("batch_groups") != 1 || out.size() < 3) return {};
  if (is_kernel_gradient(n)) return {};  // reads channels where they are, and turns results on their way out
  const Dim channels = n.in(0).dim(static_cast<int>(in.find('C')));
  const bool few = channels.is_static() && channels.value() <= kFewChannels;
  Attrs attrs = n.attrs;
  Value x = n.in(0);
  if (!few && in.back() != 'C') {
    x = g.op("transpose", {x}, {{"perm", to_last(in)}});
    attrs["input_layout"] = last_layout(in);
  }
  attrs["output_layout"] = last_layout(out);
  Value w = n.in(1);
  if (n.attr<std::int64_t>("feature_groups") > 1) {
    // A depthwise convolution reads each element many times, along its channels: they are settled innermost.
    if (is_op(x, "transpose")) x = g.op("copy", {x});
    const auto& kernel = n.attr<std::string>("kernel_layout");
    std::string turned;
    Perm perm;
    for (const char c : kernel)
      if (c != 'O') turned += c;
    turned += 'O';
    for (const char c : turned) perm.push_back(static_cast<std::int64_t>(kernel.find(c)));
    w = g.op("copy", {g.op("transpose", {w}, {{"perm", perm}})});
    attrs["kernel_layout"] = turned;
  }
  const Value y = g.op("conv", {x, w}, attrs);
  return {g.op("transpose", {y}, {{"perm", inverse(to_last(out))}})};
}

// Poolings, the positions of maxima and gradients: what else they read is turned with their first input.
std::vector<Value> pool_channels_last(Graph& g, const Node& n) {
  const auto& layout = n.attr<std::string>("layout");
  if (layout.back() == 'C') return {};
  const Perm last = to_last(layout), back = inverse(last);
  const auto turned = [&](Value v) { return is_op(v, "transpose") && ints(*v.node, "perm") == back; };
  if (!turned(n.in(0))) return {};
  std::vector<Value> inputs;
  for (const Value& v : n.inputs)
    inputs.push_back(turned(v) ? v.node->in(0) : g.op("transpose", {v}, {{"perm", last}}));
  Attrs attrs = n.attrs;
  attrs["layout"] = last_layout(layout);
  if (const auto shape = n.attrs.find("shape"); shape != n.attrs.end()) {
    Shape moved;
    for (const std::int64_t p : last)
      moved.push_back(std::get<Shape>(shape->second)[static_cast<std::size_t>(p)]);
    attrs["shape"] = moved;
  }
  return {g.op("transpose", {g.op(n.op->name, inputs, attrs)}, {{"perm", back}})};
}

std::vector<Value> sink_through_pointwise(Graph& g, const Node& n) {
  if (!n.op->pointwise() || n.op->name == "copy") return {};
  const Perm* perm = nullptr;
  for (const Value& v : n.inputs)
    if (is_op(v, "transpose") && v.shape() == n.outputs[0].shape) perm = &ints(*v.node, "perm");
  if (!perm) return {};
  std::vector<Value> inputs;
  const auto rank = static_cast<int>(perm->size());
  const Perm back = inverse(*perm);
  for (const Value& v : n.inputs) {
    if (!v || (v.rank() == 0)) {
      inputs.push_back(v);
    } else if (is_op(v, "transpose") && v.rank() == rank && ints(*v.node, "perm") == *perm) {
      inputs.push_back(v.node->in(0));
    } else {
      // A broadcast operand moves when that costs nothing: one dim that is not 1, so a reshape does it.
      int dims = 0;
      for (const Dim& d : v.shape()) dims += d == Dim(1) ? 0 : 1;
      if (dims > 1) return {};
      Shape padded(static_cast<std::size_t>(rank - v.rank()), Dim(1));
      padded.insert(padded.end(), v.shape().begin(), v.shape().end());
      Shape moved;
      for (const std::int64_t p : back) moved.push_back(padded[static_cast<std::size_t>(p)]);
      inputs.push_back(g.op("reshape", {v}, {{"shape", moved}}));
    }
  }
  const Perm copy = *perm;
  return {g.op("transpose", {g.op(n.op->name, inputs, n.attrs)}, {{"perm", copy}})};
}

std::vector<Value> sink_through_reduction(Graph& g, const Node& n) {
  const Value x = n.in(0);
  if (!is_op(x, "transpose") || !n.attr<bool>("keepdims")) return {};
  const Perm& perm = ints(*x.node, "perm");
  Perm axes;
  for (const std::int64_t a : ints(n, "axes"))
    axes.push_back(perm[static_cast<std::size_t>(a < 0 ? a + static_cast<std::int64_t>(perm.size()) : a)]);
  std::sort(axes.begin(), axes.end());
  const Value y = g.op(n.op->name, {x.node->in(0)}, {{"axes", axes}, {"keepdims", true}});
  return {g.op("transpose", {y}, {{"perm", perm}})};
}

std::vector<Value> sink_through_concat(Graph& g, const Node& n) {
  if (!is_op(n.in(0), "transpose")) return {};
  const Perm& perm = ints(*n.in(0).node, "perm");
  std::vector<Value> inputs;
  for (const Value& v : n.inputs) {
    if (!is_op(v, "transpose") || ints(*v.node, "perm") != perm) return {};
    inputs.push_back(v.node->in(0));
  }
  const auto axis = n.attr<std::int64_t>("axis");
  const std::int64_t own =
      perm[static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(perm.size()) : axis)];
  return {g.op("transpose", {g.op("concat", inputs, {{"axis", own}})}, {{"perm", perm}})};
}

// Of an image; transposes of other tensors, as of heads in attention, stay where their readers look for them.
std::vector<Value> sink_through_slice(Graph& g, const Node& n) {
  constexpr std::size_t kImage = 4;
  if (!is_op(n.in(0), "transpose") || n.in(0).shape().size() < kImage) return {};
  const Perm& perm = ints(*n.in(0).node, "perm");
  const Perm back = inverse(perm);
  if (back != to_last(default_layout("NC", static_cast<int>(perm.size())))) return {};
  Shape starts, limits;
  Perm steps;
  for (const std::int64_t p : back) {
    const auto axis = static_cast<std::size_t>(p);
    starts.push_back(n.attr<Shape>("starts")[axis]);
    limits.push_back(n.attr<Shape>("limits")[axis]);
    steps.push_back(ints(n, "steps")[axis]);
  }
  const Value y =
      g.op("slice", {n.in(0).node->in(0)}, {{"starts", starts}, {"limits", limits}, {"steps", steps}});
  return {g.op("transpose", {y}, {{"perm", perm}})};
}

}  // namespace

std::span<const Rule> layout_rules() {
  static const std::vector<Rule> rules = {
      {"conv_channels_last", {"conv"}, conv_channels_last},
      {"pool_channels_last",
       {"max_pool", "avg_pool", "sum_pool", "max_pool_indices", "max_pool_grad", "avg_pool_grad",
        "sum_pool_grad"},
       pool_channels_last},
      {"sink_through_pointwise", {}, sink_through_pointwise},
      {"sink_through_reduction", {"sum", "mean", "prod", "max", "min", "any", "all"}, sink_through_reduction},
      {"sink_through_concat", {"concat"}, sink_through_concat},
      {"sink_through_slice", {"slice"}, sink_through_slice},
  };
  return rules;
}

}  // namespace deepseek
