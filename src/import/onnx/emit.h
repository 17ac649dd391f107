// What translators write besides GraphBuilder's short hands.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/graph_builder.h"

namespace deepseek::onnx_import {

using Ints = std::vector<std::int64_t>;

class Emit : public GraphBuilder {
 public:
  using GraphBuilder::GraphBuilder;
  using GraphBuilder::slice;
  using GraphBuilder::squeeze;
  using GraphBuilder::unsqueeze;

  std::vector<Value> ops(std::string_view name, std::vector<Value> inputs, Attrs attrs = {}) {
    return graph().ops(name, std::move(inputs), std::move(attrs));
  }

  Value constant(Tensor t) { return graph().constant(std::move(t)); }
  Value like(double v, Value x) { return scalar(v, x.dtype()); }
  Value ints(const Ints& v) { return constant(Tensor::of_int64(v)); }
  Value floats(const std::vector<double>& v, DType t);

  Value floor(Value a) { return unary("floor", a); }
  Value round(Value a) { return unary("round", a); }  // half to even

  Value unsqueeze(Value x, Ints axes);  // axes of the result
  Value squeeze(Value x, Ints axes);
  Value flatten(Value x) { return reshape(x, {numel(x.shape())}); }
  Value slice(Value x, Shape starts, Shape limits, Ints steps = {});  // one entry per axis
  Value slice_axis(Value x, int axis, Dim start, Dim limit, std::int64_t step = 1);
  Value pad(Value x, Shape low, Shape high, double value = 0);
  Value gather(Value x, Value indices, std::int64_t axis);  // takes whole slices
  Value softmax(Value x, std::int64_t axis) { return op("softmax", {x}, {{"axis", axis}}); }
  Value permute(Value x, Ints perm);  // nothing for the identity
};

Ints all_axes(Value x);
// The largest finite value of the dtypes that may saturate.
std::optional<double> saturates_at(DType t);

}  // namespace deepseek::onnx_import
