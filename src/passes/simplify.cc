// Less work, same results. Each rule has a test where it fires and one where it must not (tests/passes).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/graph_builder.h"
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

// The slice at one place that is known.
std::vector<Value> gather_of_one(Graph& g, const Node& n) {
  const Value x = n.in(0), index = n.in(1);
  if (!index.node->is_constant() || index.node->data.numel() != 1) return {};
  const int axis = normalize_axis(n, n.attr<std::int64_t>("axis"), x.rank());
  const Dim& size = x.dim(axis);
  const std::int64_t asked = index.node->data.to_int64()[0];
  if (!size.is_static() || asked < -size.value() || asked >= size.value()) return {};
  const auto at = static_cast<std::size_t>(axis);
  Shape starts(x.shape().size(), Dim(0)), limits = x.shape();
  starts[at] = asked < 0 ? asked + size.value() : asked;
  limits[at] = starts[at] + 1;
  const std::vector<std::int64_t> steps(starts.size(), 1);
  const Value one = g.op("slice", {x}, {{"starts", starts}, {"limits", limits}, {"steps", steps}});
  return {g.op("reshape", {one}, {{"shape", n.outputs[0].shape}})};
}

bool is_known(Value v) {
  while (v.node->op && !v.node->inputs.empty() && (is_view(*v.node) || is_alias(*v.node))) v = v.node->in(0);
  return v.node->is_constant() || (v.node->is_input() && v.node->role == Role::Parameter);
}

// A product with x * s, s the same for all that is summed: the product with x, times s. Attention's scale and softmax's
// division are done to what is fewer or at hand then, and x is read where it lies.
std::vector<Value> scale_of_operand(Graph& g, const Node& n) {
  if (n.in(0).rank() < 2 || n.in(1).rank() < 2 || n.outputs[0].dtype != DType::F32) return {};
  for (const int operand : {0, 1}) {
    const Value scaled = n.in(operand);
    if (!is_op(scaled, "mul")) continue;
    const int summed = operand == 0 ? -1 : -2;
    for (const int factor : {0, 1}) {
      const Value s = scaled.node->in(factor), x = scaled.node->in(1 - factor);
      const bool same = s.rank() < -summed || s.dim(summed) == Dim(1);
      if (!same || !(x.shape() == scaled.shape()) || is_known(x)) continue;
      const Value product = operand == 0 ? g.op("matmul", {x, n.in(1)}) : g.op("matmul", {n.in(0), x});
      return {g.op("mul", {product, s})};
    }
  }
  return {};
}

// Functions without jumps, of a quotient by a constant: of a product, which costs a fraction of it and rounds once more.
std::vector<Value> function_of_quotient(Graph& g, const Node& n) {
  const Value q = n.in(0);
  if (!is_op(q, "div") || !(q.dtype() == DType::F32 || q.dtype() == DType::F64)) return {};
  const Value x = q.node->in(0), c = q.node->in(1);
  if (!c.node->is_constant() || c.node->data.numel() != 1 || !(x.shape() == q.shape())) return {};
  const double inverse = 1 / c.node->data.at(0);
  if (!std::isnormal(static_cast<float>(inverse))) return {};
  const Value product = g.op("mul", {x, GraphBuilder(g).scalar(inverse, q.dtype())});
  return {g.op(n.op->name, {product}, n.attrs)};
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

// Taps in front or at the end that no window has within the input (of a wide dilation on a small image) add nothing.
std::vector<Value> taps_outside(Graph& g, const Node& n) {
  const Value x = n.in(0), w = n.in(1);
  const auto &input = n.attr<std::string>("input_layout"), &kernel = n.attr<std::string>("kernel_layout"),
             &output = n.attr<std::string>("output_layout");
  Attrs attrs = n.attrs;
  auto pad_low = ints(n, "pad_low"), pad_high = ints(n, "pad_high");
  Shape starts, limits;
  bool less = false;
  for (std::size_t i = 0; i < kernel.size(); ++i) {
    const Dim all = w.dim(static_cast<int>(i));
    if (!all.is_static()) return {};
    std::int64_t first = 0, end = all.value();
    if (kernel[i] >= '0' && kernel[i] <= '9') {
      const auto d = static_cast<std::size_t>(kernel[i] - '0');
      const Dim size = x.shape()[input.find(kernel[i])], windows = n.outputs[0].shape[output.find(kernel[i])];
      if (!size.is_static() || !windows.is_static() || windows.value() < 1) return {};
      const std::int64_t dilation = ints(n, "kernel_dilation")[d],
                         reach = (size.value() - 1) * ints(n, "input_dilation")[d],
                         last = (windows.value() - 1) * ints(n, "strides")[d];
      // Where tap k is in the first window; in the last one `last` further on.
      const auto at = [&](std::int64_t k) { return k * dilation - ints(n, "pad_low")[d]; };
      while (end - first > 1 && at(first) + last < 0) ++first;
      while (end - first > 1 && at(end - 1) > reach) --end;
      pad_low[d] -= first * dilation;
      pad_high[d] -= (all.value() - end) * dilation;
    }
    less = less || end - first < all.value();
    starts.emplace_back(first);
    limits.emplace_back(end);
  }
  if (!less) return {};
  attrs["pad_low"] = pad_low;
  attrs["pad_high"] = pad_high;
  const std::vector<std::int64_t> steps(kernel.size(), 1);
  const Value kept = g.op("slice", {w}, {{"starts", starts}, {"limits", limits}, {"steps", steps}});
  return {g.op("conv", {x, kept}, attrs)};
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
      {"gather_of_one", {"gather"}, gather_of_one},
      {"scale_of_operand", {"matmul"}, scale_of_operand},
      {"function_of_quotient", {"erf", "exp", "sigmoid", "tanh"}, function_of_quotient},
      {"pad_into_conv", {"conv"}, pad_into_conv},
      {"taps_outside", {"conv"}, taps_outside},
  };
  return rules;
}

}  // namespace deepseek
