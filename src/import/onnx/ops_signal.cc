// Signals: windows, Fourier transforms as products with their matrices, mel filters.
#include <cmath>
#include <numbers>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

// Above this the matrix of a transform is larger than it is worth.
constexpr std::int64_t kMaxLength = 1 << 12;

// offset + sum of a_k cos(2 pi k n / N)
Translate cosine_window(double offset, std::vector<double> terms) {
  return [offset, terms](Context& c) {
    Emit& e = c.e;
    const std::int64_t size = c.need_int(0);
    if (size < 0) c.bad("a size of at least 0", std::to_string(size));
    const DType t = c.attr_dtype("output_datatype", DType::F32);
    const double period = static_cast<double>(c.attr("periodic", 1) != 0 ? size : size - 1);
    const Value n = e.iota({size}, t == DType::F64 ? DType::F64 : DType::F32, 0);
    Value y = e.full(n.shape(), offset, n.dtype());
    for (std::size_t k = 0; k < terms.size(); ++k) {
      const double frequency = 2 * std::numbers::pi * static_cast<double>(k + 1) / period;
      y = e.add(y, e.mul(e.cos(e.mul(n, frequency)), terms[k]));
    }
    c.out(e.cast(y, t));
  };
}

struct Complex {
  Value re, im;  // im empty: zero
};

// Matrix [n, k] of weight(row, column) * cos or sin of 2 pi row column / length.
template <class F>
Value trigonometric(Context& c, std::int64_t rows, std::int64_t columns, std::int64_t length, DType t, F f) {
  c.importer().count_elements(rows, columns);
  Tensor m(t, {rows, columns});
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t k = 0; k < columns; ++k) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(r * k % length) / static_cast<double>(length);
      m.set(r * columns + k, f(angle, r, k));
    }
  return c.e.constant(std::move(m));
}

// x's last axis cut or filled with zeros to n.
Value fitted(Emit& e, Value x, std::int64_t n) {
  Shape low(static_cast<std::size_t>(x.rank()), Dim(0)), high = low;
  high.back() = Dim(n) - x.dim(-1);
  return high.back() == Dim(0) ? x : e.pad(x, low, high);
}

void check_length(Context& c, std::int64_t length) {
  if (length < 1 || length > kMaxLength)
    c.unsupported("a length from 1 to " + std::to_string(kMaxLength), std::to_string(length));
}

// Along the last axis.
Complex forward(Context& c, Complex x, std::int64_t length, bool onesided, bool inverse) {
  Emit& e = c.e;
  check_length(c, length);
  const std::int64_t bins = onesided ? length / 2 + 1 : length;
  const double scale = inverse ? 1 / static_cast<double>(length) : 1;
  const DType t = x.re.dtype();
  const Value cosine =
      trigonometric(c, length, bins, length, t, [&](double a, auto, auto) { return scale * std::cos(a); });
  const Value sine = trigonometric(c, length, bins, length, t, [&](double a, auto, auto) {
    return (inverse ? scale : -scale) * std::sin(a);
  });
  const Value re = fitted(e, x.re, length);
  Complex y{e.matmul(re, cosine), e.matmul(re, sine)};
  if (x.im) {
    const Value im = fitted(e, x.im, length);
    y.re = e.sub(y.re, e.matmul(im, sine));
    y.im = e.add(y.im, e.matmul(im, cosine));
  }
  return y;
}

// From the bins that are not conjugates of others to the real signal.
Value real_inverse(Context& c, Complex x, std::int64_t length) {
  Emit& e = c.e;
  check_length(c, length);
  const std::int64_t bins = length / 2 + 1;
  const DType t = x.re.dtype();
  const auto weight = [&](std::int64_t k) {
    return (k == 0 || 2 * k == length ? 1.0 : 2.0) / static_cast<double>(length);
  };
  const Value cosine = trigonometric(c, bins, length, length, t,
                                     [&](double a, auto k, auto) { return weight(k) * std::cos(a); });
  Value y = e.matmul(fitted(e, x.re, bins), cosine);
  if (x.im) {
    const Value sine = trigonometric(c, bins, length, length, t,
                                     [&](double a, auto k, auto) { return weight(k) * std::sin(a); });
    y = e.sub(y, e.matmul(fitted(e, x.im, bins), sine));
  }
  return y;
}

void dft(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (x.rank() < 2) c.bad("a signal and an axis of 1 or 2", str(x.type()));
  const std::int64_t given = c.opset() < 20 ? c.attr("axis", 1) : c.has(2) ? c.need_int(2) : -2;
  const int axis = c.axis(given, x.rank()), last = x.rank() - 1;
  if (axis == last || !(x.dim(last) == Dim(1) || x.dim(last) == Dim(2)))
    c.bad("an axis other than the last, which is 1 or 2", str(x.type()));
  const bool inverse = c.attr("inverse", 0) != 0, onesided = c.attr("onesided", 0) != 0;
  if (!x.dim(axis).is_static()) c.ask_for("a static axis", x.dim(axis));
  const std::int64_t extent = x.dim(axis).value();
  const std::int64_t length = c.has(1) ? c.need_int(1) : inverse && onesided ? 2 * (extent - 1) : extent;
  // The transformed axis goes last, the pair of numbers apart.
  Ints perm = axes_range(0, last);
  std::swap(perm[static_cast<std::size_t>(axis)], perm.back());
  const auto part = [&](int i) { return e.permute(e.squeeze(e.slice_axis(x, last, i, i + 1), last), perm); };
  const Complex signal{part(0), x.dim(last) == Dim(2) ? part(1) : Value()};
  const auto back = [&](Value v) { return e.unsqueeze(e.permute(v, perm), last); };
  if (inverse && onesided) return c.out(back(real_inverse(c, signal, length)));
  const Complex y = forward(c, signal, length, onesided, inverse);
  c.out(e.concat({back(y.re), back(y.im)}, last));
}

void stft(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const std::int64_t hop = c.need_int(1);
  if (x.rank() < 2 || x.rank() > 3 || hop < 1)
    c.bad("a signal [batch, length, 1 or 2] and a positive step", str(x.type()));
  const Dim extent = x.dim(1);
  if (!extent.is_static()) c.ask_for("a signal of static length", extent);
  Dim window_size = c.has(2) ? c.shape(2).at(0) : extent;
  const std::int64_t length = c.has(3) ? c.need_int(3) : window_size.value();
  check_length(c, length);
  if (length > extent.value()) c.bad("frames within the signal", std::to_string(length));
  const std::int64_t frames = (extent.value() - length) / hop + 1;
  c.importer().count_elements(frames, length);
  Ints index;
  for (std::int64_t f = 0; f < frames; ++f)
    for (std::int64_t i = 0; i < length; ++i) index.push_back(f * hop + i);
  const bool pair = x.rank() == 3 && x.dim(2) == Dim(2);
  const auto part = [&](int i) {
    const Value v = x.rank() == 3 ? e.squeeze(e.slice_axis(x, 2, i, i + 1), 2) : x;
    Value cut = e.reshape(e.gather(v, e.ints(index), 1), {x.dim(0), frames, length});
    if (c.has(2)) cut = e.mul(cut, fitted(e, c.in(2), length));
    return cut;
  };
  const Complex y =
      forward(c, {part(0), pair ? part(1) : Value()}, length, c.attr("onesided", 1) != 0, false);
  c.out(e.concat({e.unsqueeze(y.re, 3), e.unsqueeze(y.im, 3)}, 3));
}

void mel_weights(Context& c) {
  const std::int64_t bands = c.need_int(0), length = c.need_int(1), rate = c.need_int(2);
  const double low = c.need_real(3), high = c.need_real(4);
  if (bands < 1 || bands > kMaxLength || length < 1 || length > kMaxLength || rate < 1)
    c.bad("positive sizes that fit",
          std::to_string(bands) + ", " + std::to_string(length) + ", " + std::to_string(rate));
  const std::int64_t bins = length / 2 + 1;
  const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  std::vector<std::int64_t> edges;
  const double step = (mel(high) - mel(low)) / static_cast<double>(bands + 2);
  for (std::int64_t i = 0; i < bands + 2; ++i) {
    const double hertz = 700 * (std::pow(10, (static_cast<double>(i) * step + mel(low)) / 2595) - 1);
    const double bin = std::floor(static_cast<double>(length + 1) * hertz / static_cast<double>(rate));
    if (!(bin >= 0 && bin < static_cast<double>(bins)))
      c.bad("frequencies below half the sample rate", std::to_string(hertz));
    edges.push_back(static_cast<std::int64_t>(bin));
  }
  c.importer().count_elements(bins, bands);
  Tensor weights = Tensor::zeros(c.attr_dtype("output_datatype", DType::F32), {bins, bands});
  for (std::int64_t b = 0; b < bands; ++b) {
    const auto at = static_cast<std::size_t>(b);
    const std::int64_t left = edges[at], centre = edges[at + 1], right = edges[at + 2];
    if (centre == left) weights.set(centre * bands + b, 1);
    for (std::int64_t j = left; centre > left && j <= centre; ++j)
      weights.set(j * bands + b, static_cast<double>(j - left) / static_cast<double>(centre - left));
    for (std::int64_t j = centre; j < right; ++j)
      weights.set(j * bands + b, static_cast<double>(right - j) / static_cast<double>(right - centre));
  }
  c.out(c.e.constant(std::move(weights)));
}

// Determinants of small matrices, by expansion along the first row.
Value minor_of(Emit& e, Value x, int row, int column, int n);
Value determinant(Emit& e, Value x, int n) {
  const auto entry = [&](int i, int k) {
    const int rows = x.rank() - 2;
    return e.squeeze(e.slice_axis(e.slice_axis(x, rows, i, i + 1), rows + 1, k, k + 1), Ints{rows, rows + 1});
  };
  if (n == 1) return entry(0, 0);
  Value total;
  for (int k = 0; k < n; ++k) {
    const Value part = e.mul(entry(0, k), determinant(e, minor_of(e, x, 0, k, n), n - 1));
    total = !total ? part : k % 2 == 0 ? e.add(total, part) : e.sub(total, part);
  }
  return total;
}
Value minor_of(Emit& e, Value x, int row, int column, int n) {
  const auto without = [&](Value v, int axis, int at) {
    std::vector<Value> parts;
    if (at > 0) parts.push_back(e.slice_axis(v, axis, 0, at));
    if (at + 1 < n) parts.push_back(e.slice_axis(v, axis, at + 1, n));
    return e.concat(parts, axis);
  };
  return without(without(x, x.rank() - 2, row), x.rank() - 1, column);
}

void det(Context& c) {
  const Value x = c.in(0);
  if (x.rank() < 2 || !(x.dim(-1) == x.dim(-2)) || !x.dim(-1).is_static())
    c.bad("square matrices", str(x.type()));
  const std::int64_t n = x.dim(-1).value();
  if (n < 1 || n > 5) c.unsupported("matrices of at most 5 x 5", std::to_string(n));
  c.out(determinant(c.e, x, static_cast<int>(n)));
}

}  // namespace

void add_signal(Translators& t) {
  t.add("HannWindow", cosine_window(0.5, {-0.5}));
  t.add("HammingWindow", cosine_window(25.0 / 46, {-21.0 / 46}));
  t.add("BlackmanWindow", cosine_window(0.42, {-0.5, 0.08}));
  t.add("DFT", dft);
  t.add("STFT", stft);
  t.add("MelWeightMatrix", mel_weights);
  t.add("Det", det);
}

}  // namespace deepseek::onnx_import
