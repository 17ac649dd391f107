// Reshapes, slices, padding, joining, and what makes tensors.
#include <algorithm>
#include <limits>

#include "export/onnx/layout.h"

namespace deepseek::onnx_export {

std::string spread(Writer& w, std::string x, Shape& shape, int axis, std::int64_t gap,
                   const std::string& value) {
  if (gap == 0 || shape[static_cast<std::size_t>(axis)] == Dim(0)) return x;
  const auto rank = static_cast<std::int64_t>(shape.size());
  const auto at = static_cast<std::size_t>(axis);
  x = w.unsqueeze(x, {axis + 1});
  Ints pads(static_cast<std::size_t>(2 * (rank + 1)), 0);
  pads[static_cast<std::size_t>(rank + 1 + axis + 1)] = gap;
  x = w.add("Pad", {x, w.ints(pads), value});
  shape[at] = shape[at] * Dim(gap + 1);
  x = w.reshape(x, shape);
  shape[at] = shape[at] - Dim(gap);
  return w.slice(x, {0}, {-gap}, {axis});
}

namespace {

constexpr std::int64_t kBeforeAll = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();

Ints first(int count) {
  Ints axes;
  for (int i = 0; i < count; ++i) axes.push_back(i);
  return axes;
}

Names reshape(Writer& w, const Node& n) { return {w.reshape(w.in(n, 0), n.attr<Shape>("shape"))}; }

Names transpose(Writer& w, const Node& n) { return {w.transpose(w.in(n, 0), n.attr<Ints>("perm"))}; }

Names axes_op(Writer& w, const Node& n, std::string_view type) {
  const Ints& axes = n.attr<Ints>("axes");
  return {w.add(type, {w.in(n, 0), axes.empty() ? "" : w.ints(axes)})};
}

Names broadcast_to(Writer& w, const Node& n) {
  return {w.add("Expand", {w.in(n, 0), w.dims(n.attr<Shape>("shape"))})};
}

Names slice(Writer& w, const Node& n) {
  const Shape starts = n.attr<Shape>("starts");
  Shape limits = n.attr<Shape>("limits");
  const Ints& steps = n.attr<Ints>("steps");
  const int rank = n.in(0).rank();
  if (rank == 0) return {w.add("Identity", {w.in(n, 0)})};
  // Before the first element: ONNX would count -1 from the end.
  for (std::size_t i = 0; i < limits.size(); ++i)
    if (steps[i] < 0 && limits[i] == Dim(-1)) limits[i] = Dim(kBeforeAll);
  return {w.add("Slice", {w.in(n, 0), w.dims(starts), w.dims(limits), w.ints(first(rank)), w.ints(steps)})};
}

Names reverse(Writer& w, const Node& n) {
  const Ints& axes = n.attr<Ints>("axes");
  const auto each = [&](std::int64_t v) { return Ints(axes.size(), v); };
  if (axes.empty()) return {w.add("Identity", {w.in(n, 0)})};
  return {w.slice(w.in(n, 0), each(-1), each(kBeforeAll), axes, each(-1))};
}

Names roll(Writer& w, const Node& n) {
  const Ints &shifts = n.attr<Ints>("shifts"), &axes = n.attr<Ints>("axes");
  std::string x = w.in(n, 0);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::int64_t axis = axes[i] < 0 ? axes[i] + n.in(0).rank() : axes[i];
    const Dim& size = n.in(0).dim(static_cast<int>(axis));
    if (size == Dim(0)) continue;
    const std::string cut = w.dims({size - mod(Dim(shifts[i]), size)}), along = w.ints({axis});
    const std::string back = w.add("Slice", {x, cut, w.ints({kEnd}), along});
    x = w.add("Concat", {back, w.add("Slice", {x, w.ints({0}), cut, along})}, {{"axis", axis}});
  }
  return {x == w.in(n, 0) ? w.add("Identity", {x}) : x};
}

// -- padding
// Where the elements of a padded axis come from, NumPy's way: any number of reflections.
Ints sources(std::int64_t size, std::int64_t low, std::int64_t high, const std::string& mode) {
  Ints from;
  const std::int64_t period = mode == "wrap"        ? size
                              : mode == "symmetric" ? 2 * size
                                                    : std::max<std::int64_t>(2 * (size - 1), 1);
  for (std::int64_t i = -low; i < size + high; ++i) {
    if (mode == "edge") {
      from.push_back(std::clamp<std::int64_t>(i, 0, size - 1));
      continue;
    }
    const std::int64_t at = ((i % period) + period) % period;
    from.push_back(at < size ? at : period - at - (mode == "symmetric" ? 1 : 0));
  }
  return from;
}

Names pad(Writer& w, const Node& n) {
  const Shape &low = n.attr<Shape>("low"), &high = n.attr<Shape>("high");
  const Ints& inner = n.attr<Ints>("inner");
  const std::string& mode = n.attr<std::string>("mode");
  Shape shape = n.in(0).shape();
  std::string x = w.in(n, 0);
  if (shape.empty()) return {w.add("Identity", {x})};
  if (mode != "constant") {
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (low[i] == Dim(0) && high[i] == Dim(0)) continue;
      if (!shape[i].is_static() || !low[i].is_static() || !high[i].is_static())
        unsupported("static dims where a pad of mode " + mode + " is written", shape[i].str());
      if (shape[i].value() == 0) unsupported("elements to pad with", "none");
      x = w.add("Gather", {x, w.ints(sources(shape[i].value(), low[i].value(), high[i].value(), mode))},
                {{"axis", static_cast<std::int64_t>(i)}});
    }
    return {x == w.in(n, 0) ? w.add("Identity", {x}) : x};
  }
  const std::string value = w.scalar(n.attr<double>("value"), n.in(0).dtype());
  for (std::size_t i = 0; i < inner.size(); ++i)
    x = spread(w, x, shape, static_cast<int>(i), inner[i], value);
  Shape pads = low;
  pads.insert(pads.end(), high.begin(), high.end());
  return {w.add("Pad", {x, w.dims(pads), value})};
}

// -- joining
Names concat(Writer& w, const Node& n) {
  return {w.add("Concat", w.all(n), {{"axis", n.attr<std::int64_t>("axis")}})};
}

Names split(Writer& w, const Node& n) {
  const Shape& sizes = n.attr<Shape>("sizes");
  return w.add_many("Split", {w.in(n, 0), w.dims(sizes)}, {{"axis", n.attr<std::int64_t>("axis")}},
                    static_cast<int>(n.outputs.size()));
}

Names tile(Writer& w, const Node& n) {
  if (n.in(0).rank() == 0) return {w.add("Identity", {w.in(n, 0)})};
  return {w.add("Tile", {w.in(n, 0), w.dims(n.attr<Shape>("repeats"))})};
}

Names triangular(Writer& w, const Node& n) {
  return {w.add("Trilu", {w.in(n, 0), w.dim(n.attr<Shape>("k").at(0))},
                {{"upper", std::int64_t{n.attr<bool>("upper")}}})};
}

// -- making
Names full(Writer& w, const Node& n) { return {w.full(n.out().type(), n.attr<double>("value"))}; }

Names iota(Writer& w, const Node& n) {
  const Shape& shape = n.attr<Shape>("shape");
  const DType t = n.attr<DType>("dtype");
  const std::int64_t axis = n.attr<std::int64_t>("axis"), rank = static_cast<std::int64_t>(shape.size()),
                     at = axis < 0 ? axis + rank : axis;
  std::string x = w.add("Range", {w.scalar(0, DType::I64), w.dim(shape.at(static_cast<std::size_t>(at))),
                                  w.scalar(1, DType::I64)});
  if (t != DType::I64) x = w.cast(x, t);
  Shape ones(shape.size(), Dim(1));
  ones[static_cast<std::size_t>(at)] = shape[static_cast<std::size_t>(at)];
  if (rank > 1) x = w.add("Expand", {w.reshape(x, ones), w.dims(shape)});
  return {x};
}

Names dim_value(Writer& w, const Node& n) {
  const std::string d = w.dim(n.attr<Shape>("dim").at(0));
  const DType t = n.attr<DType>("dtype");
  return {t == DType::I64 ? w.add("Identity", {d}) : w.cast(d, t)};
}

}  // namespace

void add_shape_rules(Rules& r) {
  r.add("reshape", reshape);
  r.add("transpose", transpose);
  r.add("squeeze", [](Writer& w, const Node& n) { return axes_op(w, n, "Squeeze"); });
  r.add("unsqueeze", [](Writer& w, const Node& n) { return axes_op(w, n, "Unsqueeze"); });
  r.add("broadcast_to", broadcast_to);
  r.add("slice", slice);
  r.add("reverse", reverse);
  r.add("roll", roll);
  r.add("pad", pad);
  r.add("concat", concat);
  r.add("split", split);
  r.add("tile", tile);
  r.add("triangular", triangular);
  r.add("full", full);
  r.add("iota", iota);
  r.add("dim_value", dim_value);
  r.add("shape_of", [](Writer& w, const Node& n) { return Names{w.add("Shape", {w.in(n, 0)})}; });
}

}  // namespace deepseek::onnx_export
