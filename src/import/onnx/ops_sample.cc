// Sampling at computed places: GridSample, AffineGrid, RoiAlign, DeformConv, Col2Im.
#include <algorithm>

#include "import/onnx/window.h"

namespace deepseek::onnx_import {

namespace {

constexpr std::int64_t kMaxTaps = 4096;       // of Col2Im and DeformConv
constexpr std::int64_t kMaxRegion = 1 << 16;  // of RoiAlign's result, by dim

enum class Outside : std::uint8_t { Zeros, Border, Reflection };

// Elements of x [N, C, spatial...] at whole coordinates (floats, one Value [N, P] per spatial dim): [N, C, P].
class Sampler {
 public:
  Sampler(Emit& e, Value x, Outside outside, bool align_corners)
      : e_(e), outside_(outside), align_(align_corners), dims_(x.shape().begin() + 2, x.shape().end()) {
    flat_ = e.reshape(x, {x.dim(0), x.dim(1), numel(dims_)});
  }

  Value size(std::size_t d, DType t) { return e_.dim(dims_[d], t); }
  std::size_t rank() const { return dims_.size(); }

  // The coordinate moved to where the padding mode reads it.
  Value folded(Value at, std::size_t d) {
    const Value n = size(d, at.dtype());
    if (outside_ == Outside::Border) return e_.op("clamp", {at, e_.like(0, at), e_.sub(n, 1)});
    if (outside_ == Outside::Zeros) return at;
    const double low = align_ ? 0 : -0.5;
    const Value span = align_ ? e_.sub(n, 1) : n;
    const Value phase = e_.op("mod", {e_.sub(at, low), e_.mul(span, 2)});
    return e_.add(e_.minimum(phase, e_.sub(e_.mul(span, 2), phase)), low);
  }

  Value at(const std::vector<Value>& coordinates) {
    Value index, inside;
    for (std::size_t d = 0; d < coordinates.size(); ++d) {
      const Value place = e_.cast(folded(coordinates[d], d), DType::I64);
      const Value last = e_.sub(size(d, DType::I64), 1);
      const Value safe = e_.op("clamp", {place, e_.scalar(0, DType::I64), last});
      if (outside_ == Outside::Zeros) {
        const Value in = e_.equal(place, safe);
        inside = inside ? e_.logical_and(inside, in) : in;
      }
      index = index ? e_.add(e_.mul(index, size(d, DType::I64)), safe) : safe;
    }
    const Value spread = e_.broadcast_to(e_.unsqueeze(index, 1), {flat_.dim(0), flat_.dim(1), index.dim(1)});
    const Value y = e_.op("gather_elements", {flat_, spread}, {{"axis", std::int64_t{2}}});
    return inside ? e_.select(e_.unsqueeze(inside, 1), y, 0) : y;
  }

  // Sums over the taps of every dim: offsets[d] and weights[d] hold one Value [N, P] per tap.
  Value blend(const std::vector<std::vector<Value>>& places, const std::vector<std::vector<Value>>& weights) {
    std::vector<Value> chosen(rank());
    return blend(places, weights, chosen, Value(), 0);
  }

 private:
  Value blend(const std::vector<std::vector<Value>>& places, const std::vector<std::vector<Value>>& weights,
              std::vector<Value>& chosen, Value weight, std::size_t d) {
    if (d == rank()) {
      const Value y = at(chosen);
      return e_.mul(y, e_.cast(e_.unsqueeze(weight, 1), y.dtype()));
    }
    Value total;
    for (std::size_t t = 0; t < places[d].size(); ++t) {
      chosen[d] = places[d][t];
      const Value part =
          blend(places, weights, chosen, weight ? e_.mul(weight, weights[d][t]) : weights[d][t], d + 1);
      total = total ? e_.add(total, part) : part;
    }
    return total;
  }

  Emit& e_;
  Outside outside_;
  bool align_;
  Shape dims_;
  Value flat_;
};

struct AxisTaps {
  std::vector<Value> places, weights;
};

AxisTaps linear_taps(Emit& e, Value at) {
  const Value base = e.floor(at), ratio = e.sub(at, base);
  return {{base, e.add(base, 1)}, {e.sub(1, ratio), ratio}};
}

// Keys' cubic convolution.
AxisTaps cubic_taps(Emit& e, Value at) {
  constexpr double a = -0.75;
  const Value base = e.floor(at), x = e.sub(at, base), rest = e.sub(1, x);
  const auto near = [&](Value v) {  // ((a + 2) v - (a + 3)) v^2 + 1
    return e.add(e.mul(e.mul(e.sub(e.mul(v, a + 2), a + 3), v), v), 1);
  };
  const auto far = [&](Value v) {  // ((a v - 5a) v + 8a) v - 4a at 1 + v
    const Value u = e.add(v, 1);
    return e.sub(e.mul(e.add(e.mul(e.sub(e.mul(u, a), 5 * a), u), 8 * a), u), 4 * a);
  };
  return {{e.sub(base, 1), base, e.add(base, 1), e.add(base, 2)}, {far(x), near(x), near(rest), far(rest)}};
}

void grid_sample(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), grid = c.in(1);
  const int dims = x.rank() - 2;
  if (dims < 1 || dims > 3 || grid.rank() != dims + 2 || !(grid.dim(-1) == Dim(dims)))
    c.bad("an input [N, C, 1 to 3 dims] and its grid", str(x.type()) + " and " + str(grid.type()));
  const bool align = c.attr("align_corners", 0) != 0;
  std::string mode = c.attr_s("mode", c.opset() < 20 ? "bilinear" : "linear");
  if (mode == "bilinear") mode = "linear";
  if (mode == "bicubic") mode = "cubic";
  const std::string padding = c.attr_s("padding_mode", "zeros");
  if (padding != "zeros" && padding != "border" && padding != "reflection")
    c.bad("padding_mode zeros, border or reflection", "'" + padding + "'");
  const Outside outside = padding == "zeros"    ? Outside::Zeros
                          : padding == "border" ? Outside::Border
                                                : Outside::Reflection;
  Sampler sampler(e, x, outside, align);
  Shape points(grid.shape().begin() + 1, grid.shape().end() - 1);
  const Value flat = e.reshape(e.widen(grid), {grid.dim(0), numel(points), dims});
  std::vector<Value> at;
  for (int d = 0; d < dims; ++d) {
    // The grid's last axis counts dims from the end.
    const Value g = e.squeeze(e.slice_axis(flat, 2, dims - 1 - d, dims - d), 2);
    const Value n = sampler.size(static_cast<std::size_t>(d), g.dtype());
    const Value unit = e.add(g, 1);
    Value v = align ? e.mul(e.mul(unit, 0.5), e.sub(n, 1)) : e.mul(e.sub(e.mul(unit, n), 1), 0.5);
    if (mode == "nearest") v = e.round(v);
    at.push_back(sampler.folded(v, static_cast<std::size_t>(d)));
  }
  Value y;
  if (mode == "nearest") {
    y = sampler.at(at);
  } else if (mode == "linear" || mode == "cubic") {
    std::vector<std::vector<Value>> places, weights;
    for (const Value& v : at) {
      const AxisTaps taps = mode == "linear" ? linear_taps(e, v) : cubic_taps(e, v);
      places.push_back(taps.places);
      weights.push_back(taps.weights);
    }
    y = sampler.blend(places, weights);
  } else {
    c.bad("mode nearest, linear or cubic", "'" + mode + "'");
  }
  Shape shape{x.dim(0), x.dim(1)};
  shape.insert(shape.end(), points.begin(), points.end());
  c.out(e.reshape(y, shape));
}

// theta [N, k, k + 1] applied to every point of a regular grid in [-1, 1].
void affine_grid(Context& c) {
  Emit& e = c.e;
  const Value theta = c.in(0);
  const Shape size = c.need_dims(1);
  const bool align = c.attr("align_corners", 0) != 0;
  if (size.size() != 4 && size.size() != 5) c.bad("a size of 4 or 5 dims", str(size));
  const int k = static_cast<int>(size.size()) - 2;
  const Shape points(size.begin() + 2, size.end());
  std::vector<Value> rows;
  for (int d = k; d-- > 0;) {  // the last dim is x
    const Value i = e.iota(points, theta.dtype(), d);
    const Value n = e.dim(points[static_cast<std::size_t>(d)], theta.dtype());
    const Value v =
        align ? e.sub(e.div(e.mul(i, 2), e.sub(n, 1)), 1) : e.sub(e.div(e.add(e.mul(i, 2), 1), n), 1);
    rows.push_back(e.reshape(v, {1, numel(points)}));
  }
  rows.push_back(e.full({1, numel(points)}, 1, theta.dtype()));
  const Value y = e.swap_last_two(e.matmul(theta, e.concat(rows, 0)));
  Shape shape{theta.dim(0)};
  shape.insert(shape.end(), points.begin(), points.end());
  shape.emplace_back(k);
  c.out(e.reshape(y, shape));
}

void roi_align(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), rois = c.in(1);
  const std::int64_t height = c.attr("output_height", 1), width = c.attr("output_width", 1);
  const std::int64_t samples = c.attr("sampling_ratio", 0);
  const double scale = c.attr_f("spatial_scale", 1);
  const std::string mode = c.attr_s("mode", "avg");
  const bool half = c.attr_s("coordinate_transformation_mode",
                             c.opset() < 16 ? "output_half_pixel" : "half_pixel") == "half_pixel";
  if (x.rank() != 4 || rois.rank() != 2 || c.in(2).rank() != 1)
    c.bad("an image [N, C, H, W], rois [n, 4] and batch_indices [n]",
          str(x.type()) + ", " + str(rois.type()) + " and " + str(c.in(2).type()));
  if (samples < 1 || samples > 64) c.unsupported("sampling_ratio from 1 to 64", std::to_string(samples));
  if (height < 1 || width < 1 || height > kMaxRegion || width > kMaxRegion)
    c.bad("an output of at least 1 x 1 that fits", std::to_string(height) + " x " + std::to_string(width));
  if (mode != "avg" && mode != "max") c.bad("mode avg or max", "'" + mode + "'");
  const Value image = e.gather(x, c.in(2), 0);  // [n, C, H, W]: each roi with its image
  const Dim n = rois.dim(0);
  const std::int64_t grid_h = height * samples, grid_w = width * samples, points = grid_h * grid_w;
  const auto corner = [&](int i) {
    return e.sub(e.mul(e.slice_axis(rois, 1, i, i + 1), scale), half ? 0.5 : 0.0);
  };
  // Place of sample i of `count` bins' samples along one dim, [n, count * samples].
  const auto line = [&](int first, std::int64_t bins) {
    const Value start = corner(first);
    Value extent = e.sub(corner(first + 2), start);
    if (!half) extent = e.maximum(extent, 1);
    const Value step = e.div(extent, static_cast<double>(bins * samples));
    return e.add(start, e.mul(e.add(e.iota({1, bins * samples}, rois.dtype(), 1), 0.5), step));
  };
  const Value rows =
      e.reshape(e.broadcast_to(e.unsqueeze(line(1, height), 2), {n, grid_h, grid_w}), {n, points});
  const Value columns =
      e.reshape(e.broadcast_to(e.unsqueeze(line(0, width), 1), {n, grid_h, grid_w}), {n, points});
  const auto valid = [&](Value v, const Dim& size) {
    return e.logical_and(e.less_equal(-1, v), e.less_equal(v, e.dim(size, v.dtype())));
  };
  const auto inside = [&](Value v, const Dim& size) {
    return e.op("clamp", {v, e.like(0, v), e.dim(size - 1, v.dtype())});
  };
  const Value seen = e.logical_and(valid(rows, x.dim(2)), valid(columns, x.dim(3)));
  Sampler sampler(e, image, Outside::Border, true);
  const AxisTaps h = linear_taps(e, inside(rows, x.dim(2))), w = linear_taps(e, inside(columns, x.dim(3)));
  const Shape apart{n, x.dim(1), height, samples, width, samples};
  if (mode == "avg") {
    const Value y =
        e.select(e.unsqueeze(seen, 1), sampler.blend({h.places, w.places}, {h.weights, w.weights}), 0);
    return c.out(e.mean(e.reshape(y, apart), {3, 5}, false));
  }
  // The largest of the weighted corners, as ONNX has it.
  Value top;
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t k = 0; k < 2; ++k) {
      const Value weight = e.mul(h.weights[i], w.weights[k]);
      const Value part = e.mul(sampler.at({h.places[i], w.places[k]}), e.unsqueeze(weight, 1));
      top = top ? e.maximum(top, part) : part;
    }
  c.out(e.max(e.reshape(e.select(e.unsqueeze(seen, 1), top, 0), apart), {3, 5}, false));
}

// Convolution whose taps are displaced by offsets [N, groups * kh * kw * 2, oh, ow] and weighted by a mask.
void deform_conv(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), w = c.in(1), offset = c.in(2);
  if (x.rank() != 4 || w.rank() != 4 || offset.rank() != 4)
    c.unsupported("images and kernels of two dims", str(x.type()));
  const Windows v = read_windows(c, x, Shape(w.shape().begin() + 2, w.shape().end()));
  const std::int64_t groups = c.attr("group", 1), offset_groups = c.attr("offset_group", 1),
                     taps = v.taps[0] * v.taps[1];
  if (groups < 1 || offset_groups < 1) c.bad("positive groups", std::to_string(groups));
  if (taps > kMaxTaps) c.unsupported("at most 4096 taps", std::to_string(taps));
  const Dim n = x.dim(0), oh = offset.dim(2), ow = offset.dim(3), points = Dim(taps) * oh * ow;
  const Shape by_tap{n * Dim(offset_groups), taps, oh, ow};
  const Value split = e.reshape(offset, {n * Dim(offset_groups), taps, 2, oh, ow});
  const auto places = [&](int d) {
    // Tap k of kernel dim d stands at k * dilation + o * stride - low.
    const Value moved = e.squeeze(e.slice_axis(split, 2, d, d + 1), 2);
    const Shape grid{v.taps[0], v.taps[1], oh, ow};
    const Value tap =
        e.mul(e.iota(grid, x.dtype(), d), static_cast<double>(v.dilations[static_cast<std::size_t>(d)]));
    const Value place =
        e.mul(e.iota(grid, x.dtype(), d + 2), static_cast<double>(v.strides[static_cast<std::size_t>(d)]));
    const Value base = e.sub(e.add(tap, place), static_cast<double>(v.low[static_cast<std::size_t>(d)]));
    return e.reshape(e.add(moved, e.reshape(base, {1, taps, oh, ow})), {n * Dim(offset_groups), points});
  };
  const Dim per_group = floordiv(x.dim(1), Dim(offset_groups));
  Sampler sampler(e, e.reshape(x, {n * Dim(offset_groups), per_group, x.dim(2), x.dim(3)}), Outside::Zeros,
                  true);
  const AxisTaps h = linear_taps(e, places(0)), k = linear_taps(e, places(1));
  Value columns =
      sampler.blend({h.places, k.places}, {h.weights, k.weights});  // [N * og, C / og, taps * oh * ow]
  if (c.has(4)) columns = e.mul(columns, e.reshape(c.in(4), {n * Dim(offset_groups), 1, points}));
  const Dim channels = floordiv(x.dim(1), Dim(groups)), outputs = floordiv(w.dim(0), Dim(groups));
  columns = e.reshape(columns, {n, groups, channels * Dim(taps), oh * ow});
  const Value kernel = e.reshape(w, {1, groups, outputs, channels * Dim(taps)});
  Value y = e.reshape(e.matmul(kernel, columns), {n, w.dim(0), oh, ow});
  if (c.has(3)) y = e.add(y, e.along_axis(c.in(3), 1, 4));
  c.out(y);
}

// Each tap's columns spread out by the stride and put where the tap stands.
void col2im(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const Ints image = c.need_ints(1), block = c.need_ints(2);
  const std::size_t n = image.size();
  if (x.rank() != 3 || block.size() != n || n == 0)
    c.bad("columns [N, C * taps, L] and a block per dim", str(x.type()));
  const Ints dilations = spatial_list(c, "dilations", Ints(n, 1)),
             strides = spatial_list(c, "strides", Ints(n, 1));
  const Ints pads = spatial_list(c, "pads", Ints(2 * n, 0));
  std::int64_t taps = 1;
  Shape counts;
  for (std::size_t i = 0; i < n; ++i) {
    if (block[i] < 1 || strides[i] < 1 || image[i] < 0 || image[i] > kMaxDim ||
        __builtin_mul_overflow(taps, block[i], &taps))
      c.bad("positive blocks and strides, and an image that fits", str(block));
    if (taps > kMaxTaps) c.unsupported("at most 4096 taps", std::to_string(taps));
    counts.emplace_back((image[i] + pads[i] + pads[i + n] - dilations[i] * (block[i] - 1) - 1) / strides[i] +
                        1);
  }
  c.importer().count_nodes(static_cast<std::size_t>(taps) * 4);
  const Dim channels = floordiv(x.dim(1), Dim(taps));
  Shape apart{x.dim(0), channels, taps};
  apart.insert(apart.end(), counts.begin(), counts.end());
  const Value columns = e.reshape(x, apart);
  Value total;
  for (std::int64_t t = 0; t < taps; ++t) {
    const Value part = e.squeeze(e.slice_axis(columns, 2, t, t + 1), 2);
    Shape low(2, Dim(0)), high(2, Dim(0));
    Ints inner(2, 0);
    std::int64_t rest = t, volume = taps;
    for (std::size_t i = 0; i < n; ++i) {
      volume /= block[i];
      const std::int64_t k = rest / volume;
      rest %= volume;
      const std::int64_t first = k * dilations[i] - pads[i];
      const std::int64_t extent = (counts[i].value() - 1) * strides[i] + 1;
      low.emplace_back(first);
      high.emplace_back(image[i] - first - extent);
      inner.push_back(strides[i] - 1);
    }
    const Value placed = e.op("pad", {part}, {{"low", low}, {"high", high}, {"inner", inner}});
    total = total ? e.add(total, placed) : placed;
  }
  c.out(total);
}

}  // namespace

void add_sample(Translators& t) {
  t.add("GridSample", grid_sample);
  t.add("AffineGrid", affine_grid);
  t.add("RoiAlign", roi_align);
  t.add("DeformConv", deform_conv);
  t.add("Col2Im", col2im);
}

}  // namespace deepseek::onnx_import
