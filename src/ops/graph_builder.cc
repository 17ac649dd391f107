#include "ops/graph_builder.h"

#include <numeric>

namespace deepseek {

Value GraphBuilder::binary(std::string_view name, Operand a, Operand b) {
  check(a.is_value() || b.is_value(), "one operand at least is a value");
  const Value x = a.is_value() ? a.value() : scalar(a.number(), b.value().dtype());
  const Value y = b.is_value() ? b.value() : scalar(b.number(), a.value().dtype());
  return op(name, {x, y});
}

Value GraphBuilder::select(Value condition, Operand yes, Operand no) {
  check(yes.is_value() || no.is_value(), "one operand at least is a value");
  const Value x = yes.is_value() ? yes.value() : scalar(yes.number(), no.value().dtype());
  const Value y = no.is_value() ? no.value() : scalar(no.number(), yes.value().dtype());
  return op("select", {condition, x, y});
}

Value GraphBuilder::cast(Value x, DType t) { return x.dtype() == t ? x : op("cast", {x}, {{"dtype", t}}); }

Value GraphBuilder::full(Shape shape, double v, DType t) {
  return op("full", {}, {{"shape", std::move(shape)}, {"value", v}, {"dtype", t}});
}

Value GraphBuilder::dim(const Dim& d, DType t) {
  if (d.is_static()) return scalar(static_cast<double>(d.value()), t);
  return op("dim_value", {}, {{"dim", Shape{d}}, {"dtype", t}});
}

Value GraphBuilder::iota(Shape shape, DType t, int axis) {
  return op("iota", {}, {{"shape", std::move(shape)}, {"dtype", t}, {"axis", std::int64_t{axis}}});
}

Value GraphBuilder::reshape(Value x, Shape shape) {
  return x.shape() == shape ? x : op("reshape", {x}, {{"shape", std::move(shape)}});
}

Value GraphBuilder::transpose(Value x, std::vector<std::int64_t> perm) {
  return op("transpose", {x}, {{"perm", std::move(perm)}});
}

Value GraphBuilder::swap_last_two(Value x) {
  std::vector<std::int64_t> perm = axes_range(0, x.rank());
  std::swap(perm.at(perm.size() - 1), perm.at(perm.size() - 2));
  return transpose(x, std::move(perm));
}

Value GraphBuilder::broadcast_to(Value x, Shape shape) {
  return x.shape() == shape ? x : op("broadcast_to", {x}, {{"shape", std::move(shape)}});
}

Value GraphBuilder::unsqueeze(Value x, int axis) {
  Shape shape = x.shape();
  shape.insert(shape.begin() + (axis < 0 ? axis + x.rank() + 1 : axis), Dim(1));
  return reshape(x, std::move(shape));
}

Value GraphBuilder::squeeze(Value x, int axis) {
  Shape shape = x.shape();
  shape.erase(shape.begin() + (axis < 0 ? axis + x.rank() : axis));
  return reshape(x, std::move(shape));
}

Value GraphBuilder::slice(Value x, int axis, Dim start, Dim limit) {
  const auto rank = static_cast<std::size_t>(x.rank());
  Shape starts(rank, Dim(0)), limits = x.shape();
  starts.at(static_cast<std::size_t>(axis)) = std::move(start);
  limits.at(static_cast<std::size_t>(axis)) = std::move(limit);
  return op("slice", {x},
            {{"starts", starts}, {"limits", limits}, {"steps", std::vector<std::int64_t>(rank, 1)}});
}

Value GraphBuilder::concat(std::vector<Value> xs, int axis) {
  return xs.size() == 1 ? xs[0] : op("concat", std::move(xs), {{"axis", std::int64_t{axis}}});
}

Value GraphBuilder::along_axis(Value vector, int axis, int rank) {
  Shape shape(static_cast<std::size_t>(rank), Dim(1));
  shape.at(static_cast<std::size_t>(axis)) = vector.dim(0);
  return reshape(vector, std::move(shape));
}

Value GraphBuilder::reduce(std::string_view name, Value x, std::vector<std::int64_t> axes, bool keepdims) {
  return op(name, {x}, {{"axes", std::move(axes)}, {"keepdims", keepdims}});
}

std::vector<std::int64_t> axes_range(int from, int to) {
  std::vector<std::int64_t> axes(static_cast<std::size_t>(std::max(0, to - from)));
  std::iota(axes.begin(), axes.end(), from);
  return axes;
}

std::vector<std::int64_t> axes_except(int rank, int axis) {
  std::vector<std::int64_t> axes;
  for (int i = 0; i < rank; ++i)
    if (i != axis) axes.push_back(i);
  return axes;
}

}  // namespace deepseek
