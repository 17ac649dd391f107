// Poolings and their gradients.
#include <algorithm>
#include <limits>

#include "export/onnx/layout.h"

namespace deepseek::onnx_export {

namespace {

struct Window {
  explicit Window(const Node& n, int rank)
      : size(n.attr<Ints>("window")),
        strides(n.attr<Ints>("strides")),
        low(n.attr<Ints>("pad_low")),
        high(n.attr<Ints>("pad_high")),
        dilation(n.attr<Ints>("dilation")),
        layout(n.attr<std::string>("layout")),
        plain(batch_first(rank)) {}
  Ints size, strides, low, high, dilation;
  std::string layout, plain;

  // Readers take paddings from 0 to the window's size, itself not.
  bool plain_padding() const {
    for (std::size_t i = 0; i < size.size(); ++i)
      if (low[i] < 0 || high[i] < 0 || low[i] >= size[i] || high[i] >= size[i]) return false;
    return true;
  }
  Attributes attributes() const {
    return {
        {"kernel_shape", size}, {"strides", strides}, {"pads", joined(low, high)}, {"dilations", dilation}};
  }
  std::string in(Writer& w, const std::string& x) const { return w.transpose(x, between(layout, plain)); }
  std::string out(Writer& w, const std::string& y) const { return w.transpose(y, between(plain, layout)); }
  // Sums over the windows of an x that has its padding in memory, or whose padding is zeros.
  std::string sums(Writer& w, const std::string& x, DType t) const {
    Attributes given = attributes();
    given.emplace_back("count_include_pad", std::int64_t{1});
    double count = 1;
    for (const std::int64_t s : size) count *= static_cast<double>(s);
    return w.add("Mul", {w.add("AveragePool", {x}, std::move(given)), w.scalar(count, t)});
  }
  // x with its padding in memory where readers would not take it.
  std::string with_padding(Writer& w, const std::string& x, const std::string& value) {
    if (plain_padding()) return x;
    const std::string y = padded(w, x, static_cast<int>(plain.size()), low, high, value);
    std::fill(low.begin(), low.end(), 0);
    std::fill(high.begin(), high.end(), 0);
    return y;
  }
};

std::string lowest(Writer& w, DType t) {
  return w.scalar(is_float(t) ? -std::numeric_limits<double>::infinity() : t == DType::I8 ? -128 : 0, t);
}

// MaxPool takes floats and bytes; other integers as float64, exact below 2^53.
Names max_pool(Writer& w, const Node& n) {
  const DType t = n.in(0).dtype(), as = is_float(t) || bits(t) == 8 ? t : DType::F64;
  Window window(n, n.in(0).rank());
  std::string x = window.in(w, w.in(n, 0));
  if (as != t) x = w.cast(x, as);
  x = window.with_padding(w, x, lowest(w, as));
  std::string y = window.out(w, w.add("MaxPool", {x}, window.attributes()));
  return {as == t ? y : w.cast(y, t)};
}

// ONNX numbers the elements of the whole tensor, we those of a channel.
Names with_indices(Writer& w, const Node& n) {
  const Window window(n, n.in(0).rank());
  const Shape shape = shape_in(n.in(0).shape(), window.layout, window.plain);
  Names results = w.add_many("MaxPool", {window.in(w, w.in(n, 0))}, window.attributes(), 2);
  results[1] = w.add("Mod", {results[1], w.dim(numel(Shape(shape.begin() + 2, shape.end())))});
  for (std::string& r : results) r = window.out(w, r);
  return results;
}

bool takes_indices(const Node& n) {
  const DType t = n.in(0).dtype();
  return Window(n, n.in(0).rank()).plain_padding() && (is_float(t) || bits(t) == 8);
}

// How many taps of each window count, [1, 1, ...]: the sums of ones.
std::string counts(Writer& w, const Node& n, Window window, const Shape& shape, DType t) {
  Shape one = {1, 1};
  one.insert(one.end(), shape.begin() + 2, shape.end());
  std::string x = w.full({t, one}, 1);
  Ints low = window.low, high = window.high;
  if (n.attr<bool>("count_include_pad")) {
    const Ints& uncounted = n.attr<Ints>("uncounted_high");
    for (std::size_t i = 0; i < high.size(); ++i) high[i] -= uncounted[i];
    x = padded(w, x, static_cast<int>(shape.size()), low, high, w.scalar(1, t));
    low.assign(low.size(), 0);
    high = uncounted;
  }
  x = padded(w, x, static_cast<int>(shape.size()), low, high, w.scalar(0, t));
  window.low.assign(window.low.size(), 0);
  window.high = window.low;
  return window.sums(w, x, t);
}

DType floats(const Node& n) {
  const DType t = n.in(0).dtype();
  if (!is_float(t)) unsupported("a pooling of floats", std::string(name(t)));
  return t;
}

Names sum_pool(Writer& w, const Node& n) {
  const DType t = floats(n);
  Window window(n, n.in(0).rank());
  const std::string x = window.with_padding(w, window.in(w, w.in(n, 0)), w.scalar(0, t));
  return {window.out(w, window.sums(w, x, t))};
}

Names avg_pool(Writer& w, const Node& n) {
  const DType t = floats(n);
  Window window(n, n.in(0).rank());
  const std::string x = window.in(w, w.in(n, 0));
  if (all_zero(n.attr<Ints>("uncounted_high")) && window.plain_padding()) {
    Attributes attributes = window.attributes();
    attributes.emplace_back("count_include_pad", std::int64_t{n.attr<bool>("count_include_pad")});
    return {window.out(w, w.add("AveragePool", {x}, std::move(attributes)))};
  }
  const std::string count = counts(w, n, window, shape_in(n.in(0).shape(), window.layout, window.plain), t);
  const std::string whole = window.with_padding(w, x, w.scalar(0, t));
  return {window.out(w, w.add("Div", {window.sums(w, whole, t), count}))};
}

// Each element of dy to the whole of its window: a transposed convolution with ones, cut to x's shape.
std::string spread_over_windows(Writer& w, const std::string& dy, const Window& window, const Shape& from,
                                const Shape& shape, DType t) {
  if (!shape[1].is_static()) unsupported("a static number of channels", shape[1].str());
  if (shape[1].value() == 0) return w.full({t, shape}, 0);
  Dims dims = {shape[1].value(), 1};
  dims.insert(dims.end(), window.size.begin(), window.size.end());
  Tensor ones(t, dims);
  for (std::int64_t i = 0; i < ones.numel(); ++i) ones.set(i, 1);
  const std::string y =
      w.add("ConvTranspose", {dy, w.constant(ones)},
            {{"strides", window.strides}, {"dilations", window.dilation}, {"group", shape[1].value()}});
  const std::size_t rank = shape.size();
  Shape pads(2 * rank, Dim(0));
  for (std::size_t i = 2; i < rank; ++i) {
    const Dim made = (from[i] - Dim(1)) * Dim(window.strides[i - 2]) +
                     Dim((window.size[i - 2] - 1) * window.dilation[i - 2] + 1);
    pads[i] = Dim(-window.low[i - 2]);
    pads[rank + i] = shape[i] + Dim(window.low[i - 2]) - made;
  }
  return w.add("Pad", {y, w.dims(pads), w.scalar(0, t)});
}

Names sum_pool_grad(Writer& w, const Node& n, bool averaged) {
  const DType t = floats(n);
  const Window window(n, n.in(0).rank());
  const Shape shape = shape_in(n.attr<Shape>("shape"), window.layout, window.plain),
              from = shape_in(n.in(0).shape(), window.layout, window.plain);
  std::string dy = window.in(w, w.in(n, 0));
  if (averaged) dy = w.add("Div", {dy, counts(w, n, window, shape, t)});
  return {window.out(w, spread_over_windows(w, dy, window, from, shape, t))};
}

Names max_pool_grad(Writer& w, const Node& n) {
  const int rank = n.in(0).rank();
  const Window window(n, rank);
  const Shape shape = shape_in(n.attr<Shape>("shape"), window.layout, window.plain),
              from = shape_in(n.in(0).shape(), window.layout, window.plain);
  const auto flat = [](const Shape& s) { return Shape{s[0], s[1], numel(Shape(s.begin() + 2, s.end()))}; };
  const std::string zeros = w.full({n.in(0).dtype(), flat(shape)}, 0);
  const auto flattened = [&](int i) { return w.reshape(window.in(w, w.in(n, i)), flat(from)); };
  const std::string y = w.add("ScatterElements", {zeros, flattened(1), flattened(0)},
                              {{"axis", std::int64_t{2}}, {"reduction", std::string("add")}});
  return {window.out(w, w.reshape(y, shape))};
}

}  // namespace

void add_pool_rules(Rules& r) {
  r.add("max_pool", max_pool);
  r.add("max_pool_with_indices", with_indices, takes_indices);
  r.add(
      "max_pool_indices", [](Writer& w, const Node& n) { return Names{with_indices(w, n)[1]}; },
      takes_indices);
  r.add("avg_pool", avg_pool);
  r.add("avg_pool_grad", [](Writer& w, const Node& n) { return sum_pool_grad(w, n, true); });
  r.add("sum_pool", sum_pool);
  r.add("sum_pool_grad", [](Writer& w, const Node& n) { return sum_pool_grad(w, n, false); });
  r.add("max_pool_grad", max_pool_grad);
}

}  // namespace deepseek::onnx_export
