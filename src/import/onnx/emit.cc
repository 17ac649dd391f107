#include "import/onnx/emit.h"

#include <algorithm>

#include "loops/convert.h"

namespace deepseek::onnx_import {

Value Emit::floats(const std::vector<double>& v, DType t) {
  Tensor data(t, {static_cast<std::int64_t>(v.size())});
  for (std::size_t i = 0; i < v.size(); ++i) data.set(static_cast<std::int64_t>(i), v[i]);
  return constant(std::move(data));
}

Value Emit::unsqueeze(Value x, Ints axes) {
  Shape shape = x.shape();
  std::sort(axes.begin(), axes.end());
  for (const std::int64_t a : axes) {
    check(a >= 0 && a <= static_cast<std::int64_t>(shape.size()), "axes of the result, from 0 on");
    shape.insert(shape.begin() + a, Dim(1));
  }
  return reshape(x, std::move(shape));
}

Value Emit::squeeze(Value x, Ints axes) {
  Shape shape;
  for (int i = 0; i < x.rank(); ++i)
    if (std::find(axes.begin(), axes.end(), i) == axes.end()) shape.push_back(x.dim(i));
  return reshape(x, std::move(shape));
}

Value Emit::permute(Value x, Ints perm) {
  return std::is_sorted(perm.begin(), perm.end()) ? x : transpose(x, std::move(perm));
}

Value Emit::slice(Value x, Shape starts, Shape limits, Ints steps) {
  if (steps.empty()) steps.assign(starts.size(), 1);
  return op("slice", {x},
            {{"starts", std::move(starts)}, {"limits", std::move(limits)}, {"steps", std::move(steps)}});
}

Value Emit::slice_axis(Value x, int axis, Dim start, Dim limit, std::int64_t step) {
  Shape starts(static_cast<std::size_t>(x.rank()), Dim(0)), limits = x.shape();
  Ints steps(static_cast<std::size_t>(x.rank()), 1);
  starts.at(static_cast<std::size_t>(axis)) = std::move(start);
  limits[static_cast<std::size_t>(axis)] = std::move(limit);
  steps[static_cast<std::size_t>(axis)] = step;
  return slice(x, std::move(starts), std::move(limits), std::move(steps));
}

Value Emit::pad(Value x, Shape low, Shape high, double value) {
  return op("pad", {x}, {{"low", std::move(low)}, {"high", std::move(high)}, {"value", value}});
}

Value Emit::gather(Value x, Value indices, std::int64_t axis) {
  return op("gather", {x, indices}, {{"axis", axis}});
}

Ints all_axes(Value x) { return axes_range(0, x.rank()); }

std::optional<double> saturates_at(DType t) {
  if (t == DType::F8E5M2) return 57344;
  return t == DType::F8E8M0 ? std::nullopt : loops::finite_largest(t);
}

}  // namespace deepseek::onnx_import
