// Quantised tensors before and after their products: what is quantised again as it was stays as it is, int8 becomes
// uint8, which products want on their left, and scales after products become one.
#include <algorithm>
#include <array>

#include "ops/graph_builder.h"
#include "passes/bytes.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

// The same view of other elements.
Value viewed(Graph& g, Value view, Value x) { return g.op(view.node->op->name, {x}, view.node->attrs); }

// Both are one number, and the same.
bool same_number(Value a, Value b) {
  if (a && a == b) return is_one_number(a);
  const auto x = uniform(a), y = uniform(b);
  return x && y && *x == *y;
}

// What was dequantised with the scale and zero point of n, through views: as it was.
Value as_it_was(Graph& g, const Node& n, Value v) {
  if (is_op(v, "dequantize")) {
    const Node& from = *v.node;
    const auto zero = [](const Node& of) { return of.has(2) ? of.in(2) : Value(); };
    if (from.in(0).dtype() != n.outputs[0].dtype || !same_number(from.in(1), n.in(1)) ||
        !same_number(zero(from), zero(n)))
      return {};
    return from.in(0);
  }
  if (!moves_elements(v)) return {};
  const Value x = as_it_was(g, n, v.node->in(0));
  return x ? viewed(g, v, x) : Value();
}

std::vector<Value> quantise_again(Graph& g, const Node& n) {
  if (n.outputs[0].dtype != DType::U8 && n.outputs[0].dtype != DType::I8) return {};
  const Value x = as_it_was(g, n, n.in(0));
  if (!x || !(x.shape() == n.outputs[0].shape)) return {};
  return {x};
}

// An int8 zero point moved to uint8.
Value moved_zero(GraphBuilder& g, Value zero) {
  if (const auto known = uniform(zero)) return g.scalar(*known + kHalfOfByte, DType::U8);
  return g.cast(g.add(g.cast(zero, DType::I32), kHalfOfByte), DType::U8);
}

// v + 128, for int8 that is quantised during the run.
Value as_unsigned(GraphBuilder& g, Value v) {
  if (is_op(v, "quantize")) {
    const Node& n = *v.node;
    return g.op("quantize", {n.in(0), n.in(1), moved_zero(g, n.has(2) ? n.in(2) : Value())},
                {{"dtype", DType::U8}});
  }
  if (is_byte_lookup(v)) {
    const Value table = g.add(g.cast(v.node->in(0), DType::I32), kHalfOfByte);
    return g.op("gather", {g.cast(table, DType::U8), v.node->in(1)}, v.node->attrs);
  }
  if (!moves_elements(v)) return {};
  const Value x = as_unsigned(g, v.node->in(0));
  return x ? viewed(g.graph(), v, x) : Value();
}

std::vector<Value> unsigned_bytes(Graph& graph, const Node& n) {
  if (n.in(0).dtype() != DType::I8 || is_weight(n.in(0))) return {};
  GraphBuilder g(graph);
  const Value u = as_unsigned(g, n.in(0));
  if (!u) return {};
  return {g.op("dequantize", {u, n.in(1), moved_zero(g, n.has(2) ? n.in(2) : Value())})};
}

// v * ratio, where that costs nothing: v is a product with what is known before the run, or such a product and a sum.
Value scaled(GraphBuilder& g, Value v, Value ratio) {
  if (is_op(v, "mul") || is_op(v, "add")) {
    const int known = is_weight(v.node->in(1)) ? 1 : 0;
    const Value w = v.node->in(known), rest = v.node->in(1 - known);
    if (!is_weight(w)) return {};
    const Value x = is_op(v, "mul") ? rest : scaled(g, rest, ratio);
    return x ? g.op(v.node->op->name, {x, g.mul(w, ratio)}) : Value();
  }
  if (!is_one_number(ratio) || !(is_op(v, "reshape") || is_op(v, "transpose"))) return {};
  const Value x = scaled(g, v.node->in(0), g.reshape(ratio, {}));
  return x ? viewed(g.graph(), v, x) : Value();
}

// A division by what is known before the run becomes a product. What nothing has computed is divided as it says: there,
// ties are no accident.
std::vector<Value> requantise(Graph& graph, const Node& n) {
  const Value x = n.in(0), scale = n.in(1);
  const DType type = n.outputs[0].dtype;
  if (bits(type) < 8 || x.dtype() != DType::F32 || x.node->is_input() || is_weight(x) || !is_weight(scale))
    return {};
  GraphBuilder g(graph);
  const Value ratio = g.div(1, scale);
  Value y = scaled(g, x, ratio);
  if (!y) y = g.mul(x, ratio);
  y = g.op("round", {y});
  const Value zero = n.has(2) ? n.in(2) : Value();
  if (const auto known = uniform(zero); !known)
    y = g.add(y, g.cast(zero, DType::F32));
  else if (*known != 0)
    y = g.add(y, *known);
  return {g.cast(y, type)};  // limits it
}

}  // namespace

std::optional<double> uniform(Value v) {
  while (v && !v.node->is_constant()) {
    bool through = false;
    for (const char* op : {"cast", "reshape", "broadcast_to", "transpose"}) through = through || is_op(v, op);
    if (!through) return std::nullopt;
    v = v.node->in(0);
  }
  if (!v) return 0;
  const Tensor& data = v.node->data;
  if (data.numel() == 0) return std::nullopt;
  for (std::int64_t i = 1; i < data.numel(); ++i)
    if (data.at(i) != data.at(0)) return std::nullopt;
  return data.at(0);
}

bool is_weight(Value v) {
  const Node& n = *v.node;
  if (n.is_constant()) return true;
  if (n.is_input()) return n.role == Role::Parameter;
  return std::all_of(n.inputs.begin(), n.inputs.end(), [](Value in) { return !in || is_weight(in); });
}

bool moves_elements(Value v) {
  const std::array views = {"reshape", "transpose", "slice", "broadcast_to"};
  return std::any_of(views.begin(), views.end(), [v](const char* op) { return is_op(v, op); });
}

std::span<const Rule> byte_rules() {
  static const std::vector<Rule> rules = {
      {"quantise_again", {"quantize"}, quantise_again},
      {"byte_table", {"quantize"}, byte_table},
      {"unsigned_bytes", {"dequantize"}, unsigned_bytes},
  };
  return rules;
}

std::span<const Rule> scale_rules() {
  static const std::vector<Rule> rules = {{"requantise", {"quantize"}, requantise}};
  return rules;
}

}  // namespace deepseek
