// A costly function of one byte has 256 results: they are computed once, and looked up.
#include <algorithm>
#include <array>

#include "ops/graph_builder.h"
#include "passes/bytes.h"

namespace deepseek {

namespace {

constexpr std::int64_t kBytes = 256;
constexpr std::int64_t kFewElements = 4 * kBytes;  // are computed as they are
constexpr int kMostVisits = 64;

bool is_costly(const Node& n) {
  const std::array ops = {"erf",  "exp",  "expm1", "log", "log1p",    "tanh", "sigmoid",
                          "gelu", "silu", "pow",   "elu", "softplus", "mish"};
  return std::any_of(ops.begin(), ops.end(), [&n](const char* op) { return is_op(n, op); });
}

bool is_byte(Value v) { return v.dtype() == DType::U8 || v.dtype() == DType::I8; }

// Finds the one tensor of bytes that values are elementwise functions of, beside numbers known before the run.
class Trace {
 public:
  bool follow(Value v) {
    if (++visits_ > kMostVisits) return false;
    if (is_weight(v)) return is_one_number(v);
    if (inside(v)) return true;
    if (!is_byte(v) || (bytes && !(bytes == v))) return false;
    bytes = v;
    return true;
  }

  Value bytes;
  bool costly = false;

 private:
  bool inside(Value v) {
    const Node& n = *v.node;
    if (!n.op || (!n.op->pointwise() && !is_byte_lookup(v))) return false;
    const Value before = bytes;
    for (const Value& in : n.inputs) {
      const bool table = is_byte_lookup(v) && in == n.in(0);
      const bool elementwise = in && (is_weight(in) || in.shape() == v.shape());
      if (!in || table || (elementwise && follow(in))) continue;
      bytes = before;
      return false;
    }
    costly = costly || is_costly(n) || is_byte_lookup(v);
    return true;
  }

  int visits_ = 0;
};

// v of all the bytes instead of `bytes`.
Value of_all(Graph& g, Value v, Value bytes, Value all) {
  if (v == bytes) return all;
  if (is_weight(v)) return is_one_number(v) ? g.op("reshape", {v}, {{"shape", Shape{}}}) : v;
  std::vector<Value> inputs;
  for (const Value& in : v.node->inputs) inputs.push_back(in ? of_all(g, in, bytes, all) : in);
  return g.op(v.node->op->name, inputs, v.node->attrs);
}

}  // namespace

bool is_byte_lookup(Value v) {
  return is_op(v, "gather") && is_byte(v) && v.node->in(0).shape() == Shape{kBytes} &&
         is_weight(v.node->in(0));
}

std::vector<Value> byte_table(Graph& graph, const Node& n) {
  const Dim elements = numel(n.outputs[0].shape);
  if (bits(n.outputs[0].dtype) != 8 || (elements.is_static() && elements.value() < kFewElements)) return {};
  Trace trace;
  for (const Value& in : n.inputs)
    if (in && !trace.follow(in)) return {};
  if (!trace.costly || !trace.bytes || !(trace.bytes.shape() == n.outputs[0].shape)) return {};

  GraphBuilder g(graph);
  const double lowest = trace.bytes.dtype() == DType::I8 ? -kHalfOfByte : 0;
  Tensor numbers = Tensor::zeros(trace.bytes.dtype(), {kBytes});
  for (std::int64_t i = 0; i < kBytes; ++i) numbers.set(i, static_cast<double>(i) + lowest);
  const Value all = graph.constant(numbers);
  std::vector<Value> inputs;
  for (const Value& in : n.inputs) inputs.push_back(in ? of_all(graph, in, trace.bytes, all) : in);
  const Value table = g.op(n.op->name, inputs, n.attrs);
  Value index = g.cast(trace.bytes, DType::I32);
  if (lowest != 0) index = g.add(index, -lowest);
  return {g.op("gather", {table, index}, {{"axis", std::int64_t{0}}})};
}

}  // namespace deepseek
