// Elementwise ops of floats and of any dtype.
#include <cmath>
#include <numbers>

#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

namespace {

using Write = std::function<Names(Writer&, const Node&)>;

Write operators(std::string_view type) {
  return [type](Writer& w, const Node& n) { return Names{w.add(type, w.all(n))}; };
}

// Integers are whole already.
Write rounding(std::string_view type) {
  return [type](Writer& w, const Node& n) {
    return Names{w.add(is_float(n.in(0).dtype()) ? type : "Identity", w.all(n))};
  };
}

// An operator with float attributes of ours under ONNX's names.
Write with_floats(std::string_view type, std::vector<std::pair<const char*, const char*>> attributes) {
  return [type, attributes](Writer& w, const Node& n) {
    Attributes given;
    for (const auto& [onnx, ours] : attributes) given.emplace_back(onnx, n.attr<double>(ours));
    return Names{w.add(type, w.all(n), std::move(given))};
  };
}

std::string like(Writer& w, const Node& n, double v) { return w.scalar(v, n.in(0).dtype()); }

Names scaled_log(Writer& w, const Node& n, double base) {
  return {w.add("Mul", {w.add("Log", {w.in(n, 0)}), like(w, n, 1 / std::log(base))})};
}

// Kahan's way: the error that exp(x) makes near 1 is that of its logarithm.
Names expm1(Writer& w, const Node& n) {
  const std::string x = w.in(n, 0), one = like(w, n, 1), u = w.add("Exp", {x}), d = w.add("Sub", {u, one});
  const std::string corrected = w.add("Div", {w.add("Mul", {d, x}), w.add("Log", {u})});
  // exp(x) is 1: x. It is infinite or nothing beside 1: exp(x) - 1.
  const std::string far = w.add("Less", {like(w, n, 0.5), w.add("Abs", {x})});
  return {w.add("Where", {far, d, w.add("Where", {w.add("Equal", {u, one}), x, corrected})})};
}

Names log1p(Writer& w, const Node& n) {
  const std::string x = w.in(n, 0), one = like(w, n, 1), u = w.add("Add", {x, one}), log = w.add("Log", {u}),
                    d = w.add("Sub", {u, one});
  const std::string corrected = w.add("Div", {w.add("Mul", {log, x}), d});
  const std::string far = w.add("Less", {like(w, n, 0.5), w.add("Abs", {x})});
  return {w.add("Where", {far, log, w.add("Where", {w.add("Equal", {u, one}), x, corrected})})};
}

// The angle in the first octant, turned into the others.
Names atan2(Writer& w, const Node& n) {
  const std::string y = w.in(n, 0), x = w.in(n, 1), zero = like(w, n, 0), one = like(w, n, 1);
  const std::string up = w.add("Abs", {y}), across = w.add("Abs", {x});
  const std::string low = w.add("Min", {up, across}), high = w.add("Max", {up, across});
  std::string ratio = w.add("Div", {low, high});
  ratio = w.add("Where", {w.add("Equal", {low, high}),
                          w.add("Where", {w.add("Equal", {high, zero}), zero, one}), ratio});
  std::string angle = w.add("Atan", {ratio});
  angle = w.add("Where", {w.add("Greater", {up, across}),
                          w.add("Sub", {like(w, n, std::numbers::pi / 2), angle}), angle});
  // A zero has a sign: that of its reciprocal.
  const auto negative = [&](const std::string& v) {
    return w.add("Less", {w.add("Where", {w.add("Equal", {v, zero}), w.add("Div", {one, v}), v}), zero});
  };
  angle = w.add("Where", {negative(x), w.add("Sub", {like(w, n, std::numbers::pi), angle}), angle});
  return {w.add("Where", {negative(y), w.add("Neg", {angle}), angle})};
}

Names celu(Writer& w, const Node& n) {
  const double alpha = n.attr<double>("alpha");
  const DType t = n.in(0).dtype();
  return {in_type(w, w.in(n, 0), t, t == DType::F64 ? t : DType::F32, [&](const std::string& x) {
    if (t != DType::F64) return w.add("Celu", {x}, {{"alpha", alpha}});
    const std::string curve =
        w.add("Sub", {w.add("Exp", {w.add("Div", {x, w.scalar(alpha, t)})}), w.scalar(1, t)});
    return w.add("Where",
                 {w.add("Greater", {x, w.scalar(0, t)}), x, w.add("Mul", {curve, w.scalar(alpha, t)})});
  })};
}

Names softplus(Writer& w, const Node& n) {
  const double beta = n.attr<double>("beta");
  if (beta == 1) return {w.add("Softplus", {w.in(n, 0)})};
  return {
      w.add("Div", {w.add("Softplus", {w.add("Mul", {w.in(n, 0), like(w, n, beta)})}), like(w, n, beta)})};
}

Names clamp(Writer& w, const Node& n) {
  const bool scalars = (!n.has(1) || n.in(1).rank() == 0) && (!n.has(2) || n.in(2).rank() == 0);
  if (scalars && n.has(1) + n.has(2) > 0) return {w.add("Clip", {w.in(n, 0), w.in(n, 1), w.in(n, 2)})};
  std::string x = w.in(n, 0);
  if (n.has(1)) x = w.add("Max", {x, w.in(n, 1)});
  return {n.has(2) ? w.add("Min", {x, w.in(n, 2)}) : x};
}

Names trunc(Writer& w, const Node& n) {
  const std::string x = w.in(n, 0);
  if (!is_float(n.in(0).dtype())) return {w.add("Identity", {x})};
  return {w.add("Where", {w.add("Less", {x, like(w, n, 0)}), w.add("Ceil", {x}), w.add("Floor", {x})})};
}

Names is_inf(Writer& w, const Node& n) {
  return {w.add("IsInf", {w.in(n, 0)},
                {{"detect_positive", std::int64_t{n.attr<bool>("positive")}},
                 {"detect_negative", std::int64_t{n.attr<bool>("negative")}}})};
}

Names is_finite(Writer& w, const Node& n) {
  const std::string x = w.in(n, 0);
  return {w.add("Not", {w.add("Or", {w.add("IsNaN", {x}), w.add("IsInf", {x})})})};
}

Names cast(Writer& w, const Node& n) { return {w.cast(w.in(n, 0), n.outputs[0].dtype)}; }

Names prelu(Writer& w, const Node& n) {
  const std::string x = w.in(n, 0), slope = w.in(n, 1);
  return {w.add("Where", {w.add("Greater", {x, like(w, n, 0)}), x, w.add("Mul", {x, slope})})};
}

// (x - zero_point) * scale, by the definition where scales do not belong to one axis.
Names dequantize(Writer& w, const Node& n) {
  const DType t = n.in(1).dtype();
  if (n.in(1).rank() == 0 && t != DType::F64 && (!n.has(2) || n.in(2).rank() == 0))
    return {w.add("DequantizeLinear", w.all(n))};
  const DType wide = t == DType::F64 ? t : DType::F32;
  std::string x = w.cast(w.in(n, 0), wide);
  if (n.has(2)) x = w.add("Sub", {x, w.cast(w.in(n, 2), wide)});
  x = w.add("Mul", {x, t == wide ? w.in(n, 1) : w.cast(w.in(n, 1), wide)});
  return {t == wide ? x : w.cast(x, t)};
}

Names quantize(Writer& w, const Node& n) {
  const DType t = n.outputs[0].dtype, real = n.in(0).dtype();
  if (n.in(1).rank() == 0 && real != DType::F64 && n.in(1).dtype() == real &&
      (!n.has(2) || n.in(2).rank() == 0))
    return {w.add("QuantizeLinear", w.all(n), {{"output_dtype", std::int64_t{type_of(t)}}})};
  const int width = bits(t) - (is_signed(t) ? 1 : 0);
  const double high = std::ldexp(1.0, width) - 1, low = is_signed(t) ? -high - 1 : 0;
  std::string y = w.add("Round", {w.add("Div", {w.in(n, 0), w.in(n, 1)})});
  if (n.has(2)) y = w.add("Add", {y, w.cast(w.in(n, 2), real)});
  return {w.cast(w.add("Clip", {y, w.scalar(low, real), w.scalar(high, real)}), t)};
}

Names dequantize_blocks(Writer& w, const Node& n) {
  return {w.add("DequantizeLinear", w.all(n),
                {{"axis", n.attr<std::int64_t>("axis")}, {"block_size", n.attr<std::int64_t>("block")}})};
}

Names negative(Writer& w, const Node& n) {
  const DType t = n.in(0).dtype();
  if (is_integer(t) && !is_signed(t)) return {w.add("Sub", {w.scalar(0, t), w.in(n, 0)})};
  return {w.add("Neg", {w.in(n, 0)})};
}

}  // namespace

void add_elementwise_rules(Rules& r) {
  for (const auto& [ours, onnx] :
       std::initializer_list<std::pair<const char*, const char*>>{{"abs", "Abs"},
                                                                  {"acos", "Acos"},
                                                                  {"acosh", "Acosh"},
                                                                  {"add", "Add"},
                                                                  {"asin", "Asin"},
                                                                  {"asinh", "Asinh"},
                                                                  {"atan", "Atan"},
                                                                  {"atanh", "Atanh"},
                                                                  {"copy", "Identity"},
                                                                  {"stop_gradient", "Identity"},
                                                                  {"cos", "Cos"},
                                                                  {"cosh", "Cosh"},
                                                                  {"equal", "Equal"},
                                                                  {"erf", "Erf"},
                                                                  {"exp", "Exp"},
                                                                  {"greater", "Greater"},
                                                                  {"hard_swish", "HardSwish"},
                                                                  {"is_nan", "IsNaN"},
                                                                  {"less", "Less"},
                                                                  {"greater_equal", "GreaterOrEqual"},
                                                                  {"less_equal", "LessOrEqual"},
                                                                  {"log", "Log"},
                                                                  {"logical_and", "And"},
                                                                  {"logical_not", "Not"},
                                                                  {"logical_or", "Or"},
                                                                  {"logical_xor", "Xor"},
                                                                  {"maximum", "Max"},
                                                                  {"minimum", "Min"},
                                                                  {"mish", "Mish"},
                                                                  {"mul", "Mul"},
                                                                  {"reciprocal", "Reciprocal"},
                                                                  {"relu", "Relu"},
                                                                  {"select", "Where"},
                                                                  {"sigmoid", "Sigmoid"},
                                                                  {"sign", "Sign"},
                                                                  {"sin", "Sin"},
                                                                  {"sinh", "Sinh"},
                                                                  {"softsign", "Softsign"},
                                                                  {"sqrt", "Sqrt"},
                                                                  {"sub", "Sub"},
                                                                  {"tan", "Tan"},
                                                                  {"tanh", "Tanh"}})
    r.add(ours, operators(onnx));
  for (const auto& [ours, onnx] : std::initializer_list<std::pair<const char*, const char*>>{
           {"ceil", "Ceil"}, {"floor", "Floor"}, {"round", "Round"}})
    r.add(ours, rounding(onnx));
  r.add("elu", with_floats("Elu", {{"alpha", "alpha"}}));
  r.add("hard_sigmoid", with_floats("HardSigmoid", {{"alpha", "alpha"}, {"beta", "beta"}}));
  r.add("leaky_relu", with_floats("LeakyRelu", {{"alpha", "slope"}}));
  r.add("selu", with_floats("Selu", {{"alpha", "alpha"}, {"gamma", "gamma"}}));
  r.add("shrink", with_floats("Shrink", {{"lambd", "lambda"}, {"bias", "bias"}}));
  r.add("thresholded_relu", with_floats("ThresholdedRelu", {{"alpha", "alpha"}}));
  r.add("atan2", atan2);
  r.add("cast", cast);
  r.add("celu", celu);
  r.add("clamp", clamp);
  r.add("dequantize", dequantize);
  r.add("dequantize_blocks", dequantize_blocks);
  r.add("erfc", [](Writer& w, const Node& n) {
    return Names{w.add("Sub", {like(w, n, 1), w.add("Erf", {w.in(n, 0)})})};
  });
  r.add("exp2", [](Writer& w, const Node& n) { return Names{w.add("Pow", {like(w, n, 2), w.in(n, 0)})}; });
  r.add("expm1", expm1);
  r.add("fma", [](Writer& w, const Node& n) {
    return Names{w.add("Add", {w.add("Mul", {w.in(n, 0), w.in(n, 1)}), w.in(n, 2)})};
  });
  r.add("gelu", [](Writer& w, const Node& n) {
    return Names{w.add("Gelu", {w.in(n, 0)}, {{"approximate", n.attr<std::string>("approximate")}})};
  });
  r.add("is_finite", is_finite);
  r.add("is_inf", is_inf);
  r.add("log10", [](Writer& w, const Node& n) { return scaled_log(w, n, 10); });
  r.add("log1p", log1p);
  r.add("log2", [](Writer& w, const Node& n) { return scaled_log(w, n, 2); });
  r.add("log_sigmoid", [](Writer& w, const Node& n) {
    return Names{w.add("Neg", {w.add("Softplus", {w.add("Neg", {w.in(n, 0)})})})};
  });
  r.add("neg", negative);
  r.add("not_equal",
        [](Writer& w, const Node& n) { return Names{w.add("Not", {w.add("Equal", w.all(n))})}; });
  r.add("prelu", prelu);
  r.add("quantize", quantize);
  r.add("relu6", [](Writer& w, const Node& n) {
    return Names{w.add("Clip", {w.in(n, 0), like(w, n, 0), like(w, n, 6)})};
  });
  r.add("rsqrt",
        [](Writer& w, const Node& n) { return Names{w.add("Reciprocal", {w.add("Sqrt", {w.in(n, 0)})})}; });
  r.add("silu", [](Writer& w, const Node& n) {
    return Names{w.add("Mul", {w.in(n, 0), w.add("Sigmoid", {w.in(n, 0)})})};
  });
  r.add("softplus", softplus);
  r.add("trunc", trunc);
}

}  // namespace deepseek::onnx_export
