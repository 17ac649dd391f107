// Weights of products in fewer bits than what they multiply: whole numbers in bytes with a scale per column, which comes
// after the sums, or in nibbles with a scale per block of each column. Sums stay in fp32.
#include <algorithm>

#include "ops/graph_builder.h"
#include "passes/bytes.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

constexpr std::int64_t kFewColumns = 16;  // cost as much as many
constexpr std::int64_t kBlock = 32;       // rows of a column that share a scale
constexpr double kTiny = 1e-30;           // a scale is never 0

bool takes(const Node& n) {
  const Value w = n.in(1);
  if (n.outputs[0].dtype != DType::F32 || w.rank() < 2 || !is_weight(w)) return false;
  if (is_op(w, "cast") || is_op(w, "dequantize") || is_op(w, "dequantize_blocks")) return false;
  return w.dim(-1).is_static() && w.dim(-1).value() >= kFewColumns && w.dim(-2).is_static() &&
         w.dim(-2).value() > 0;
}

Value rounded(GraphBuilder& g, Value x, Value scale) { return g.op("round", {g.mul(x, g.div(1, scale))}); }

std::vector<Value> bytes_of_weights(Graph& graph, const Node& n) {
  constexpr double kLargest = 127;
  if (!takes(n)) return {};
  GraphBuilder g(graph);
  const Value w = n.in(1);
  const Value scale = g.maximum(g.mul(g.max(g.abs(w), {w.rank() - 2}, true), 1 / kLargest), kTiny);
  const Value bytes = g.cast(rounded(g, w, scale), DType::I8);
  return {g.mul(g.op("matmul", {n.in(0), g.cast(bytes, DType::F32)}, n.attrs), scale)};
}

// A block's element of largest magnitude becomes -8, the only whole number of that magnitude.
std::vector<Value> nibbles_of_weights(Graph& graph, const Node& n) {
  constexpr double kLow = -8, kHigh = 7;
  if (!takes(n)) return {};
  GraphBuilder g(graph);
  Value w = n.in(1);
  const int axis = w.rank() - 2;
  const std::int64_t depth = w.dim(axis).value(), blocks = (depth + kBlock - 1) / kBlock;
  if (depth != blocks * kBlock) {
    Shape none(static_cast<std::size_t>(w.rank()), 0), rest = none;
    rest[static_cast<std::size_t>(axis)] = blocks * kBlock - depth;
    w = g.op("pad", {w}, {{"low", none}, {"high", rest}, {"value", 0.0}});
  }
  Shape padded = w.shape(), by_block = padded, scales = padded;
  scales[static_cast<std::size_t>(axis)] = blocks;
  by_block[static_cast<std::size_t>(axis)] = blocks;
  by_block.insert(by_block.begin() + axis + 1, Dim(kBlock));
  w = g.reshape(w, by_block);
  const Value high = g.max(w, {axis + 1}, true), low = g.reduce("min", w, {axis + 1}, true);
  Value scale = g.mul(g.select(g.greater(g.add(high, low), 0), high, low), 1 / kLow);
  scale = g.cast(g.select(g.less(g.abs(scale), kTiny), kTiny, scale), DType::BF16);
  const Value whole =
      g.op("clamp", {rounded(g, w, g.widen(scale)), g.scalar(kLow, DType::F32), g.scalar(kHigh, DType::F32)});
  const Value nibbles = g.slice(g.reshape(g.cast(whole, DType::I4), padded), axis, 0, depth);
  const Value again = g.op("dequantize_blocks", {nibbles, g.widen(g.reshape(scale, scales))},
                           {{"axis", std::int64_t{axis}}, {"block", kBlock}});
  return {g.op("matmul", {n.in(0), again}, n.attrs)};
}

}  // namespace

Graph narrow_weights(const Graph& g, const PassOptions& options) {
  if (options.weight_bits == 0) return g.clone();
  const Rule rules[] = {
      {"narrow_weights", {"matmul"}, options.weight_bits == 8 ? bytes_of_weights : nibbles_of_weights}};
  return rewrite(g, rules);
}

}  // namespace deepseek
