// Pools, local and global.
#include <algorithm>

#include "import/onnx/window.h"

namespace deepseek::onnx_import {

Ints spatial_list(Context& c, const char* name, Ints otherwise) {
  const std::size_t n = otherwise.size();
  Ints list = c.attr_ints(name, std::move(otherwise));
  if (list.size() != n) c.bad(std::to_string(n) + " entries of " + name, str(list));
  for (const std::int64_t v : list)
    if (v < 0 || v > kMaxListed)
      c.bad(std::string(name) + " that are not negative and fit 31 bits", str(list));
  return list;
}

Windows read_windows(Context& c, Value x, const Shape& taps) {
  const auto n = static_cast<std::size_t>(x.rank() - 2);
  Windows w;
  w.taps = taps.empty() ? spatial_list(c, "kernel_shape", Ints(n, 0)) : static_dims(taps);
  if (c.has_attr("kernel_shape") && spatial_list(c, "kernel_shape", Ints(n, 0)) != w.taps)
    c.bad("a kernel of kernel_shape", str(w.taps));
  w.strides = spatial_list(c, "strides", Ints(n, 1));
  w.dilations = spatial_list(c, "dilations", Ints(n, 1));
  w.low = w.high = w.extra = Ints(n, 0);
  const std::string auto_pad = c.attr_s("auto_pad", "NOTSET");
  if (auto_pad == "NOTSET") {
    const Ints pads = spatial_list(c, "pads", Ints(2 * n, 0));
    w.low.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(n));
    w.high.assign(pads.begin() + static_cast<std::ptrdiff_t>(n), pads.end());
  } else if (auto_pad != "VALID" && auto_pad != "SAME_UPPER" && auto_pad != "SAME_LOWER") {
    c.bad("auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER", "'" + auto_pad + "'");
  }
  const bool ceil_mode = c.attr("ceil_mode", 0) != 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (w.strides[i] < 1 || w.dilations[i] < 1) c.bad("strides and dilations of at least 1", "0");
    if (w.taps[i] > kMaxListed) c.bad("a kernel that fits 31 bits", str(w.taps));
    const std::int64_t reach = (w.taps[i] - 1) * w.dilations[i] + 1;
    const Dim& d = x.dim(static_cast<int>(i) + 2);
    if (auto_pad.starts_with("SAME")) {
      std::int64_t total = reach - 1;
      if (w.strides[i] != 1) {
        if (!d.is_static()) c.ask_for("static spatial dims with auto_pad and strides", d);
        const std::int64_t positions = (d.value() + w.strides[i] - 1) / w.strides[i];
        total = std::max<std::int64_t>((positions - 1) * w.strides[i] + reach - d.value(), 0);
      }
      w.low[i] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.high[i] = total - w.low[i];
    }
    if (!ceil_mode || w.strides[i] == 1) continue;
    if (!d.is_static()) c.ask_for("static spatial dims with ceil_mode", d);
    const std::int64_t room = d.value() + w.low[i] + w.high[i] - reach;
    if (room < 0) continue;
    std::int64_t positions = (room + w.strides[i] - 1) / w.strides[i] + 1;
    if ((positions - 1) * w.strides[i] >= d.value() + w.low[i])
      --positions;  // starts in the padding after the end
    w.extra[i] = std::max<std::int64_t>((positions - 1) * w.strides[i] - room, 0);
  }
  return w;
}

namespace {

Attrs pool_attrs(const Windows& w) {
  Ints high = w.high;
  for (std::size_t i = 0; i < high.size(); ++i) high[i] += w.extra[i];
  return {{"window", w.taps},
          {"strides", w.strides},
          {"pad_low", w.low},
          {"pad_high", high},
          {"dilation", w.dilations}};
}

Windows windows_of(Context& c, Value x) {
  if (x.rank() < 3) c.bad("rank 3 or more", str(x.type()));
  if (!c.has_attr("kernel_shape")) c.bad("attribute 'kernel_shape'", "none");
  return read_windows(c, x, {});
}

void max_pool(Context& c) {
  const Value x = c.in(0);
  const Windows w = windows_of(c, x);
  if (!c.wants(1)) return c.out(c.e.op("max_pool", {x}, pool_attrs(w)));
  const auto results = c.e.ops("max_pool_with_indices", {x}, pool_attrs(w));
  c.out(0, Item(results[0]));
  // Ours count within a channel's plane, row-major; ONNX counts over the whole tensor.
  Emit& e = c.e;
  Dim plane = 1;
  for (int i = 2; i < x.rank(); ++i) plane = plane * x.dim(i);
  Value index = results[1];
  if (c.attr("storage_order", 0) != 0) {
    if (x.rank() != 4) c.unsupported("storage_order 1 on images", str(x.type()));
    const Value h = e.dim(x.dim(2), DType::I64), width = e.dim(x.dim(3), DType::I64);
    index = e.add(e.mul(e.op("mod", {index, width}), h), e.div(index, width));
  }
  const Value planes = e.reshape(e.iota({x.dim(0) * x.dim(1)}, DType::I64, 0), {x.dim(0), x.dim(1)});
  Shape lead{x.dim(0), x.dim(1)};
  lead.resize(static_cast<std::size_t>(x.rank()), Dim(1));
  c.out(1, Item(e.add(index, e.reshape(e.mul(planes, e.dim(plane, DType::I64)), lead))));
}

void average_pool(Context& c) {
  const Value x = c.in(0);
  const Windows w = windows_of(c, x);
  Attrs attrs = pool_attrs(w);
  attrs["count_include_pad"] = c.attr("count_include_pad", 0) != 0;
  attrs["uncounted_high"] = w.extra;
  c.out(c.e.op("avg_pool", {x}, std::move(attrs)));
}

void lp_pool(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const Windows w = windows_of(c, x);
  const double p = static_cast<double>(c.attr("p", 2));
  if (p < 1) c.bad("p of at least 1", std::to_string(p));
  const Value power = p == 2 ? e.square(x) : e.pow(e.abs(x), p);
  c.out(e.pow(e.op("sum_pool", {power}, pool_attrs(w)), 1 / p));
}

Translate global(std::string name) {
  return [name](Context& c) {
    const Value x = c.in(0);
    if (x.rank() < 3) c.bad("rank 3 or more", str(x.type()));
    c.out(c.e.reduce(name, x, axes_range(2, x.rank()), true));
  };
}

void global_lp_pool(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (x.rank() < 3) c.bad("rank 3 or more", str(x.type()));
  const double p = static_cast<double>(c.attr("p", 2));
  c.out(e.pow(e.sum(e.pow(e.abs(x), p), axes_range(2, x.rank()), true), 1 / p));
}

// Each element goes where its index (over the whole result) says; zeros elsewhere.
void max_unpool(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), indices = c.in(1);
  if (x.rank() < 3) c.bad("rank 3 or more", str(x.type()));
  Shape shape{x.dim(0), x.dim(1)};
  if (c.has(2)) {
    shape = c.need_dims(2);
    if (static_cast<int>(shape.size()) != x.rank()) c.bad("an output_shape of x's rank", str(shape));
  } else {
    const auto n = static_cast<std::size_t>(x.rank() - 2);
    const Ints taps = spatial_list(c, "kernel_shape", Ints(n, 1)),
               strides = spatial_list(c, "strides", Ints(n, 1));
    const Ints pads = spatial_list(c, "pads", Ints(2 * n, 0));
    for (std::size_t i = 0; i < n; ++i)
      shape.push_back((x.shape()[i + 2] - 1) * Dim(strides[i]) + Dim(taps[i] - pads[i] - pads[i + n]));
  }
  // Indices count in the tensor that the pool saw, which the result's shape may be larger than.
  Shape inner{x.dim(0), x.dim(1)};
  if (c.has(2)) {
    const auto n = static_cast<std::size_t>(x.rank() - 2);
    const Ints taps = spatial_list(c, "kernel_shape", Ints(n, 1)),
               strides = spatial_list(c, "strides", Ints(n, 1));
    const Ints pads = spatial_list(c, "pads", Ints(2 * n, 0));
    for (std::size_t i = 0; i < n; ++i)
      inner.push_back((x.shape()[i + 2] - 1) * Dim(strides[i]) + Dim(taps[i] - pads[i] - pads[i + n]));
  } else {
    inner = shape;
  }
  const Value flat =
      e.op("scatter_elements", {e.full({numel(inner)}, 0, x.dtype()), e.flatten(indices), e.flatten(x)},
           {{"axis", std::int64_t{0}}});
  Value y = e.reshape(flat, inner);
  if (!(inner == shape)) {
    Shape high;
    for (std::size_t i = 0; i < shape.size(); ++i) high.push_back(shape[i] - inner[i]);
    y = e.pad(y, Shape(shape.size(), Dim(0)), high);
  }
  c.out(y);
}

}  // namespace

void add_pool(Translators& t) {
  t.add("MaxPool", max_pool);
  t.add("AveragePool", average_pool);
  t.add("LpPool", lp_pool);
  t.add("GlobalAveragePool", global("mean"));
  t.add("GlobalMaxPool", global("max"));
  t.add("GlobalLpPool", global_lp_pool);
  t.add("MaxUnpool", max_unpool);
}

}  // namespace deepseek::onnx_import
