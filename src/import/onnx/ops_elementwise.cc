// Elementwise ops: arithmetic, comparisons, logic, activations, casts.
#include <cmath>
#include <limits>
#include <numbers>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

Translate unary(std::string name) {
  return [name](Context& c) { c.out(c.e.unary(name, c.in(0))); };
}

// The second operand. Before opset 7 it broadcasts only where `broadcast` says so, and its axes are the first one's from
// `axis` on or, without that, the last ones.
Value second(Context& c) {
  const Value x = c.in(0), y = c.in(1);
  if (c.opset() >= 7 || c.attr("broadcast", 0) == 0 || !c.has_attr("axis")) return y;
  const int after = x.rank() - c.axis(c.attr("axis", 0), x.rank()) - y.rank();
  if (after < 0) c.bad("an axis from which the second operand fits", str(x.type()) + " and " + str(y.type()));
  Shape shape = y.shape();
  shape.resize(shape.size() + static_cast<std::size_t>(after), 1);
  return c.e.reshape(y, shape);
}

Translate binary(std::string name) {
  return [name](Context& c) { c.out(c.e.op(name, {c.in(0), second(c)})); };
}

// Folds any number of inputs with a binary op.
Value folded(Context& c, std::string_view name) {
  Value y = c.in(0);
  for (int i = 1; i < c.inputs(); ++i) y = c.e.op(name, {y, c.in(i)});
  return y;
}

Translate variadic(std::string name) {
  return [name](Context& c) { c.out(folded(c, name)); };
}

// An op of one input with attributes under other names.
struct Renamed {
  std::string from, to;
  double otherwise;
};
Translate with_attrs(std::string name, std::vector<Renamed> attrs) {
  return [name, attrs](Context& c) {
    Attrs values;
    for (const Renamed& a : attrs) values[a.to] = c.attr_f(a.from, a.otherwise);
    c.out(c.e.op(name, {c.in(0)}, std::move(values)));
  };
}

void mod(Context& c) {
  const bool truncates = c.attr("fmod", 0) != 0;
  c.out(c.e.op(truncates ? "rem" : "mod", {c.in(0), c.in(1)}));
}

void pow(Context& c) {
  const Value x = c.in(0), y = second(c);
  if (is_integer(x.dtype()) && is_float(y.dtype()))
    return c.out(c.e.cast(c.e.pow(c.e.cast(x, y.dtype()), y), x.dtype()));
  c.out(c.e.pow(x, c.e.cast(y, x.dtype())));
}

void bit_shift(Context& c) {
  const std::string direction = c.attr_s("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") c.bad("direction LEFT or RIGHT", "'" + direction + "'");
  c.out(c.e.op(direction == "LEFT" ? "shift_left" : "shift_right", {c.in(0), c.in(1)}));
}

void clip(Context& c) {
  const Value x = c.in(0);
  if (c.opset() < 11) {
    const Value low = c.has_attr("min") ? c.e.like(c.attr_f("min", 0), x) : Value();
    const Value high = c.has_attr("max") ? c.e.like(c.attr_f("max", 0), x) : Value();
    return c.out(c.e.op("clamp", {x, low, high}));
  }
  c.out(c.e.op("clamp", {x, c.in_or(1, {}), c.in_or(2, {})}));
}

// To a power of two by `round_mode`; limited to the type's range, or NaN beyond it.
Value cast_to_exponent(Context& c, Value x) {
  Emit& e = c.e;
  const double least = 0x1p-127, most = 0x1p127;
  const std::string mode = c.attr_s("round_mode", "up");
  if (mode != "up" && mode != "down" && mode != "nearest") c.bad("round_mode up, down or nearest", mode);
  x = e.cast(x, DType::F32);
  if (c.attr("saturate", 1) != 0)
    x = e.op("clamp", {x, e.like(least, x), e.like(most, x)});
  else
    x = e.select(e.less(x, least), std::numeric_limits<double>::quiet_NaN(), x);
  if (mode == "nearest") return e.cast(x, DType::F8E8M0);
  Value bits = e.op("bitcast", {x}, {{"dtype", DType::U32}});
  constexpr double mantissa = 0x7fffff, exponent = 0x7f800000;
  if (mode == "up") bits = e.add(bits, mantissa);
  bits = e.op("bit_and", {bits, e.like(exponent, bits)});
  Value power = e.op("bitcast", {bits}, {{"dtype", DType::F32}});
  if (mode == "down") power = e.maximum(power, least);
  return e.cast(e.select(e.less_equal(x, least), x, power), DType::F8E8M0);
}

Value cast(Context& c, DType to) {
  Emit& e = c.e;
  Value x = c.in(0);
  if (x.dtype() == to) return x;
  if (is_complex(to) || to == DType::String) c.unsupported("a real element type", std::string(name(to)));
  if (to == DType::F8E8M0) return cast_to_exponent(c, x);
  if (!is_float(x.dtype())) return e.cast(x, to);
  const auto limit = saturates_at(to);
  if (limit && (c.attr("saturate", 1) != 0 || to == DType::F4E2M1)) {
    x = e.widen(x);
    x = e.op("clamp", {x, e.like(-*limit, x), e.like(*limit, x)});
    if (to == DType::F4E2M1) x = e.select(e.unary("is_nan", x), 0, x);  // it has no NaN
  }
  // Floats become sub-byte integers by way of int32, whose low bits they keep.
  if (is_integer(to) && bits(to) < 8) x = e.cast(x, DType::I32);
  return e.cast(x, to);
}

Value bit_cast(Context& c, DType to) {
  Emit& e = c.e;
  Value x = c.in(0);
  if (x.dtype() == DType::Bool) x = e.cast(x, DType::U8);
  const DType bits_as = to == DType::Bool ? DType::U8 : to;
  if (x.dtype() != bits_as) x = e.op("bitcast", {x}, {{"dtype", bits_as}});
  return e.cast(x, to);
}

void where(Context& c) { c.out(c.e.select(c.in(0), c.in(1), c.in(2))); }

void is_inf(Context& c) {
  c.out(c.e.op(
      "is_inf", {c.in(0)},
      {{"positive", c.attr("detect_positive", 1) != 0}, {"negative", c.attr("detect_negative", 1) != 0}}));
}

void mean(Context& c) { c.out(c.e.div(folded(c, "add"), c.inputs())); }

void swish(Context& c) {
  const Value x = c.in(0);
  const double alpha = c.attr_f("alpha", 1);
  c.out(alpha == 1 ? c.e.unary("silu", x) : c.e.mul(x, c.e.sigmoid(c.e.mul(x, alpha))));
}

// The slope broadcasts like NumPy's arrays; before opset 7 it is one number, or one per channel.
void prelu(Context& c) {
  const Value x = c.in(0), slope = c.in(1);
  const bool per_channel = c.opset() < 7 && slope.rank() == 1 && !(slope.dim(0) == Dim(1));
  c.out(c.e.op("prelu", {x, per_channel ? c.e.along_axis(slope, 1, x.rank()) : slope}));
}

void shrink(Context& c) {
  const Value x = c.in(0);
  const double lambda = c.attr_f("lambd", 0.5), bias = c.attr_f("bias", 0);
  if (is_float(x.dtype())) return c.out(c.e.op("shrink", {x}, {{"lambda", lambda}, {"bias", bias}}));
  const Value wide = c.e.cast(x, DType::F32);
  c.out(c.e.cast(c.e.op("shrink", {wide}, {{"lambda", lambda}, {"bias", bias}}), x.dtype()));
}

void gelu(Context& c) {
  c.out(c.e.op("gelu", {c.in(0)}, {{"approximate", c.attr_s("approximate", "none")}}));
}

}  // namespace

void add_elementwise(Translators& t) {
  for (const auto& [onnx, ours] :
       std::initializer_list<std::pair<const char*, const char*>>{{"Abs", "abs"},
                                                                  {"Acos", "acos"},
                                                                  {"Acosh", "acosh"},
                                                                  {"Asin", "asin"},
                                                                  {"Asinh", "asinh"},
                                                                  {"Atan", "atan"},
                                                                  {"Atanh", "atanh"},
                                                                  {"Ceil", "ceil"},
                                                                  {"Cos", "cos"},
                                                                  {"Cosh", "cosh"},
                                                                  {"Erf", "erf"},
                                                                  {"Exp", "exp"},
                                                                  {"Floor", "floor"},
                                                                  {"HardSwish", "hard_swish"},
                                                                  {"IsNaN", "is_nan"},
                                                                  {"Log", "log"},
                                                                  {"Mish", "mish"},
                                                                  {"Neg", "neg"},
                                                                  {"Not", "logical_not"},
                                                                  {"BitwiseNot", "bit_not"},
                                                                  {"Reciprocal", "reciprocal"},
                                                                  {"Relu", "relu"},
                                                                  {"Round", "round"},
                                                                  {"Sigmoid", "sigmoid"},
                                                                  {"Sign", "sign"},
                                                                  {"Sin", "sin"},
                                                                  {"Sinh", "sinh"},
                                                                  {"Softsign", "softsign"},
                                                                  {"Softplus", "softplus"},
                                                                  {"Sqrt", "sqrt"},
                                                                  {"Tan", "tan"},
                                                                  {"Tanh", "tanh"}})
    t.add(onnx, unary(ours));
  for (const auto& [onnx, ours] :
       std::initializer_list<std::pair<const char*, const char*>>{{"Add", "add"},
                                                                  {"Sub", "sub"},
                                                                  {"Mul", "mul"},
                                                                  {"Div", "div"},
                                                                  {"Equal", "equal"},
                                                                  {"Less", "less"},
                                                                  {"LessOrEqual", "less_equal"},
                                                                  {"Greater", "greater"},
                                                                  {"GreaterOrEqual", "greater_equal"},
                                                                  {"And", "logical_and"},
                                                                  {"Or", "logical_or"},
                                                                  {"Xor", "logical_xor"},
                                                                  {"BitwiseAnd", "bit_and"},
                                                                  {"BitwiseOr", "bit_or"},
                                                                  {"BitwiseXor", "bit_xor"}})
    t.add(onnx, binary(ours));
  t.add("Sum", variadic("add"));
  t.add("Max", variadic("maximum"));
  t.add("Min", variadic("minimum"));
  t.add("Mean", mean);
  t.add("Elu", with_attrs("elu", {{"alpha", "alpha", 1}}));
  t.add("Celu", with_attrs("celu", {{"alpha", "alpha", 1}}));
  t.add("Selu", with_attrs("selu", {{"alpha", "alpha", 1.67326319217681884765625},
                                    {"gamma", "gamma", 1.05070102214813232421875}}));
  t.add("LeakyRelu", with_attrs("leaky_relu", {{"alpha", "slope", 0.01}}));
  t.add("ThresholdedRelu", with_attrs("thresholded_relu", {{"alpha", "alpha", 1}}));
  t.add("HardSigmoid", with_attrs("hard_sigmoid", {{"alpha", "alpha", 0.2}, {"beta", "beta", 0.5}}));
  t.add("Mod", mod);
  t.add("Pow", pow);
  t.add("BitShift", bit_shift);
  t.add("Clip", clip);
  t.add("Cast", [](Context& c) { c.out(cast(c, dtype_of(c.need_attr("to")))); });
  t.add("CastLike", [](Context& c) { c.out(cast(c, c.dtype(1))); });
  t.add("BitCast", [](Context& c) { c.out(bit_cast(c, dtype_of(c.need_attr("to")))); });
  t.add("Where", where);
  t.add("IsInf", is_inf);
  t.add("Swish", swish);
  t.add("PRelu", prelu);
  t.add("Shrink", shrink);
  t.add("Gelu", gelu);
  t.add("Identity", [](Context& c) { c.out(0, c.item(0)); });
}

}  // namespace deepseek::onnx_import
