// Shape arithmetic, done while importing: the nodes between Shape (or a constant) and whoever needs the values.
#include <algorithm>
#include <cmath>
#include <limits>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

// Larger results are left to the graph: constants that are data, not shapes.
constexpr std::int64_t kMaxFolded = 1024;

using Result = std::optional<Known>;
using Fold = Result (*)(Context&);

std::int64_t count(const Dims& dims) { return numel(dims); }

// Values as the dtype can hold them; nothing where an integer does not fit.
Result stored(Known k) {
  if (k.real()) {
    if (k.dtype == DType::F64) return k;
    Tensor one(k.dtype, {1});
    for (double& v : k.reals) {
      one.set(0, v);
      v = one.at(0);
    }
    return k;
  }
  if (k.dtype == DType::I64 || k.dtype == DType::U64) return k;
  const int width = k.dtype == DType::Bool ? 1 : bits(k.dtype) - is_signed(k.dtype);
  const std::int64_t high = (std::int64_t{1} << width) - 1;
  const std::int64_t low = is_signed(k.dtype) ? -high - 1 : 0;
  for (const Dim& d : k.ints)
    if (d.is_static() && (d.value() < low || d.value() > high)) return std::nullopt;
  return k;
}

// Flat index in a tensor of `dims` of the element that broadcasting puts at coordinates of `shape`.
std::size_t broadcast_index(std::int64_t flat, const Dims& shape, const Dims& dims) {
  std::int64_t index = 0, stride = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::size_t axis = shape.size() - 1 - i;
    const std::int64_t coordinate = flat % shape[axis];
    flat /= shape[axis];
    if (i >= dims.size()) continue;
    const std::int64_t extent = dims[dims.size() - 1 - i];
    if (extent != 1) index += coordinate * stride;
    stride *= extent;
  }
  return static_cast<std::size_t>(index);
}

std::optional<Dims> broadcast_dims(const Dims& a, const Dims& b) {
  const auto shape = broadcast(to_shape(a), to_shape(b));
  if (!shape) return std::nullopt;
  Dims dims = static_dims(*shape);
  if (count(dims) > kMaxFolded) return std::nullopt;
  return dims;
}

// Copies elements of `x` to a result of `dims`; `from` maps a flat index of the result to one of `x`.
template <class F>
Result rearranged(const Known& x, Dims dims, F from) {
  if (count(dims) > kMaxFolded) return std::nullopt;
  Known y(x.dtype, std::move(dims));
  for (std::int64_t i = 0; i < y.numel(); ++i)
    y.set(static_cast<std::size_t>(i), x, static_cast<std::size_t>(from(i)));
  return y;
}

Result with_dims(const Known& x, Dims dims) {
  if (count(dims) != x.numel()) return std::nullopt;
  Known y = x;
  y.dims = std::move(dims);
  return y;
}

// -- elementwise ---------------------------------------------------------------------------------------------
using IntOp = std::optional<Dim> (*)(const Dim&, const Dim&);
using RealOp = double (*)(double, double);

template <IntOp kInt, RealOp kReal>
Result binary(Context& c) {
  const Known &a = c.need(0), &b = c.need(1);
  const auto dims = broadcast_dims(a.dims, b.dims);
  if (!dims || a.dtype != b.dtype) return std::nullopt;
  Known y(a.dtype, *dims);
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const std::size_t p = broadcast_index(i, *dims, a.dims), q = broadcast_index(i, *dims, b.dims);
    if (a.real()) {
      y.reals[at] = kReal(a.reals[p], b.reals[q]);
      continue;
    }
    const auto v = kInt(a.ints[p], b.ints[q]);
    if (!v) return std::nullopt;
    y.ints[at] = *v;
  }
  return stored(std::move(y));
}

std::optional<Dim> add_ints(const Dim& a, const Dim& b) { return a + b; }
std::optional<Dim> sub_ints(const Dim& a, const Dim& b) { return a - b; }
std::optional<Dim> mul_ints(const Dim& a, const Dim& b) { return a * b; }
std::optional<Dim> min_ints(const Dim& a, const Dim& b) { return min(a, b); }
std::optional<Dim> max_ints(const Dim& a, const Dim& b) { return max(a, b); }
// ONNX truncates; a symbol's quotient is known to round down only where nothing is negative.
std::optional<Dim> div_ints(const Dim& a, const Dim& b) {
  if (b == Dim(0)) return std::nullopt;
  if (a.is_static() && b.is_static()) return b.value() == -1 ? Dim(0) - a : Dim(a.value() / b.value());
  if (!b.is_static() || b.value() < 0) return std::nullopt;
  return floordiv(a, b);
}
std::optional<Dim> mod_ints(const Dim& a, const Dim& b) {
  if (b == Dim(0)) return std::nullopt;
  return mod(a, b);
}
std::optional<Dim> pow_ints(const Dim& a, const Dim& b) {
  if (!b.is_static() || b.value() < 0 || b.value() > 8) return std::nullopt;
  Dim y = 1;
  for (std::int64_t i = 0; i < b.value(); ++i) y = y * a;
  return y;
}

template <int kLow, int kHigh>  // the results of compare() for which it holds
Result comparison(Context& c) {
  const Known &a = c.need(0), &b = c.need(1);
  const auto dims = broadcast_dims(a.dims, b.dims);
  if (!dims || a.real() || b.real()) return std::nullopt;
  Known y(DType::Bool, *dims);
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const auto r =
        compare(a.ints[broadcast_index(i, *dims, a.dims)], b.ints[broadcast_index(i, *dims, b.dims)]);
    if (!r) return std::nullopt;
    y.ints[static_cast<std::size_t>(i)] = *r >= kLow && *r <= kHigh;
  }
  return y;
}

template <class F>
Result unary(Context& c, F f) {
  Known y = c.need(0);
  for (double& v : y.reals) v = f(v);
  return y.real() ? stored(std::move(y)) : std::nullopt;
}

Result neg(Context& c) {
  Known y = c.need(0);
  for (double& v : y.reals) v = -v;
  for (Dim& d : y.ints) d = Dim(0) - d;
  return stored(std::move(y));
}

Result logical_not(Context& c) {
  Known y = c.need(0);
  if (y.dtype != DType::Bool || !y.is_static()) return std::nullopt;
  for (Dim& d : y.ints) d = d.value() == 0;
  return y;
}

Result cast_to(Context& c, DType to) {
  const Known& x = c.need(0);
  if (to == x.dtype) return x;
  if (is_complex(to) || to == DType::String) return std::nullopt;
  Known y(to, x.dims);
  const auto size = static_cast<std::size_t>(x.numel());
  if (!x.real() && !y.real()) {
    y.ints = x.ints;
    if (to == DType::Bool)
      for (Dim& d : y.ints) {
        const auto r = compare(d, Dim(0));
        if (!r) return std::nullopt;
        d = *r != 0;
      }
    return stored(std::move(y));
  }
  if (!x.is_static()) return std::nullopt;
  for (std::size_t i = 0; i < size; ++i) {
    const double v = x.at(i);
    if (y.real()) {
      y.reals[i] = v;
    } else if (to == DType::Bool) {
      y.ints[i] = v != 0;
    } else {
      if (!(std::abs(v) < 9e18)) return std::nullopt;
      y.ints[i] = static_cast<std::int64_t>(v);
    }
  }
  return stored(std::move(y));
}

Result where(Context& c) {
  const Known &k = c.need(0), &a = c.need(1), &b = c.need(2);
  auto dims = broadcast_dims(a.dims, b.dims);
  if (dims) dims = broadcast_dims(*dims, k.dims);
  if (!dims || k.real() || !k.is_static() || a.dtype != b.dtype) return std::nullopt;
  Known y(a.dtype, *dims);
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const Known& from = k.ints[broadcast_index(i, *dims, k.dims)].value() != 0 ? a : b;
    y.set(static_cast<std::size_t>(i), from, broadcast_index(i, *dims, from.dims));
  }
  return y;
}

// -- structure -----------------------------------------------------------------------------------------------
Result shape_of(Context& c) {
  const Shape shape = c.shape(0);
  const auto rank = static_cast<std::int64_t>(shape.size());
  const auto clamp = [&](std::int64_t v) { return std::clamp<std::int64_t>(v < 0 ? v + rank : v, 0, rank); };
  const std::int64_t start = clamp(c.attr("start", 0)), end = clamp(c.attr("end", rank));
  if (start >= end) return Known::vector({});
  return Known::vector({shape.begin() + start, shape.begin() + end});
}

Result size_of(Context& c) {
  Known k(DType::I64, {});
  k.ints[0] = numel(c.shape(0));
  return k;
}

Result concat(Context& c) {
  Known y = c.need(0);
  if (y.dims.size() != 1) return std::nullopt;
  for (int i = 1; i < c.inputs(); ++i) {
    const Known& x = c.need(i);
    if (x.dims.size() != 1 || x.dtype != y.dtype) return std::nullopt;
    y.ints.insert(y.ints.end(), x.ints.begin(), x.ints.end());
    y.reals.insert(y.reals.end(), x.reals.begin(), x.reals.end());
    y.dims[0] += x.dims[0];
  }
  return y;
}

Result gather(Context& c) {
  const Known &x = c.need(0), &index = c.need(1);
  if (x.dims.empty() || !index.is_static() || index.real() || x.dims.size() != 1) return std::nullopt;
  c.axis(c.attr("axis", 0), 1);
  const std::int64_t extent = x.dims[0];
  for (const Dim& d : index.ints)
    if (d.value() < -extent || d.value() >= extent)
      c.bad("indices of " + std::to_string(extent) + " elements", std::to_string(d.value()));
  return rearranged(x, index.dims, [&](std::int64_t i) {
    const std::int64_t at = index.ints[static_cast<std::size_t>(i)].value();
    return at < 0 ? at + extent : at;
  });
}

Result slice(Context& c) {
  const Known& x = c.need(0);
  if (x.dims.size() != 1) return std::nullopt;
  const bool inputs = c.opset() >= 10;
  const auto list = [&](int i, const char* name) { return inputs ? c.need_ints(i) : c.attr_ints(name); };
  const auto starts = list(1, "starts"), ends = list(2, "ends");
  const std::int64_t given = inputs && c.has(4) ? c.need_int(4) : 1;
  if (starts.size() != 1 || ends.size() != 1 || given == 0) return std::nullopt;
  const std::int64_t step = std::clamp(given, -kMaxDim, kMaxDim);  // as good as farther ones
  const std::int64_t n = x.dims[0], low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
  const auto place = [&](std::int64_t v) { return std::clamp(v < 0 ? v + n : v, low, high); };
  // Of nothing, backwards, there is no first element: -1.
  const std::int64_t first = std::min<std::int64_t>(0, high),
                     start = std::clamp(starts[0] < 0 ? starts[0] + n : starts[0], first, high);
  const std::int64_t end = place(ends[0]);
  const std::int64_t size = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
  return rearranged(x, {std::max<std::int64_t>(size, 0)}, [&](std::int64_t i) { return start + i * step; });
}

Result unsqueeze(Context& c) {
  const Known& x = c.need(0);
  const auto axes = c.axes(1);
  if (!axes) return std::nullopt;
  const int rank = static_cast<int>(x.dims.size() + axes->size());
  std::vector<int> at;
  for (const std::int64_t a : *axes) at.push_back(c.axis(a, rank));
  std::sort(at.begin(), at.end());
  if (std::adjacent_find(at.begin(), at.end()) != at.end()) return std::nullopt;
  Dims dims = x.dims;
  for (const int a : at) dims.insert(dims.begin() + a, 1);
  return with_dims(x, std::move(dims));
}

Result squeeze(Context& c) {
  const Known& x = c.need(0);
  const auto axes = c.axes(1);
  const int rank = static_cast<int>(x.dims.size());
  Dims dims;
  std::vector<bool> drop(x.dims.size());
  if (axes)
    for (const std::int64_t a : *axes) drop[static_cast<std::size_t>(c.axis(a, rank))] = true;
  for (std::size_t i = 0; i < x.dims.size(); ++i)
    if (!(axes ? drop[i] : x.dims[i] == 1)) dims.push_back(x.dims[i]);
  return with_dims(x, std::move(dims));
}

Result reshape(Context& c) {
  const Known& x = c.need(0);
  if (c.opset() < 5 || !c.need(1).is_static()) return std::nullopt;
  Dims dims = c.need_ints(1);
  std::int64_t known = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 0 && c.attr("allowzero", 0) == 0) {
      if (i >= x.dims.size()) return std::nullopt;
      dims[i] = x.dims[i];
    }
    if (dims[i] >= 0 && __builtin_mul_overflow(known, dims[i], &known)) return std::nullopt;
  }
  const auto free = std::find(dims.begin(), dims.end(), -1);
  if (free != dims.end()) {
    if (known == 0) return std::nullopt;
    *free = x.numel() / known;
  }
  if (std::any_of(dims.begin(), dims.end(), [](std::int64_t d) { return d < 0; })) return std::nullopt;
  return with_dims(x, std::move(dims));
}

std::optional<Dims> static_list(const Known& k) {
  if (k.real() || !k.is_static() || k.dims.size() != 1) return std::nullopt;
  Dims dims;
  std::int64_t total = 1;
  for (const Dim& d : k.ints) {
    if (d.value() < 0 || __builtin_mul_overflow(total, std::max<std::int64_t>(d.value(), 1), &total))
      return std::nullopt;
    dims.push_back(d.value());
  }
  if (total > kMaxFolded) return std::nullopt;
  return dims;
}

Result expand(Context& c) {
  const Known& x = c.need(0);
  const auto target = static_list(c.need(1));
  if (!target) return std::nullopt;
  const auto dims = broadcast_dims(x.dims, *target);
  if (!dims) return std::nullopt;
  return rearranged(x, *dims, [&](std::int64_t i) { return broadcast_index(i, *dims, x.dims); });
}

Result constant_of_shape(Context& c) {
  const auto dims = static_list(c.need(0));
  if (!dims) return std::nullopt;
  const auto value = c.attr_tensor("value");
  const auto k = value ? Known::of(*value) : Known::scalar(DType::F32, 0);
  if (!k || k->numel() != 1) return std::nullopt;
  return rearranged(*k, *dims, [](std::int64_t) { return 0; });
}

Result range(Context& c) {
  const Known &start = c.need(0), &limit = c.need(1), &delta = c.need(2);
  if (start.dtype != limit.dtype || start.dtype != delta.dtype) return std::nullopt;
  if (!start.is_static() || !limit.is_static() || !delta.is_static() || start.numel() != 1 ||
      limit.numel() != 1 || delta.numel() != 1 || delta.at(0) == 0)
    return std::nullopt;
  const double size = std::max(std::ceil((limit.at(0) - start.at(0)) / delta.at(0)), 0.0);
  if (!(size <= static_cast<double>(kMaxFolded))) return std::nullopt;
  Known y(start.dtype, {static_cast<std::int64_t>(size)});
  for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
    if (y.real())
      y.reals[i] = start.at(0) + static_cast<double>(i) * delta.at(0);
    else
      y.ints[i] = start.ints[0] + Dim(static_cast<std::int64_t>(i)) * delta.ints[0];
  }
  return stored(std::move(y));
}

template <bool kProduct>
Result reduce_all(Context& c) {
  const Known& x = c.need(0);
  const auto axes = c.axes(1);
  if (x.real() || x.dims.size() != 1 || (axes && axes->empty() && c.attr("noop_with_empty_axes", 0) != 0))
    return std::nullopt;
  if (axes && !axes->empty() && (axes->size() != 1 || c.axis(axes->front(), 1) != 0)) return std::nullopt;
  Known y(x.dtype, c.attr("keepdims", 1) != 0 ? Dims{1} : Dims{});
  y.ints[0] = kProduct ? 1 : 0;
  for (const Dim& d : x.ints) y.ints[0] = kProduct ? y.ints[0] * d : y.ints[0] + d;
  return stored(std::move(y));
}

Result identity(Context& c) { return c.need(0); }

constexpr int kAll = -1;
struct Entry {
  Fold fold;
  int known = kAll;  // how many of the first inputs must be known
};

double fmin2(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b); }
double fmax2(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b); }

const std::map<std::string, Entry, std::less<>>& table() {
  static const std::map<std::string, Entry, std::less<>> entries = {
      {"Shape", {shape_of, 0}},
      {"Size", {size_of, 0}},
      {"Add", {binary<add_ints, [](double a, double b) { return a + b; }>}},
      {"Sub", {binary<sub_ints, [](double a, double b) { return a - b; }>}},
      {"Mul", {binary<mul_ints, [](double a, double b) { return a * b; }>}},
      {"Div", {binary<div_ints, [](double a, double b) { return a / b; }>}},
      {"Mod", {[](Context& c) {
         return c.need(0).real() || c.attr("fmod", 0) != 0 ? Result() : binary<mod_ints, fmin2>(c);
       }}},
      {"Pow", {binary<pow_ints, [](double a, double b) { return std::pow(a, b); }>}},
      {"Min", {[](Context& c) { return c.inputs() == 2 ? binary<min_ints, fmin2>(c) : Result(); }}},
      {"Max", {[](Context& c) { return c.inputs() == 2 ? binary<max_ints, fmax2>(c) : Result(); }}},
      {"Equal", {comparison<0, 0>}},
      {"Less", {comparison<-1, -1>}},
      {"LessOrEqual", {comparison<-1, 0>}},
      {"Greater", {comparison<1, 1>}},
      {"GreaterOrEqual", {comparison<0, 1>}},
      {"And", {[](Context& c) { return binary<mul_ints, fmin2>(c); }}},
      {"Or", {[](Context& c) { return binary<max_ints, fmax2>(c); }}},
      {"Not", {logical_not}},
      {"Neg", {neg}},
      {"Floor", {[](Context& c) { return unary(c, [](double v) { return std::floor(v); }); }}},
      {"Ceil", {[](Context& c) { return unary(c, [](double v) { return std::ceil(v); }); }}},
      {"Relu",
       {[](Context& c) { return unary(c, [](double v) { return std::isnan(v) ? v : std::max(v, 0.0); }); }}},
      {"Abs", {[](Context& c) { return unary(c, [](double v) { return std::abs(v); }); }}},
      {"Reciprocal", {[](Context& c) { return unary(c, [](double v) { return 1 / v; }); }}},
      {"Sqrt", {[](Context& c) { return unary(c, [](double v) { return std::sqrt(v); }); }}},
      {"Cast", {[](Context& c) { return cast_to(c, c.attr_dtype("to", DType::F32)); }}},
      {"CastLike", {[](Context& c) { return cast_to(c, c.dtype(1)); }, 1}},
      {"Where", {where}},
      {"Concat", {concat}},
      {"Gather", {gather}},
      {"Slice", {slice}},
      {"Unsqueeze", {unsqueeze}},
      {"Squeeze", {squeeze}},
      {"Reshape", {reshape}},
      {"Expand", {expand}},
      {"ConstantOfShape", {constant_of_shape}},
      {"Range", {range}},
      {"ReduceProd", {reduce_all<true>}},
      {"ReduceSum", {reduce_all<false>}},
      {"Identity", {identity}},
  };
  return entries;
}

}  // namespace

std::optional<Known> fold(Context& c) {
  const auto it = table().find(c.type());
  if (it == table().end() || !c.has(0)) return std::nullopt;
  const int known = it->second.known == kAll ? c.inputs() : std::min(it->second.known, c.inputs());
  if (c.item(0).kind != Item::Kind::Tensor) return std::nullopt;
  for (int i = 0; i < known; ++i) {
    if (!c.has(i)) continue;
    if (c.item(i).kind != Item::Kind::Tensor) return std::nullopt;
    const Known* k = c.known(i);
    if (!k || k->numel() > kMaxFolded) return std::nullopt;
  }
  try {
    return it->second.fold(c);
  } catch (const Error&) {
    return std::nullopt;  // an overflow, or what the translator says better
  }
}

}  // namespace deepseek::onnx_import
