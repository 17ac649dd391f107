// Gathering, scattering, sorting, and boxes whose place is known at run time.
#include <algorithm>

#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

namespace {

std::string as_int64(Writer& w, const Node& n, int i) {
  return n.in(i).dtype() == DType::I64 ? w.in(n, i) : w.cast(w.in(n, i), DType::I64);
}

Attributes axis_of(const Node& n) { return {{"axis", n.attr<std::int64_t>("axis")}}; }

// ONNX Runtime combines no halves.
DType combined_type(DType t) { return is_float(t) && bits(t) == 16 ? DType::F32 : t; }

Names scatter(Writer& w, const Node& n, std::string_view type) {
  Attributes attributes;
  if (type == "ScatterElements") attributes = axis_of(n);
  const std::string& reduction = n.attr<std::string>("reduction");
  attributes.emplace_back("reduction", reduction);
  const DType t = n.in(0).dtype(), wide = reduction == "none" ? t : combined_type(t);
  const auto as_wide = [&](int i) { return t == wide ? w.in(n, i) : w.cast(w.in(n, i), wide); };
  const std::string y = w.add(type, {as_wide(0), as_int64(w, n, 1), as_wide(2)}, std::move(attributes));
  return {t == wide ? y : w.cast(y, t)};
}

// Zeros with slices added: ScatterND over the axis, which comes first.
Names index_add(Writer& w, const Node& n) {
  const int axis = static_cast<int>(n.attr<std::int64_t>("axis"));
  const int at = axis < 0 ? axis + n.out().rank() : axis, indices = n.in(1).rank(), rank = n.in(0).rank();
  Ints to_front, back;
  for (int i = 0; i < indices; ++i) to_front.push_back(at + i);
  for (int i = 0; i < rank; ++i)
    if (i < at || i >= at + indices) to_front.push_back(i);
  Shape zeros = {n.outputs[0].shape[static_cast<std::size_t>(at)]};
  for (int i = 0; i < n.out().rank(); ++i)
    if (i != at) zeros.push_back(n.outputs[0].shape[static_cast<std::size_t>(i)]);
  for (int i = 0; i < n.out().rank(); ++i) back.push_back(i == at ? 0 : i < at ? i + 1 : i);
  const DType t = n.outputs[0].dtype, wide = combined_type(t);
  const std::string updates = t == wide ? w.in(n, 0) : w.cast(w.in(n, 0), wide);
  const std::string rows = w.unsqueeze(as_int64(w, n, 1), {-1});
  std::string y = w.add("ScatterND", {w.full({wide, zeros}, 0), rows, w.transpose(updates, to_front)},
                        {{"reduction", std::string("add")}});
  if (t != wide) y = w.cast(y, t);
  return {w.transpose(y, back)};
}

Names top(Writer& w, const Node& n, const std::string& k, bool largest) {
  const DType t = n.in(0).dtype(), wide = is_integer(t) ? DType::I64 : t;
  const std::string x = w.in(n, 0);
  Attributes attributes = axis_of(n);
  attributes.emplace_back("largest", std::int64_t{largest});
  Names results = w.add_many("TopK", {t == wide ? x : w.cast(x, wide), k}, std::move(attributes), 2);
  if (t != wide) results[0] = w.cast(results[0], t);
  return results;
}

// OneHot, which takes vectors and more.
std::string hot(Writer& w, const Node& n, const std::string& values) {
  const std::string depth = w.dim(n.attr<Shape>("depth").at(0)), indices = as_int64(w, n, 0);
  if (n.in(0).rank() > 0) return w.add("OneHot", {indices, depth, values}, axis_of(n));
  const std::string rows = w.add("OneHot", {w.reshape(indices, {Dim(1)}), depth, values});
  return w.add("Squeeze", {rows, w.ints({0})});
}

Names one_hot(Writer& w, const Node& n) {
  const DType t = n.attr<DType>("dtype");
  const double on = n.attr<double>("on"), off = n.attr<double>("off");
  const DType values = t == DType::I64 ? t : DType::F32;
  Tensor pair(values, {2});
  pair.set(0, off);
  pair.set(1, on);
  if (t == values || (pair.at(0) == off && pair.at(1) == on)) {
    const std::string y = hot(w, n, w.constant(pair));
    return {t == values ? y : w.cast(y, t)};
  }
  const std::string on_or_off = w.cast(hot(w, n, w.ints({0, 1})), DType::Bool);
  return {w.add("Where", {on_or_off, w.scalar(on, t), w.scalar(off, t)})};
}

Names nonzero(Writer& w, const Node& n) {
  const std::string x = w.in(n, 0);
  if (n.in(0).rank() == 0) {  // no coordinates of one element, or of none
    const std::string count = w.reshape(w.cast(w.cast(x, DType::Bool), DType::I64), {Dim(1)});
    return {w.add("ConstantOfShape", {w.add("Concat", {w.ints({0}), count}, {{"axis", std::int64_t{0}}})},
                  {{"value", Tensor::zeros(DType::I64, {1})}})};
  }
  return {w.add("NonZero", {n.in(0).dtype() == DType::Bool ? x : w.cast(x, DType::Bool)})};
}

// The first corner of a box of `sizes`, clamped so that the box lies within `shape`.
std::string corner(Writer& w, const Node& n, int i, const Shape& shape, const Shape& sizes) {
  Shape most;
  for (std::size_t k = 0; k < shape.size(); ++k) most.push_back(shape[k] - sizes[k]);
  return w.add("Max", {w.add("Min", {as_int64(w, n, i), w.dims(most)}), w.scalar(0, DType::I64)});
}

Names dynamic_slice(Writer& w, const Node& n) {
  const Shape& sizes = n.attr<Shape>("sizes");
  if (sizes.empty()) return {w.add("Identity", {w.in(n, 0)})};
  const std::string start = corner(w, n, 1, n.in(0).shape(), sizes);
  return {w.add("Slice", {w.in(n, 0), start, w.add("Add", {start, w.dims(sizes)})})};
}

// ScatterND at the coordinates of every element of the box.
Names dynamic_update_slice(Writer& w, const Node& n) {
  const Shape& sizes = n.in(1).shape();
  if (sizes.empty()) return {w.add("Identity", {w.in(n, 1)})};
  if (std::find(sizes.begin(), sizes.end(), Dim(0)) != sizes.end()) return {w.add("Identity", {w.in(n, 0)})};
  const auto rank = static_cast<std::int64_t>(sizes.size());
  Shape grid = sizes;
  grid.emplace_back(1);
  Names coordinates;
  for (std::int64_t i = 0; i < rank; ++i) {
    const std::string along =
        w.add("Range",
              {w.scalar(0, DType::I64), w.dim(sizes[static_cast<std::size_t>(i)]), w.scalar(1, DType::I64)});
    Ints others;
    for (std::int64_t k = 0; k <= rank; ++k)
      if (k != i) others.push_back(k);
    coordinates.push_back(w.add("Expand", {w.unsqueeze(along, others), w.dims(grid)}));
  }
  const std::string box = w.add("Concat", coordinates, {{"axis", rank}});
  const std::string place = w.add("Add", {box, corner(w, n, 2, n.in(0).shape(), sizes)});
  return {w.add("ScatterND", {w.in(n, 0), place, w.in(n, 1)})};
}

}  // namespace

void add_index_rules(Rules& r) {
  r.add("gather", [](Writer& w, const Node& n) { return Names{w.add("Gather", w.all(n), axis_of(n))}; });
  r.add("gather_elements",
        [](Writer& w, const Node& n) { return Names{w.add("GatherElements", w.all(n), axis_of(n))}; });
  r.add("gather_nd", [](Writer& w, const Node& n) {
    return Names{w.add("GatherND", {w.in(n, 0), as_int64(w, n, 1)},
                       {{"batch_dims", n.attr<std::int64_t>("batch_dims")}})};
  });
  r.add("scatter_elements", [](Writer& w, const Node& n) { return scatter(w, n, "ScatterElements"); });
  r.add("scatter_nd", [](Writer& w, const Node& n) { return scatter(w, n, "ScatterND"); });
  r.add("index_add", index_add);
  r.add("topk", [](Writer& w, const Node& n) {
    return top(w, n, w.dims(n.attr<Shape>("k")), n.attr<bool>("largest"));
  });
  r.add("sort", [](Writer& w, const Node& n) {
    const int axis = static_cast<int>(n.attr<std::int64_t>("axis"));
    return top(w, n, w.dims({n.in(0).dim(axis)}), n.attr<bool>("descending"));
  });
  r.add("one_hot", one_hot);
  r.add("nonzero", nonzero);
  r.add("dynamic_slice", dynamic_slice);
  r.add("dynamic_update_slice", dynamic_update_slice);
}

}  // namespace deepseek::onnx_export
