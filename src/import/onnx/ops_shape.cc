// Ops that rearrange elements: reshape, transpose, slice, concat, split, expand, tile, pad.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

Dim product(const Shape& s, std::size_t begin, std::size_t end) {
  Dim p(1);
  for (std::size_t i = begin; i < end; ++i) p = p * s[i];
  return p;
}

void reshape(Context& c) {
  const Value x = c.in(0);
  Shape target = c.need_dims(1);
  const bool zero_copies = c.attr("allowzero", 0) == 0;
  std::optional<std::size_t> free;
  Dim known = 1;
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (target[i] == Dim(0) && zero_copies) {
      if (i >= x.shape().size()) c.bad("0 where the input has a dim", str(target));
      target[i] = x.dim(static_cast<int>(i));
    }
    if (target[i] == Dim(-1)) {
      if (free) c.bad("one -1 at most", str(target));
      free = i;
      continue;
    }
    if (target[i].is_static() && target[i].value() < -1) c.bad("dims of at least -1", str(target));
    known = known * target[i];
  }
  if (free) {
    if (known == Dim(0)) c.bad("a shape whose -1 can be told", str(target));
    const Dim total = numel(x.shape());
    target[*free] = floordiv(total, known);
    if (total.is_static() && known.is_static() && total.value() % known.value() != 0)
      c.bad("a shape of " + total.str() + " elements", str(target));
  }
  c.out(c.e.reshape(x, std::move(target)));
}

void flatten(Context& c) {
  const Value x = c.in(0);
  const std::int64_t given = c.attr("axis", 1);
  const std::int64_t axis = given < 0 ? given + x.rank() : given;
  if (axis < 0 || axis > x.rank()) c.bad("an axis in [-rank, rank]", std::to_string(given));
  const auto at = static_cast<std::size_t>(axis);
  c.out(c.e.reshape(x, {product(x.shape(), 0, at), product(x.shape(), at, x.shape().size())}));
}

void squeeze(Context& c) {
  const Value x = c.in(0);
  Ints axes;
  if (const auto given = c.axes(1)) {
    for (const std::int64_t a : *given) axes.push_back(c.axis(a, x.rank()));
  } else {
    for (int i = 0; i < x.rank(); ++i)
      if (x.dim(i) == Dim(1)) axes.push_back(i);
  }
  for (const std::int64_t a : axes) {
    const Dim& d = x.dim(static_cast<int>(a));
    if (d.is_static() && d.value() != 1) c.bad("size 1 on axis " + std::to_string(a), str(x.type()));
  }
  c.out(c.e.squeeze(x, std::move(axes)));
}

void unsqueeze(Context& c) {
  const Value x = c.in(0);
  const auto given = c.axes(1);
  if (!given) c.bad("axes", "none");
  Ints axes;
  for (const std::int64_t a : *given) axes.push_back(c.axis(a, x.rank() + static_cast<int>(given->size())));
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) c.bad("distinct axes", "one twice");
  c.out(c.e.unsqueeze(x, std::move(axes)));
}

void transpose(Context& c) {
  const Value x = c.in(0);
  Ints perm(static_cast<std::size_t>(x.rank()));
  for (std::size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<std::int64_t>(perm.size() - 1 - i);
  perm = c.attr_ints("perm", perm);
  Ints sorted = perm, identity(static_cast<std::size_t>(x.rank()));
  std::sort(sorted.begin(), sorted.end());
  std::iota(identity.begin(), identity.end(), 0);
  if (sorted != identity) c.bad("a permutation of " + std::to_string(x.rank()) + " axes", str(perm));
  c.out(c.e.permute(x, std::move(perm)));
}

void concat(Context& c) {
  std::vector<Value> xs;
  for (int i = 0; i < c.inputs(); ++i) xs.push_back(c.in(i));
  if (xs.empty()) c.bad("at least one input", "none");
  c.out(c.e.concat(xs, c.axis(c.need_attr("axis"), xs[0].rank())));
}

void split(Context& c) {
  const Value x = c.in(0);
  const int axis = c.axis(c.attr("axis", 0), x.rank());
  const Dim extent = x.dim(axis);
  Shape sizes;
  if (c.has_attr("split")) {
    sizes = to_shape(c.attr_ints("split"));
  } else if (c.has(1)) {
    sizes = c.need_dims(1);
  } else {
    const std::int64_t parts = c.attr("num_outputs", c.outputs());
    if (parts <= 0 || parts > c.outputs()) c.bad("num_outputs outputs", std::to_string(c.outputs()));
    const Dim size = ceildiv(extent, Dim(parts));
    for (std::int64_t i = 0; i + 1 < parts; ++i) sizes.push_back(size);
    sizes.push_back(extent - size * Dim(parts - 1));
  }
  if (static_cast<int>(sizes.size()) < c.outputs())
    c.bad(std::to_string(c.outputs()) + " sizes", std::to_string(sizes.size()));
  // Parts of a known vector are known.
  const Known* whole = x.rank() == 1 ? c.known(0) : nullptr;
  const auto part = [&](const Dim& from, const Dim& size) {
    Item item(c.e.slice_axis(x, axis, from, from + size));
    if (!whole || !from.is_static() || !size.is_static()) return item;
    Known k(whole->dtype, {size.value()});
    for (std::int64_t i = 0; i < size.value(); ++i)
      k.set(static_cast<std::size_t>(i), *whole, static_cast<std::size_t>(from.value() + i));
    item.known = std::make_shared<const Known>(std::move(k));
    return item;
  };
  Dim start = 0;
  for (int i = 0; i < static_cast<int>(sizes.size()); ++i) {
    const Dim& size = sizes[static_cast<std::size_t>(i)];
    if (size.is_static() && size.value() < 0) c.bad("sizes of at least 0", size.str());
    if (c.wants(i)) c.out(i, part(start, size));
    start = start + size;
  }
  if (start.is_static() && extent.is_static() && !(start == extent))
    c.bad("sizes that add up to " + extent.str(), start.str());
}

// A slice's bound in [0, n], or [-1, n - 1] for the end of a negative step.
Dim bound(const Dim& v, const Dim& n, bool up, bool is_end) {
  const auto sign = compare(v, Dim(0));
  const Dim low = !up && is_end ? Dim(-1) : Dim(0);
  const Dim high = up ? n : n - Dim(1);
  if (v.is_static() && v.value() < 0 && n.is_static() && v.value() < -n.value())
    return low;  // far values overflow
  const Dim at =
      sign && *sign < 0 ? (v.is_static() && v.value() < -(std::int64_t{1} << 40) ? low : n + v) : v;
  if (v.is_static() && v.value() > std::int64_t{1} << 30 && !n.is_static()) return high;  // "to the end"
  return min(max(at, low), high);
}

void slice(Context& c) {
  const Value x = c.in(0);
  const bool inputs = c.opset() >= 10;
  const Shape starts = inputs ? c.need_dims(1) : to_shape(c.attr_ints("starts"));
  const Shape ends = inputs ? c.need_dims(2) : to_shape(c.attr_ints("ends"));
  Ints axes(starts.size());
  std::iota(axes.begin(), axes.end(), 0);
  if (inputs && c.has(3)) axes = c.need_ints(3);
  if (!inputs) axes = c.attr_ints("axes", axes);
  const Ints steps = inputs && c.has(4) ? c.need_ints(4) : Ints(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    c.bad("as many starts as ends, axes and steps",
          str(starts) + ", " + str(ends) + ", " + str(axes) + ", " + str(steps));
  Shape low(static_cast<std::size_t>(x.rank()), Dim(0)), high = x.shape();
  Ints by(static_cast<std::size_t>(x.rank()), 1);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto a = static_cast<std::size_t>(c.axis(axes[i], x.rank()));
    const std::int64_t step = std::max(steps[i], -std::numeric_limits<std::int64_t>::max());
    if (step == 0) c.bad("steps other than 0", "0");
    const Dim n = x.shape()[a];
    low[a] = bound(starts[i], n, step > 0, false);
    high[a] = bound(ends[i], n, step > 0, true);
    if (step < 0 && n == Dim(0)) low[a] = high[a] = 0;
    // An empty range: limits meet.
    high[a] = step > 0 ? max(low[a], high[a]) : min(low[a], high[a]);
    by[a] = n == Dim(0) ? 1 : step;
  }
  c.out(c.e.slice(x, std::move(low), std::move(high), std::move(by)));
}

void expand(Context& c) {
  const Value x = c.in(0);
  const Shape target = c.need_dims(1);
  for (const Dim& d : target)
    if (d.is_static() && d.value() < 0) c.bad("dims of at least 0", str(target));
  const auto shape = broadcast(x.shape(), target);
  if (!shape) c.bad("a shape that " + str(x.shape()) + " broadcasts with", str(target));
  c.out(c.e.broadcast_to(x, *shape));
}

void tile(Context& c) {
  const Value x = c.in(0);
  const Shape repeats = c.need_dims(1);
  if (static_cast<int>(repeats.size()) != x.rank())
    c.bad(std::to_string(x.rank()) + " repeats", std::to_string(repeats.size()));
  c.out(c.e.op("tile", {x}, {{"repeats", repeats}}));
}

void constant(Context& c) {
  if (const auto t = c.attr_tensor("value")) return c.out(c.e.constant(*t));
  if (c.has_attr("value_int")) {
    const std::vector<std::int64_t> v{c.attr("value_int", 0)};
    return c.out(c.e.constant(Tensor::of<std::int64_t>(DType::I64, {}, v)));
  }
  if (c.has_attr("value_ints")) return c.out(c.e.ints(c.attr_ints("value_ints")));
  if (c.has_attr("value_float")) return c.out(c.e.scalar(c.attr_f("value_float", 0), DType::F32));
  if (c.has_attr("value_floats")) return c.out(c.e.floats(c.attr_floats("value_floats"), DType::F32));
  c.unsupported("a dense numeric value", c.attr_names().empty() ? "none" : c.attr_names().front());
}

void constant_of_shape(Context& c) {
  const Shape shape = c.need_dims(0);
  for (const Dim& d : shape)
    if (d.is_static() && d.value() < 0) c.bad("dims of at least 0", str(shape));
  const auto value = c.attr_tensor("value");
  if (value && value->numel() != 1) c.bad("a value of one element", str(value->dims()));
  const Value v = value ? c.e.constant(value->reshaped({})) : c.e.scalar(0, DType::F32);
  if (is_static(shape)) numel(static_dims(shape));  // throws on overflow
  c.out(c.e.broadcast_to(v, shape));
}

void range(Context& c) {
  Dim size;
  if (is_integer(c.dtype(0))) {
    const Dim start = c.need_dim(0), limit = c.need_dim(1), delta = c.need_dim(2);
    if (!delta.is_static() || delta.value() == 0) c.unsupported("a delta known and not 0", delta.str());
    size = delta.value() > 0 ? ceildiv(limit - start, delta) : ceildiv(start - limit, Dim(0) - delta);
    if (!size.is_static()) size = max(size, Dim(0));
  } else {
    const double start = c.need_real(0), limit = c.need_real(1), delta = c.need_real(2);
    const double n = std::ceil((limit - start) / delta);
    if (!(n < 9e15)) c.bad("a range that ends", std::to_string(n) + " elements");
    size = static_cast<std::int64_t>(std::max(n, 0.0));
  }
  if (size.is_static()) size = std::max<std::int64_t>(size.value(), 0);
  const DType t = c.dtype(0);
  const Value steps = c.e.mul(c.e.iota({size}, t, 0), c.e.reshape(c.in(2), {}));
  c.out(c.e.add(steps, c.e.reshape(c.in(0), {})));
}

void pad(Context& c) {
  const Value x = c.in(0);
  const std::string mode = c.attr_s("mode", "constant");
  const Shape pads = c.opset() < 11 ? to_shape(c.attr_ints("pads")) : c.need_dims(1);
  Ints axes = axes_range(0, x.rank());
  if (c.has(3)) {
    axes = c.need_ints(3);
    for (auto& a : axes) a = c.axis(a, x.rank());
  }
  if (pads.size() != 2 * axes.size())
    c.bad(std::to_string(2 * axes.size()) + " pads", std::to_string(pads.size()));
  Shape low(static_cast<std::size_t>(x.rank()), Dim(0)), high = low;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    low[static_cast<std::size_t>(axes[i])] = pads[i];
    high[static_cast<std::size_t>(axes[i])] = pads[i + axes.size()];
  }
  if (mode != "constant" || (c.opset() >= 11 && !c.has(2)) || c.known(2) || c.opset() < 11) {
    const double value = mode != "constant" ? 0
                         : c.opset() < 11   ? c.attr_f("value", 0)
                         : c.has(2)         ? c.need_real(2)
                                            : 0;
    return c.out(c.e.op("pad", {x}, {{"low", low}, {"high", high}, {"mode", mode}, {"value", value}}));
  }
  const Value inside = c.e.pad(c.e.full(x.shape(), 1, DType::Bool), low, high);
  c.out(c.e.select(inside, c.e.pad(x, low, high), c.e.reshape(c.in(2), {})));
}

std::int64_t block_size(Context& c, const Value& x) {
  const std::int64_t b = c.need_attr("blocksize");
  if (x.rank() != 4 || b < 1 || b > (1 << 24))
    c.bad("a rank-4 input and a positive blocksize that fits", str(x.type()) + " and " + std::to_string(b));
  return b;
}

void depth_to_space(Context& c) {
  const Value x = c.in(0);
  const std::int64_t b = block_size(c, x);
  const Dim depth = floordiv(x.dim(1), Dim(b * b));
  const bool crd = c.attr_s("mode", "DCR") == "CRD";
  const Shape inner = crd ? Shape{x.dim(0), depth, b, b, x.dim(2), x.dim(3)}
                          : Shape{x.dim(0), b, b, depth, x.dim(2), x.dim(3)};
  const Value y = c.e.transpose(c.e.reshape(x, inner), crd ? Ints{0, 1, 4, 2, 5, 3} : Ints{0, 3, 4, 1, 5, 2});
  c.out(c.e.reshape(y, {x.dim(0), depth, x.dim(2) * Dim(b), x.dim(3) * Dim(b)}));
}

void space_to_depth(Context& c) {
  const Value x = c.in(0);
  const std::int64_t b = block_size(c, x);
  const Dim h = floordiv(x.dim(2), Dim(b)), w = floordiv(x.dim(3), Dim(b));
  const bool crd = c.attr_s("mode", "DCR") == "CRD";
  const Value y = c.e.transpose(c.e.reshape(x, {x.dim(0), x.dim(1), h, b, w, b}),
                                crd ? Ints{0, 1, 3, 5, 2, 4} : Ints{0, 3, 5, 1, 2, 4});
  c.out(c.e.reshape(y, {x.dim(0), x.dim(1) * Dim(b * b), h, w}));
}

// Rows and columns of the last two axes.
void trilu(Context& c) {
  const Value x = c.in(0);
  if (x.rank() < 2) c.bad("rank 2 or more", str(x.type()));
  const Shape square{x.dim(-2), x.dim(-1)};
  const Value row = c.e.iota(square, DType::I64, 0), column = c.e.iota(square, DType::I64, 1);
  const Value k = c.has(1) ? c.e.reshape(c.in(1), {}) : c.e.scalar(0, DType::I64);
  const Value edge = c.e.add(row, k);
  const Value keep = c.attr("upper", 1) != 0 ? c.e.less_equal(edge, column) : c.e.less_equal(column, edge);
  c.out(c.e.select(keep, x, x.dtype() == DType::Bool ? c.e.scalar(0, DType::Bool) : c.e.like(0, x)));
}

void eye_like(Context& c) {
  const Shape shape = c.shape(0);
  if (shape.size() != 2) c.bad("a matrix", str(shape));
  const Value row = c.e.iota(shape, DType::I64, 0), column = c.e.iota(shape, DType::I64, 1);
  c.out(c.e.cast(c.e.equal(c.e.add(row, static_cast<double>(c.attr("k", 0))), column),
                 c.attr_dtype("dtype", c.dtype(0))));
}

std::int64_t real_depth(Context& c) {
  const double depth = c.need_real(1);
  if (!(depth >= 0 && depth <= static_cast<double>(kMaxDim)))
    c.bad("a depth that fits", std::to_string(depth));
  return static_cast<std::int64_t>(depth);
}

void one_hot(Context& c) {
  const Value given = c.e.cast(c.in(0), DType::I64), values = c.in(2);
  const Dim depth = is_float(c.dtype(1)) ? Dim(real_depth(c)) : c.need_dim(1);
  const int axis = c.axis(c.attr("axis", -1), given.rank() + 1);
  const Value size = c.e.dim(depth, DType::I64);
  const Value index = c.e.unsqueeze(c.e.select(c.e.less(given, 0), c.e.add(given, size), given), axis);
  Shape shape = given.shape();
  shape.insert(shape.begin() + axis, depth);
  const Value off = c.e.reshape(c.e.slice_axis(values, 0, 0, 1), {}),
              on = c.e.reshape(c.e.slice_axis(values, 0, 1, 2), {});
  c.out(c.e.select(c.e.equal(index, c.e.iota(shape, DType::I64, axis)), on, off));
}

}  // namespace

void add_shape(Translators& t) {
  t.add("Reshape", reshape);
  t.add("Flatten", flatten);
  t.add("Squeeze", squeeze);
  t.add("Unsqueeze", unsqueeze);
  t.add("Transpose", transpose);
  t.add("Concat", concat);
  t.add("Split", split);
  t.add("Slice", slice);
  t.add("Expand", expand);
  t.add("Tile", tile);
  t.add("Constant", constant);
  t.add("ConstantOfShape", constant_of_shape);
  t.add("Range", range);
  t.add("Pad", pad);
  t.add("DepthToSpace", depth_to_space);
  t.add("SpaceToDepth", space_to_depth);
  t.add("Trilu", trilu);
  t.add("EyeLike", eye_like);
  t.add("OneHot", one_hot);
  t.add("Shape", [](Context& c) { c.unsupported("a tensor", "another kind of value"); });
  t.add("Size", [](Context& c) { c.unsupported("a tensor", "another kind of value"); });
}

}  // namespace deepseek::onnx_import
