// Matrix products, convolutions and normalisations.
#include <algorithm>

#include "import/onnx/window.h"

namespace deepseek::onnx_import {

namespace {

void matmul(Context& c) { c.out(c.e.matmul(c.in(0), c.in(1))); }

void gemm(Context& c) {
  const Value a = c.in(0), b = c.in(1);
  if (a.rank() != 2 || b.rank() != 2) c.bad("two matrices", str(a.type()) + " and " + str(b.type()));
  c.out(c.e.op("gemm", {a, b, c.in_or(2, {})},
               {{"alpha", c.attr_f("alpha", 1)},
                {"beta", c.attr_f("beta", 1)},
                {"transpose_a", c.attr("transA", 0) != 0},
                {"transpose_b", c.attr("transB", 0) != 0}}));
}

}  // namespace

Value convolve(Context& c, Value x, Value w, Value bias) {
  if (x.rank() < 3 || w.rank() != x.rank())
    c.bad("an input and a kernel of one rank, 3 or more", str(x.type()) + " and " + str(w.type()));
  const Windows v = read_windows(c, x, Shape(w.shape().begin() + 2, w.shape().end()));
  const Value y = c.e.op("conv", {x, w},
                         {{"strides", v.strides},
                          {"pad_low", v.low},
                          {"pad_high", v.high},
                          {"kernel_dilation", v.dilations},
                          {"feature_groups", c.attr("group", 1)}});
  return bias ? c.e.add(y, c.e.along_axis(bias, 1, y.rank())) : y;
}

namespace {

void conv(Context& c) { c.out(convolve(c, c.in(0), c.in(1), c.in_or(2, {}))); }

// W [C, M/groups, k...] as the kernel [M, C/groups, k...] of the convolution that goes backwards.
Value transposed_kernel(Context& c, Value w, std::int64_t groups) {
  Emit& e = c.e;
  Shape split = w.shape();
  split[0] = floordiv(split[0], Dim(groups));
  split.insert(split.begin(), Dim(groups));
  Ints perm = axes_range(0, static_cast<int>(split.size()));
  std::swap(perm[1], perm[2]);
  Shape joined{w.dim(1) * Dim(groups), split[1]};
  joined.insert(joined.end(), w.shape().begin() + 2, w.shape().end());
  return e.reverse(e.reshape(e.transpose(e.reshape(w, split), perm), joined), axes_range(2, w.rank()));
}

void conv_transpose(Context& c) {
  const Value x = c.in(0), w = c.in(1);
  const std::int64_t groups = c.attr("group", 1);
  if (x.rank() < 3 || w.rank() != x.rank() || groups < 1)
    c.bad("an input and a kernel of one rank, 3 or more", str(x.type()) + " and " + str(w.type()));
  const auto n = static_cast<std::size_t>(x.rank() - 2);
  const Ints taps =
      spatial_list(c, "kernel_shape", static_dims(Shape(w.shape().begin() + 2, w.shape().end())));
  const Ints strides = spatial_list(c, "strides", Ints(n, 1)),
             dilations = spatial_list(c, "dilations", Ints(n, 1));
  const Ints extra = spatial_list(c, "output_padding", Ints(n, 0));
  Ints begin(n, 0), end(n, 0);
  const std::string auto_pad = c.attr_s("auto_pad", "NOTSET");
  const bool same = auto_pad.starts_with("SAME");
  const auto fits = [](std::int64_t v) { return -kMaxListed <= v && v <= kMaxListed; };
  if (!std::ranges::all_of(taps, fits)) c.bad("a kernel that fits 31 bits", str(taps));
  if (c.has_attr("output_shape") || same) {
    Ints wanted = c.attr_ints("output_shape");
    if ((!wanted.empty() && wanted.size() != n) || !std::ranges::all_of(wanted, fits))
      c.bad("an output_shape of the spatial dims that fits 31 bits", str(wanted));
    for (std::size_t i = 0; i < n; ++i) {
      const Dim& d = x.dim(static_cast<int>(i) + 2);
      if (!d.is_static()) c.ask_for("static spatial dims with " + (same ? auto_pad : "output_shape"), d);
      if (!fits(d.value())) c.bad("spatial dims that fit 31 bits", d.str());
      const std::int64_t target = wanted.empty() ? d.value() * strides[i] : wanted[i];
      const std::int64_t total =
          strides[i] * (d.value() - 1) + extra[i] + (taps[i] - 1) * dilations[i] + 1 - target;
      const std::int64_t half = total >= 0 ? total / 2 : 0, rest = total >= 0 ? total - half : total;
      begin[i] = auto_pad == "SAME_UPPER" || total < 0 ? half : rest;
      end[i] = auto_pad == "SAME_UPPER" || total < 0 ? rest : half;
    }
  } else if (auto_pad == "NOTSET") {
    const Ints pads = c.attr_ints("pads", Ints(2 * n, 0));
    if (pads.size() != 2 * n || !std::ranges::all_of(pads, fits))
      c.bad(std::to_string(2 * n) + " pads that fit 31 bits", str(pads));
    begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(n));
    end.assign(pads.begin() + static_cast<std::ptrdiff_t>(n), pads.end());
  }
  Ints low, high;
  for (std::size_t i = 0; i < n; ++i) {
    low.push_back((taps[i] - 1) * dilations[i] - begin[i]);
    high.push_back((taps[i] - 1) * dilations[i] - end[i] + extra[i]);
  }
  const Value y = c.e.op("conv", {x, transposed_kernel(c, w, groups)},
                         {{"input_dilation", strides},
                          {"kernel_dilation", dilations},
                          {"pad_low", low},
                          {"pad_high", high},
                          {"feature_groups", groups}});
  c.out(c.has(2) ? c.e.add(y, c.e.along_axis(c.in(2), 1, y.rank())) : y);
}

// -- normalisations ------------------------------------------------------------------------------------------
struct Moments {
  Value mean, variance;  // with the reduced axes at size 1
};
Moments moments(Emit& e, Value x, const Ints& axes) {
  const Value mean = e.mean(x, axes, true);
  return {mean, e.mean(e.square(e.sub(x, mean)), axes, true)};
}

Value normalised(Emit& e, Value x, const Ints& axes, double epsilon) {
  const Moments m = moments(e, x, axes);
  return e.mul(e.sub(x, m.mean), e.rsqrt(e.add(m.variance, epsilon)));
}

void batch_norm(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (x.rank() < 2) c.bad("rank 2 or more", str(x.type()));
  const double epsilon = c.attr_f("epsilon", 1e-5), momentum = c.attr_f("momentum", 0.9);
  if (c.opset() < 7 && c.attr("is_test", 0) == 0) c.unsupported("is_test = 1", "training");
  const Value scale = c.in(1), bias = c.in(2);
  Value mean = c.in(3), variance = c.in(4);
  if (c.attr("training_mode", 0) != 0) {
    const Moments m = moments(e, x, axes_except(x.rank(), 1));
    const auto running = [&](Value old, Value now) {
      return e.add(e.mul(old, momentum),
                   e.mul(e.cast(e.reshape(now, old.shape()), old.dtype()), 1 - momentum));
    };
    c.out(1, Item(running(mean, m.mean)));
    c.out(2, Item(running(variance, m.variance)));
    mean = e.reshape(m.mean, scale.shape());
    variance = e.reshape(m.variance, scale.shape());
  }
  c.out(e.op("batch_norm", {x, scale, bias, mean, variance},
             {{"axis", std::int64_t{1}}, {"epsilon", epsilon}}));
}

void instance_norm(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (x.rank() < 3) c.bad("rank 3 or more", str(x.type()));
  const Value y =
      e.cast(normalised(e, e.widen(x), axes_range(2, x.rank()), c.attr_f("epsilon", 1e-5)), x.dtype());
  c.out(e.add(e.mul(y, e.along_axis(c.in(1), 1, x.rank())), e.along_axis(c.in(2), 1, x.rank())));
}

void layer_norm(Context& c) {
  const Value x = c.in(0);
  const int axis = c.axis(c.attr("axis", -1), x.rank());
  const auto results = c.e.ops("layer_norm", {x, c.in(1), c.in_or(2, {})},
                               {{"axis", std::int64_t{axis}}, {"epsilon", c.attr_f("epsilon", 1e-5)}});
  for (int i = 0; i < 3; ++i) c.out(i, Item(results.at(static_cast<std::size_t>(i))));
}

void rms_norm(Context& c) {
  const Value x = c.in(0);
  const int axis = c.axis(c.attr("axis", -1), x.rank());
  c.out(c.e.op("rms_norm", {x, c.in(1)},
               {{"axis", std::int64_t{axis}}, {"epsilon", c.attr_f("epsilon", 1e-5)}}));
}

void group_norm(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const std::int64_t groups = c.need_attr("num_groups");
  if (x.rank() < 2 || groups < 1) c.bad("rank 2 or more, and groups", str(x.type()));
  Dim rest = 1;
  for (int i = 2; i < x.rank(); ++i) rest = rest * x.dim(i);
  const Dim per_group = floordiv(x.dim(1), Dim(groups));
  const Shape split{x.dim(0), groups, per_group * rest};
  Value y = e.reshape(normalised(e, e.reshape(e.widen(x), split), {2}, c.attr_f("epsilon", 1e-5)), x.shape());
  y = e.cast(y, x.dtype());
  const auto channels = [&](Value v) {
    if (c.opset() < 21)  // one number per group
      v = e.reshape(e.broadcast_to(e.reshape(v, {groups, 1}), {groups, per_group}), {x.dim(1)});
    return e.along_axis(v, 1, x.rank());
  };
  c.out(e.add(e.mul(y, channels(c.in(1))), channels(c.in(2))));
}

void lp_normalization(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const int axis = c.axis(c.attr("axis", -1), x.rank());
  const std::int64_t p = c.attr("p", 2);
  if (p != 1 && p != 2) c.bad("p = 1 or 2", std::to_string(p));
  const Value norm = p == 1 ? e.sum(e.abs(x), {axis}, true) : e.sqrt(e.sum(e.square(x), {axis}, true));
  c.out(e.select(e.equal(norm, 0), 0, e.div(x, norm)));
}

void lrn(Context& c) {
  const Value x = c.in(0);
  c.out(c.e.op("lrn", {x},
               {{"size", c.need_attr("size")},
                {"alpha", c.attr_f("alpha", 1e-4)},
                {"beta", c.attr_f("beta", 0.75)},
                {"k", c.attr_f("bias", 1)}}));
}

void mean_variance(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  Ints axes = c.attr_ints("axes", {0, 2, 3});
  for (auto& a : axes) a = c.axis(a, x.rank());
  const Moments m = moments(e, x, axes);
  c.out(e.div(e.sub(x, m.mean), e.add(e.sqrt(m.variance), 1e-9)));
}

}  // namespace

void add_nn(Translators& t) {
  t.add("MatMul", matmul);
  t.add("Gemm", gemm);
  t.add("Conv", conv);
  t.add("ConvTranspose", conv_transpose);
  t.add("BatchNormalization", batch_norm);
  t.add("InstanceNormalization", instance_norm);
  t.add("LayerNormalization", layer_norm);
  t.add("RMSNormalization", rms_norm);
  t.add("GroupNormalization", group_norm);
  t.add("LpNormalization", lp_normalization);
  t.add("LRN", lrn);
  t.add("MeanVarianceNormalization", mean_variance);
}

}  // namespace deepseek::onnx_import
