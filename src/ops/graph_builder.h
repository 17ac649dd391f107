// Short hands for writing graphs: what composed definitions, gradients and importers are written with. Every
// method adds nodes to the graph and returns their result. Numbers stand where a scalar of the other
// operand's dtype is meant.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "deepseek/graph.h"

namespace deepseek {

class Operand {
 public:
  Operand(Value v) : value_(v) {}    // NOLINT: a value is an operand
  Operand(double v) : number_(v) {}  // NOLINT: so is a number
  Operand(int v) : number_(v) {}     // NOLINT
  bool is_value() const { return static_cast<bool>(value_); }
  Value value() const { return value_; }
  double number() const { return number_; }

 private:
  Value value_;
  double number_ = 0;
};

class GraphBuilder {
 public:
  explicit GraphBuilder(Graph& g) : g_(g) {}
  Graph& graph() { return g_; }

  Value op(std::string_view name, std::vector<Value> inputs, Attrs attrs = {}) {
    return g_.op(name, std::move(inputs), std::move(attrs));
  }
  // Elementwise on two operands, at least one of which is a value.
  Value binary(std::string_view name, Operand a, Operand b);

  Value add(Operand a, Operand b) { return binary("add", a, b); }
  Value sub(Operand a, Operand b) { return binary("sub", a, b); }
  Value mul(Operand a, Operand b) { return binary("mul", a, b); }
  Value div(Operand a, Operand b) { return binary("div", a, b); }
  Value pow(Operand a, Operand b) { return binary("pow", a, b); }
  Value minimum(Operand a, Operand b) { return binary("minimum", a, b); }
  Value maximum(Operand a, Operand b) { return binary("maximum", a, b); }
  Value equal(Operand a, Operand b) { return binary("equal", a, b); }
  Value less(Operand a, Operand b) { return binary("less", a, b); }
  Value less_equal(Operand a, Operand b) { return binary("less_equal", a, b); }
  Value greater(Operand a, Operand b) { return binary("greater", a, b); }
  Value greater_equal(Operand a, Operand b) { return binary("greater_equal", a, b); }
  Value logical_and(Value a, Value b) { return op("logical_and", {a, b}); }
  Value logical_or(Value a, Value b) { return op("logical_or", {a, b}); }
  Value logical_not(Value a) { return op("logical_not", {a}); }
  Value select(Value condition, Operand yes, Operand no);

  Value unary(std::string_view name, Value x) { return op(name, {x}); }
  Value neg(Value x) { return unary("neg", x); }
  Value abs(Value x) { return unary("abs", x); }
  Value sign(Value x) { return unary("sign", x); }
  Value exp(Value x) { return unary("exp", x); }
  Value log(Value x) { return unary("log", x); }
  Value sin(Value x) { return unary("sin", x); }
  Value cos(Value x) { return unary("cos", x); }
  Value tanh(Value x) { return unary("tanh", x); }
  Value sigmoid(Value x) { return unary("sigmoid", x); }
  Value sqrt(Value x) { return unary("sqrt", x); }
  Value rsqrt(Value x) { return unary("rsqrt", x); }
  Value square(Value x) { return op("mul", {x, x}); }

  // The same value when the dtype is already that.
  Value cast(Value x, DType t);
  // Narrow floats as F32, for sums and transcendentals inside composed ops.
  Value widen(Value x) { return cast(x, compute_type(x.dtype())); }

  Value scalar(double v, DType t) { return g_.scalar(v, t); }
  Value full(Shape shape, double v, DType t);
  Value full_like(Value x, double v) { return full(x.shape(), v, x.dtype()); }
  // A dim's value as a scalar.
  Value dim(const Dim& d, DType t);
  Value iota(Shape shape, DType t, int axis);

  // The same value when the shape is already that.
  Value reshape(Value x, Shape shape);
  Value transpose(Value x, std::vector<std::int64_t> perm);
  Value swap_last_two(Value x);
  Value broadcast_to(Value x, Shape shape);
  Value unsqueeze(Value x, int axis);  // axis of the result, negative counts from its end
  Value squeeze(Value x, int axis);
  // [start, limit) along one axis.
  Value slice(Value x, int axis, Dim start, Dim limit);
  Value concat(std::vector<Value> xs, int axis);
  Value reverse(Value x, std::vector<std::int64_t> axes) {
    return op("reverse", {x}, {{"axes", std::move(axes)}});
  }
  // A vector along `axis` of a rank-`rank` tensor: [n] -> [1, n, 1, 1].
  Value along_axis(Value vector, int axis, int rank);

  Value reduce(std::string_view name, Value x, std::vector<std::int64_t> axes, bool keepdims);
  Value sum(Value x, std::vector<std::int64_t> axes, bool keepdims) {
    return reduce("sum", x, std::move(axes), keepdims);
  }
  Value mean(Value x, std::vector<std::int64_t> axes, bool keepdims) {
    return reduce("mean", x, std::move(axes), keepdims);
  }
  Value max(Value x, std::vector<std::int64_t> axes, bool keepdims) {
    return reduce("max", x, std::move(axes), keepdims);
  }
  Value matmul(Value a, Value b) { return op("matmul", {a, b}); }

 private:
  Graph& g_;
};

// [from, to)
std::vector<std::int64_t> axes_range(int from, int to);
// Every axis of a rank but one.
std::vector<std::int64_t> axes_except(int rank, int axis);

}  // namespace deepseek
