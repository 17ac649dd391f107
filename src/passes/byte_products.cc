// Contractions of quantised numbers: (x - p) * s by (w - q) * t, summed, is s * t times a sum of products of bytes, which
// machines have units for. x becomes uint8 and w int8; what that moves the zero points by is a multiple of w's sums.
//
//   sum (u + o) * v = sum u * v + o * sum v,   u in 0..255, v in -128..127, o the same for every element of u
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/graph_builder.h"
#include "passes/bytes.h"
#include "passes/groups.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

constexpr std::int64_t kMostProducts = 65000;  // whose sum is below 2^31

// (x - zero) * scale, elementwise; zero and scale may be absent.
struct Bytes {
  Value x, zero, scale;
};

bool is_byte(Value v) { return v.dtype() == DType::U8 || v.dtype() == DType::I8; }

std::optional<Bytes> centred(Value v) {
  Value zero;
  if (is_op(v, "sub")) {
    zero = v.node->in(1);
    v = v.node->in(0);
  }
  if (!is_op(v, "cast") || !is_byte(v.node->in(0))) return std::nullopt;
  return Bytes{v.node->in(0), zero, {}};
}

std::optional<Bytes> bytes_of(Graph& g, Value v) {
  if (is_op(v, "transpose")) {
    auto b = bytes_of(g, v.node->in(0));
    if (!b) return std::nullopt;
    for (Value* part : {&b->x, &b->zero, &b->scale}) {
      if (!*part || (part != &b->x && numel(part->shape()) == Dim(1))) continue;
      if (part->rank() != v.rank()) return std::nullopt;
      *part = g.op("transpose", {*part}, v.node->attrs);
    }
    return b;
  }
  if (is_op(v, "reshape")) {
    auto b = bytes_of(g, v.node->in(0));
    if (!b || !is_one_number(b->zero) || !is_one_number(b->scale)) return std::nullopt;
    b->x = g.op("reshape", {b->x}, v.node->attrs);
    return b;
  }
  if (is_op(v, "dequantize") && is_byte(v.node->in(0)))
    return Bytes{v.node->in(0), v.node->has(2) ? v.node->in(2) : Value(), v.node->in(1)};
  if (v.dtype() == DType::I32) return centred(v);
  if (v.dtype() != DType::F32 || !is_op(v, "mul")) return std::nullopt;
  auto b = centred(v.node->in(0));
  if (b) b->scale = v.node->in(1);
  return b;
}

// v is one number, or differs along `axis` alone, of a tensor of this rank: as a scalar or a vector.
Value per_column(GraphBuilder& g, Value v, int axis, int rank) {
  if (is_one_number(v)) return g.reshape(v, {});
  if (v.rank() > rank) return {};
  Dim columns = 1;
  for (int i = 0; i < v.rank(); ++i) {
    if (i + rank - v.rank() == axis)
      columns = v.dim(i);
    else if (!(v.dim(i) == Dim(1)))
      return {};
  }
  return g.reshape(v, {columns});
}

// Where a product's columns are: in its right operand and in its result.
struct Columns {
  int right, result;
};
Columns columns_of(const Node& n) {
  if (is_op(n, "matmul")) return {n.in(1).rank() - 1, static_cast<int>(n.outputs[0].shape.size()) - 1};
  return {static_cast<int>(n.attr<std::string>("kernel_layout").find('O')),
          static_cast<int>(n.attr<std::string>("output_layout").find('C'))};
}

// How many products one result sums.
Dim products_of(const Node& n) {
  if (is_op(n, "matmul")) return n.in(1).dim(-2);
  return floordiv(numel(n.in(1).shape()), n.in(1).dim(columns_of(n).right));
}

// The axes of the right operand that are summed over.
std::vector<std::int64_t> summed_axes(const Node& n) {
  if (is_op(n, "matmul")) return {n.in(1).rank() - 2};
  return axes_except(n.in(1).rank(), columns_of(n).right);
}

// A convolution's zeros outside x become those of bytes: `zero` is written around x. False where they cannot.
bool write_border(GraphBuilder& g, const Node& n, Value& x, std::optional<double> zero, Attrs& attrs) {
  if (!is_op(n, "conv") || zero == 0) return true;
  const auto all_are = [](const std::vector<std::int64_t>& v, std::int64_t one) {
    return std::all_of(v.begin(), v.end(), [one](std::int64_t i) { return i == one; });
  };
  const auto &low = ints(n, "pad_low"), &high = ints(n, "pad_high");
  if (!all_are(ints(n, "input_dilation"), 1)) return false;
  if (all_are(low, 0) && all_are(high, 0)) return true;
  const auto negative = [](std::int64_t i) { return i < 0; };
  if (!zero || std::any_of(low.begin(), low.end(), negative) ||
      std::any_of(high.begin(), high.end(), negative))
    return false;
  Shape before, after;
  for (const char c : n.attr<std::string>("input_layout")) {
    const bool spatial = c >= '0' && c <= '9';
    before.emplace_back(spatial ? low[static_cast<std::size_t>(c - '0')] : 0);
    after.emplace_back(spatial ? high[static_cast<std::size_t>(c - '0')] : 0);
  }
  x = g.op("pad", {x}, {{"low", before}, {"high", after}, {"value", *zero}});
  attrs["pad_low"] = attrs["pad_high"] = std::vector<std::int64_t>(low.size(), 0);
  return true;
}

// A filter whose rows have an odd number of elements gets a column of zeros, as x where windows would leave it: what has no
// border any more can be read in pairs where it lies.
void even_rows(GraphBuilder& g, const Node& n, Value& x, Value& filters) {
  if (!is_op(n, "conv") || n.attr<std::int64_t>("feature_groups") != 1 || n.in(0).rank() < 3) return;
  const auto last = static_cast<std::size_t>(n.in(0).rank() - 3);
  const char axis = static_cast<char>('0' + last);
  const auto place = [&](const char* layout, char of) {
    return static_cast<int>(n.attr<std::string>(layout).find(of));
  };
  const int in = place("input_layout", axis), taps = place("kernel_layout", axis);
  const Dim width = x.dim(in), row = filters.dim(taps), channels = filters.dim(place("kernel_layout", 'I')),
            made = n.outputs[0].shape[static_cast<std::size_t>(place("output_layout", axis))];
  if (!width.is_static() || !row.is_static() || !channels.is_static() || !made.is_static()) return;
  if (row.value() * channels.value() % 2 == 0 || row.value() == 1 || ints(n, "kernel_dilation")[last] != 1)
    return;
  const auto widened = [&](Value v, int along, std::int64_t by) {
    Shape low(v.shape().size()), high(v.shape().size());
    high[static_cast<std::size_t>(along)] = by;
    return g.op("pad", {v}, {{"low", low}, {"high", high}, {"value", 0.0}});
  };
  const std::int64_t read = (made.value() - 1) * ints(n, "strides")[last] + row.value() + 1;
  if (read > width.value()) x = widened(x, in, read - width.value());
  filters = widened(filters, taps, 1);
}

// Whether fp32 is faster than int16, which is worth about half as many multiplies: where operands are found in each run, and
// so would be packed in each, and where Winograd's algorithm needs a quarter of the products (kernels/winograd.cc).
bool better_in_floats(const Node& n, Value right) {
  constexpr std::int64_t kPixels = 100, kChannels = 32;  // fewer share a filter's transform, or a pixel's
  if (n.outputs[0].dtype != DType::F32) return false;
  if (!is_weight(right)) return true;
  if (!is_op(n, "conv") || n.in(0).rank() != 4 || n.attr<std::int64_t>("feature_groups") != 1 ||
      n.attr<std::int64_t>("batch_groups") != 1)
    return false;
  for (const char* attr : {"strides", "input_dilation", "kernel_dilation"})
    for (const std::int64_t x : ints(n, attr))
      if (x != 1) return false;
  const std::string &kernel = n.attr<std::string>("kernel_layout"),
                    &out = n.attr<std::string>("output_layout");
  std::int64_t pixels = 1;
  for (const char axis : {'0', '1'}) {
    const Dim made = n.outputs[0].shape[out.find(axis)];
    if (!(right.dim(static_cast<int>(kernel.find(axis))) == Dim(3)) || !made.is_static()) return false;
    pixels *= made.value();
  }
  const auto many = [&](char axis) {
    const Dim d = right.dim(static_cast<int>(kernel.find(axis)));
    return d.is_static() && d.value() >= kChannels;
  };
  return pixels >= kPixels && many('I') && many('O');
}

std::vector<Value> byte_product(Graph& graph, const Node& n, bool in_words) {
  const DType type = n.outputs[0].dtype;
  if ((type != DType::F32 && type != DType::I32) || n.in(0).dtype() != type || !is_contraction(n)) return {};
  const auto a = bytes_of(graph, n.in(0)), b = bytes_of(graph, n.in(1));
  if (!a || !b || !is_one_number(a->zero) || !is_one_number(a->scale)) return {};
  if (type == DType::F32 && (!a->scale || !b->scale)) return {};
  if (in_words && better_in_floats(n, b->x)) return {};
  const bool is_signed = b->x.dtype() == DType::I8;
  // Where w's zero point is not the middle of its type, u's sums count too.
  const bool centred = uniform(b->zero) == (is_signed ? 0 : kHalfOfByte);
  const Dim products = products_of(n);
  if ((type == DType::F32 || !centred) && (!products.is_static() || products.value() > kMostProducts))
    return {};
  if (!centred && is_op(n, "conv") && n.attr<std::int64_t>("feature_groups") != 1) return {};

  GraphBuilder g(graph);
  const Columns columns = columns_of(n);
  const auto by_column = [&](Value v) {
    v = per_column(g, v, columns.right, n.in(1).rank());
    return v && v.rank() == 1 ? g.along_axis(v, columns.result, static_cast<int>(n.outputs[0].shape.size()))
                              : v;
  };
  const int rank = static_cast<int>(n.outputs[0].shape.size());
  const auto shifted = [&](Value v, double by, DType to) {
    return g.cast(g.add(g.cast(v, DType::I32), by), to);
  };
  Value v = is_signed ? b->x : shifted(b->x, -kHalfOfByte, DType::I8);
  Value u = a->x.dtype() == DType::U8 ? a->x : shifted(a->x, kHalfOfByte, DType::U8);
  const double moved = a->x.dtype() == DType::U8 ? 0 : kHalfOfByte;
  std::optional<double> zero = uniform(a->zero);  // of u
  if (zero) *zero += moved;
  Attrs attrs = n.attrs;
  if (!write_border(g, n, u, zero, attrs)) return {};
  if (in_words && centred && zero && zero != 0) even_rows(g, n, u, v);
  Value total = g.op(n.op->name, {u, v}, attrs), moved_columns;
  if (!centred) {
    moved_columns = by_column(b->zero ? g.cast(b->zero, DType::I32) : g.scalar(0, DType::I32));
    if (!moved_columns) return {};
    if (!is_signed) moved_columns = g.sub(moved_columns, kHalfOfByte);
    Shape ones = is_op(n, "matmul") ? Shape{n.in(1).dim(-2), 1} : n.in(1).shape();
    if (is_op(n, "conv")) ones[static_cast<std::size_t>(columns.right)] = 1;
    const Value sums = g.op(n.op->name, {u, g.full(ones, 1, DType::I8)}, attrs);
    total = g.sub(total, g.mul(sums, moved_columns));
  }
  if (zero != 0) {
    Value sums = g.sum(g.cast(v, DType::I32), summed_axes(n), true);
    if (is_op(n, "conv"))
      sums = g.along_axis(g.reshape(sums, {n.in(1).dim(columns.right)}), columns.result, rank);
    if (moved_columns) sums = g.sub(sums, g.mul(moved_columns, static_cast<double>(products.value())));
    Value offset = zero ? g.scalar(*zero, DType::I32) : g.reshape(g.cast(a->zero, DType::I32), {});
    if (!zero && moved != 0) offset = g.add(offset, moved);
    total = g.sub(total, g.mul(sums, offset));
  }
  if (type == DType::I32) return {total};
  const Value scale = by_column(b->scale);
  if (!scale) return {};
  return {g.mul(g.cast(total, DType::F32), g.mul(scale, g.reshape(a->scale, {})))};
}

// What the largest magnitude along `axes` is to 127, as a factor of the whole numbers; never 0.
Value scale_of(GraphBuilder& g, Value x, std::vector<std::int64_t> axes) {
  constexpr double kLargest = 127, kTiny = 1e-30;
  return g.maximum(g.mul(g.max(g.abs(x), std::move(axes), true), 1 / kLargest), kTiny);
}

// Whether n multiplies floats by weights that are worth quantising.
bool takes_bytes(Graph& graph, const Node& n) {
  constexpr std::int64_t kFewColumns = 16;  // cost as much as many
  if (n.outputs[0].dtype != DType::F32 || !is_contraction(n) || !is_weight(n.in(1))) return false;
  if (bytes_of(graph, n.in(0)) || bytes_of(graph, n.in(1))) return false;
  const Dim made = n.in(1).dim(columns_of(n).right), products = products_of(n);
  if (!made.is_static() || made.value() < kFewColumns) return false;
  return products.is_static() && products.value() >= 1 && products.value() <= kMostProducts;
}

// x / scale, rounded, with 0 at `middle`.
Value in_bytes(GraphBuilder& g, Value x, Value scale, double middle, DType t) {
  return g.cast(g.add(g.op("round", {g.mul(x, g.div(1, scale))}), middle), t);
}

// Weights in bytes with a scale per column, and those as floats again.
Value weights_in_bytes(GraphBuilder& g, const Node& n) {
  const Value scale = scale_of(g, n.in(1), summed_axes(n));
  return g.mul(g.cast(in_bytes(g, n.in(1), scale, 0, DType::I8), DType::F32), scale);
}

// Weights in bytes, and x in bytes with a scale per row (of a convolution: per image), found as it comes.
std::vector<Value> quantised_product(Graph& graph, const Node& n) {
  if (!takes_bytes(graph, n)) return {};
  GraphBuilder g(graph);
  const Value x = n.in(0);
  const bool conv = is_op(n, "conv");
  const int image = conv ? static_cast<int>(n.attr<std::string>("input_layout").find('N')) : 0;
  Value by_row =
      scale_of(g, x, conv ? axes_except(x.rank(), image) : std::vector<std::int64_t>{x.rank() - 1});
  const Value u = in_bytes(g, x, by_row, kHalfOfByte, DType::U8);
  const Value left = g.mul(g.sub(g.cast(u, DType::F32), kHalfOfByte), g.scalar(1, DType::F32));
  const Value y = g.op(n.op->name, {left, weights_in_bytes(g, n)}, n.attrs);
  if (conv)
    by_row = g.along_axis(g.reshape(by_row, {x.dim(image)}),
                          static_cast<int>(n.attr<std::string>("output_layout").find('N')),
                          static_cast<int>(n.outputs[0].shape.size()));
  return {g.mul(y, by_row)};
}

// Weights in bytes, and x in bytes that share this range.
std::vector<Value> calibrated_product(Graph& graph, const Node& n, const Range& range) {
  constexpr double kSteps = 255;
  GraphBuilder g(graph);
  const double step = range.high > range.low ? (range.high - range.low) / kSteps : 1;
  const Value scale = g.scalar(step, DType::F32),
              zero = g.scalar(std::clamp(std::nearbyint(-range.low / step), 0.0, kSteps), DType::U8);
  const Value u = g.op("quantize", {n.in(0), scale, zero}, {{"dtype", DType::U8}});
  return {g.op(n.op->name, {g.op("dequantize", {u, scale, zero}), weights_in_bytes(g, n)}, n.attrs)};
}

Graph calibrated(const Graph& g, std::span<const Range> ranges) {
  std::size_t next = 0;
  const Rule rule{"quantise", {"matmul", "conv"}, [&](Graph& out, const Node& n) {
                    if (!takes_bytes(out, n)) return std::vector<Value>{};
                    check(next < ranges.size(), "a range for each product with weights");
                    return calibrated_product(out, n, ranges[next++]);
                  }};
  bool changed = false;
  return rewrite_once(g, {&rule, 1}, changed);
}

}  // namespace

std::vector<Value> quantised_operands(Graph& g) {
  std::vector<const Node*> nodes;
  for (const auto& n : g.nodes())
    if (is_op(*n, "matmul") || is_op(*n, "conv")) nodes.push_back(n.get());
  std::vector<Value> result;
  for (const Node* n : nodes)
    if (takes_bytes(g, *n)) result.push_back(n->in(0));
  return result;
}

Graph byte_products(const Graph& g, const PassOptions& options) {
  std::vector<Rule> rules = {{"byte_products", {"matmul", "conv"}, [&](Graph& out, const Node& n) {
                                return byte_product(out, n, options.bytes_in_words);
                              }}};
  if (options.quantise && !options.ranges.empty()) return rewrite(calibrated(g, options.ranges), rules);
  if (options.quantise) rules.push_back({"quantise", {"matmul", "conv"}, quantised_product});
  return rewrite(g, rules);
}

}  // namespace deepseek
