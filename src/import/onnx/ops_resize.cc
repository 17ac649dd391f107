// Resize and Upsample: one axis after another, each as a weighted sum of a few taps whose places and weights are
// worked out here.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

constexpr std::int64_t kMaxExtent = 1 << 20;  // of a resized axis

constexpr double kMaxTaps = 2048;  // on either side of a point

struct Settings {
  std::string mode = "nearest", coordinates = "half_pixel", nearest = "round_prefer_floor";
  double cubic_a = -0.75, extrapolation = 0;
  bool exclude_outside = false, antialias = false;
};

// One axis: result coordinate o reads elements index[t][o] with weights[t][o].
struct Taps {
  std::vector<Ints> index;
  std::vector<std::vector<double>> weight;
  std::vector<bool> outside;  // takes the extrapolation value instead
};

struct AxisScale {
  std::int64_t in, out;
  double scale, roi_start = 0, roi_end = 1;
};

double source_coordinate(Context& c, const Settings& s, const AxisScale& a, double o) {
  const double in = static_cast<double>(a.in), width = a.scale * in;
  if (s.coordinates == "asymmetric") return o / a.scale;
  if (s.coordinates == "half_pixel") return (o + 0.5) / a.scale - 0.5;
  if (s.coordinates == "pytorch_half_pixel") return width == 1 ? -0.5 : (o + 0.5) / a.scale - 0.5;
  if (s.coordinates == "align_corners") return width == 1 ? 0 : o * (in - 1) / (width - 1);
  if (s.coordinates == "tf_half_pixel_for_nn") return (o + 0.5) / a.scale;
  if (s.coordinates == "half_pixel_symmetric")
    return in / 2 * (1 - static_cast<double>(a.out) / width) + (o + 0.5) / a.scale - 0.5;
  if (s.coordinates == "tf_crop_and_resize") {
    const double span = (a.roi_end - a.roi_start) * (in - 1);
    return (width == 1 ? span / 2 : o * span / (width - 1)) + a.roi_start * (in - 1);
  }
  c.bad("a coordinate_transformation_mode of ONNX", "'" + s.coordinates + "'");
}

double cubic(double x, double a) {
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

// Weights of the elements base + first ... for a point `ratio` in (0, 1] after base.
std::vector<double> tap_weights(Context& c, const Settings& s, double scale, double ratio,
                                std::int64_t& first) {
  std::vector<double> w;
  if (s.mode == "nearest") {
    first = 0;
    bool upper = ratio == 1;  // on an element exactly
    if (!upper) {
      if (s.nearest == "round_prefer_floor")
        upper = ratio > 0.5;
      else if (s.nearest == "round_prefer_ceil")
        upper = ratio >= 0.5;
      else if (s.nearest == "ceil")
        upper = true;
      else if (s.nearest != "floor")
        c.bad("a nearest_mode of ONNX", "'" + s.nearest + "'");
    }
    return upper ? std::vector<double>{0, 1} : std::vector<double>{1, 0};
  }
  const bool linear = s.mode == "linear";
  const double reach = linear ? 1 : 2;
  const double shrink = s.antialias ? std::min(scale, 1.0) : 1.0;
  if (!(reach / shrink < kMaxTaps))
    c.unsupported("a scale that reads at most 4096 elements", std::to_string(scale));
  first = static_cast<std::int64_t>(std::floor(-reach / shrink)) + 1;
  const std::int64_t last = 1 - first;
  for (std::int64_t i = first; i <= last; ++i) {
    const double x = shrink * (static_cast<double>(i) - ratio);
    w.push_back(linear ? std::max(1 - std::abs(x), 0.0) : cubic(x, s.cubic_a));
  }
  if (s.antialias) {
    const double total = std::accumulate(w.begin(), w.end(), 0.0);
    for (double& v : w) v /= total;
  }
  return w;
}

Taps taps_of(Context& c, const Settings& s, const AxisScale& a) {
  Taps taps;
  for (std::int64_t o = 0; o < a.out; ++o) {
    const double x = source_coordinate(c, s, a, static_cast<double>(o));
    if (!(std::abs(x) < 1e12)) c.bad("source coordinates that fit", std::to_string(x));
    const bool whole = x == std::floor(x);
    const auto base = static_cast<std::int64_t>(std::floor(x)) - (whole ? 1 : 0);
    std::int64_t first = 0;
    std::vector<double> w = tap_weights(c, s, a.scale, whole ? 1 : x - std::floor(x), first);
    if (taps.index.empty()) {
      c.importer().count_nodes(w.size());
      c.importer().count_elements(a.out, 8 * static_cast<std::int64_t>(w.size()));
      taps.index.resize(w.size());
      taps.weight.resize(w.size());
    }
    double total = 0;
    for (std::size_t t = 0; t < w.size(); ++t) {
      const std::int64_t at = base + first + static_cast<std::int64_t>(t);
      if (s.exclude_outside && (at < 0 || at >= a.in)) w[t] = 0;
      total += w[t];
      taps.index[t].push_back(std::clamp<std::int64_t>(at, 0, a.in - 1));
    }
    for (std::size_t t = 0; t < w.size(); ++t)
      taps.weight[t].push_back(s.exclude_outside ? w[t] / total : w[t]);
    taps.outside.push_back(s.coordinates == "tf_crop_and_resize" &&
                           (x < 0 || x > static_cast<double>(a.in - 1)));
  }
  return taps;
}

// Along one axis. Few taps: gathers; many (antialiasing): a product with a matrix of weights.
Value resize_axis(Context& c, const Settings& s, Value x, int axis, const AxisScale& a) {
  Emit& e = c.e;
  if (a.in == 0 || a.out == 0) {
    Shape shape = x.shape();
    shape[static_cast<std::size_t>(axis)] = a.out;
    return e.full(shape, 0, x.dtype());
  }
  const Taps taps = taps_of(c, s, a);
  Value y;
  if (s.mode == "nearest") {
    Ints index;
    for (std::size_t o = 0; o < taps.index[0].size(); ++o)
      index.push_back(taps.index[taps.weight[1][o] != 0 ? 1 : 0][o]);
    y = e.gather(x, e.ints(index), axis);
  } else if (taps.index.size() <= 4) {
    for (std::size_t t = 0; t < taps.index.size(); ++t) {
      const Value part = e.mul(e.gather(x, e.ints(taps.index[t]), axis),
                               e.along_axis(e.floats(taps.weight[t], x.dtype()), axis, x.rank()));
      y = y ? e.add(y, part) : part;
    }
  } else {
    c.importer().count_elements(a.in, a.out);
    Tensor matrix = Tensor::zeros(x.dtype(), {a.in, a.out});
    for (std::size_t t = 0; t < taps.index.size(); ++t)
      for (std::size_t o = 0; o < taps.index[t].size(); ++o) {
        const std::int64_t at = taps.index[t][o] * a.out + static_cast<std::int64_t>(o);
        matrix.set(at, matrix.at(at) + taps.weight[t][o]);
      }
    Ints perm = axes_range(0, x.rank());
    std::swap(perm[static_cast<std::size_t>(axis)], perm.back());
    y = e.permute(e.matmul(e.permute(x, perm), e.constant(matrix)), perm);
  }
  if (std::find(taps.outside.begin(), taps.outside.end(), true) != taps.outside.end()) {
    Tensor outside(DType::Bool, {a.out});
    for (std::size_t o = 0; o < taps.outside.size(); ++o)
      outside.set(static_cast<std::int64_t>(o), taps.outside[o]);
    y = e.select(e.along_axis(e.constant(outside), axis, x.rank()), s.extrapolation, y);
  }
  return y;
}

// Doubling and the like of an axis whose size is not known: each element repeated.
Value repeat_axis(Emit& e, Value x, int axis, std::int64_t times) {
  Shape apart = x.shape(), joined = x.shape();
  apart.insert(apart.begin() + axis + 1, Dim(times));
  joined[static_cast<std::size_t>(axis)] = joined[static_cast<std::size_t>(axis)] * Dim(times);
  return e.reshape(e.broadcast_to(e.unsqueeze(x, axis + 1), apart), joined);
}

void resize(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  Settings s;
  const bool old = c.opset() < 11;  // Upsample, and Resize of opset 10
  s.mode = c.attr_s("mode", "nearest");
  s.coordinates = old ? "asymmetric" : c.attr_s("coordinate_transformation_mode", "half_pixel");
  s.nearest = old ? "floor" : c.attr_s("nearest_mode", "round_prefer_floor");
  s.cubic_a = c.attr_f("cubic_coeff_a", -0.75);
  s.extrapolation = c.attr_f("extrapolation_value", 0);
  s.exclude_outside = c.attr("exclude_outside", 0) != 0;
  s.antialias = c.attr("antialias", 0) != 0;
  if (s.mode != "nearest" && s.mode != "linear" && s.mode != "cubic")
    c.bad("mode nearest, linear or cubic", "'" + s.mode + "'");
  Ints axes = axes_range(0, x.rank());
  if (c.has_attr("axes")) {
    axes = c.attr_ints("axes");
    for (auto& a : axes) a = c.axis(a, x.rank());
  }
  const auto present = [&](int i) { return c.has(i) && !(numel(c.shape(i)) == Dim(0)); };
  const int scale_input = old ? 1 : 2;
  std::vector<double> scales, roi;
  Shape sizes;
  if (c.has_attr("scales"))
    scales = c.attr_floats("scales");  // Upsample before opset 9
  else if (present(scale_input))
    scales = c.need_reals(scale_input);
  if (!old && present(3)) sizes = c.need_dims(3);
  if (s.coordinates == "tf_crop_and_resize") roi = c.need_reals(1);
  if ((scales.empty() ? sizes.size() : scales.size()) != axes.size() ||
      (!roi.empty() && roi.size() != 2 * axes.size()))
    c.bad("scales or sizes for " + std::to_string(axes.size()) + " axes",
          std::to_string(scales.size()) + " and " + std::to_string(sizes.size()));
  const std::string policy = c.attr_s("keep_aspect_ratio_policy", "stretch");
  double common = 0;
  if (!sizes.empty() && scales.empty() && policy != "stretch")
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const Dim &in = x.dim(static_cast<int>(axes[i])), &out = sizes[i];
      for (const Dim* d : {&in, &out})
        if (!d->is_static()) c.ask_for("static sizes with a keep_aspect_ratio_policy", *d);
      const double ratio = static_cast<double>(out.value()) / static_cast<double>(in.value());
      common = i == 0 ? ratio : policy == "not_larger" ? std::min(common, ratio) : std::max(common, ratio);
    }
  Value y = x;
  const bool real = is_float(x.dtype());
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const int axis = static_cast<int>(axes[i]);
    const Dim in = x.dim(axis);
    if (scales.empty() ? sizes[i] == in && s.coordinates != "tf_crop_and_resize"
                       : scales[i] == 1 && roi.empty())
      continue;
    if (!in.is_static() && !scales.empty() && s.mode == "nearest" && scales[i] == std::floor(scales[i]) &&
        scales[i] >= 1 && scales[i] <= static_cast<double>(kMaxExtent) &&
        (s.coordinates == "half_pixel" || (s.coordinates == "asymmetric" && s.nearest == "floor"))) {
      y = repeat_axis(e, y, axis, static_cast<std::int64_t>(scales[i]));
      continue;
    }
    if (!in.is_static()) c.ask_for("a static size on axis " + std::to_string(axis), in);
    if (scales.empty() && !sizes[i].is_static())
      c.ask_for("a static size on axis " + std::to_string(axis), sizes[i]);
    AxisScale a{in.value(), 0, 0};
    if (!scales.empty()) {
      a.scale = scales[i];
      if (!(a.scale > 0) || !(a.scale * static_cast<double>(a.in) <= static_cast<double>(kMaxExtent)))
        c.bad("positive scales that fit", std::to_string(a.scale));
      a.out = static_cast<std::int64_t>(std::floor(static_cast<double>(a.in) * a.scale));
    } else {
      if (common > 0 && !(static_cast<double>(a.in) * common <= static_cast<double>(kMaxExtent)))
        c.bad("sizes that fit", std::to_string(common));
      a.out = common > 0 ? static_cast<std::int64_t>(std::floor(static_cast<double>(a.in) * common + 0.5))
                         : sizes[i].value();
      a.scale = common > 0 ? common : static_cast<double>(a.out) / static_cast<double>(a.in);
      if (a.out < 0 || a.out > kMaxExtent) c.bad("sizes that fit", std::to_string(a.out));
    }
    if (!roi.empty()) {
      a.roi_start = roi[i];
      a.roi_end = roi[i + axes.size()];
    }
    if (!real && s.mode != "nearest") y = e.cast(y, DType::F32);
    y = resize_axis(c, s, y, axis, a);
  }
  c.out(e.cast(y, x.dtype()));
}

// The middle of x, or x in the middle of zeros.
void center_crop_pad(Context& c) {
  const Value x = c.in(0);
  const Shape target = c.need_dims(1);
  Ints axes = c.has_attr("axes") ? c.attr_ints("axes") : axes_range(0, x.rank());
  if (axes.size() != target.size()) c.bad(std::to_string(axes.size()) + " sizes", str(target));
  Shape low(static_cast<std::size_t>(x.rank()), Dim(0)), high = low;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto a = static_cast<std::size_t>(c.axis(axes[i], x.rank()));
    const Dim more = target[i] - x.shape()[a];
    if (!more.is_static()) c.ask_for("static sizes", more);
    // The odd element goes to the end, of a crop as of a pad.
    low[a] = more.value() / 2;
    high[a] = more.value() - more.value() / 2;
  }
  c.out(c.e.pad(x, low, high));
}

}  // namespace

void add_resize(Translators& t) {
  t.add("Resize", resize);
  t.add("Upsample", resize);
  t.add("CenterCropPad", center_crop_pad);
}

}  // namespace deepseek::onnx_import
