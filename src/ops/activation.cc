// Activations: elementwise functions with a name of their own in the field.
#include <numbers>

#include "ops/entries.h"

namespace deepseek {
namespace {

using LoopOp = loops::Op;
using Formula = std::function<Expr(const Node&, const Expr&)>;

OpBuilder activation(OpTable& t, std::string name, std::string doc, Formula f, UnaryGradient gradient) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc)).input("x", Accepts::Float).infer(same_as());
  b.pointwise([f = std::move(f)](const Node& n, std::span<const Expr> in) { return f(n, in[0]); });
  b.gradient(unary_gradient(std::move(gradient)));
  return b;
}

Expr zero_of(const Expr& x) { return loops::zero(x.type()); }
Expr exp(const Expr& x) { return loops::make(LoopOp::Exp, {x}); }
Expr tanh(const Expr& x) { return loops::make(LoopOp::Tanh, {x}); }
Expr sigmoid(const Expr& x) { return loops::make(LoopOp::Sigmoid, {x}); }
// log(1 + e^x) without overflow.
Expr softplus(const Expr& x) {
  const Expr tail = loops::make(LoopOp::Log1p, {exp(-loops::make(LoopOp::Abs, {x}))});
  return loops::max(x, zero_of(x)) + tail;
}
Expr positive_or(const Expr& x, Expr otherwise) {
  return loops::select(x > zero_of(x), x, std::move(otherwise));
}

// Constants of GELU's tanh form: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
constexpr double kSqrt2OverPi = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
constexpr double kGeluCubic = 0.044715;
// Constants of SELU: Klambauer et al., "Self-Normalizing Neural Networks", 2017.
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
constexpr double kSeluGamma = 1.0507009873554804934193349852946;

Expr gelu(const Node& n, const Expr& x) {
  if (text(n, "approximate") == "tanh")
    return x * 0.5 * (tanh((x + x * x * x * kGeluCubic) * kSqrt2OverPi) + 1.0);
  return x * 0.5 * (loops::make(LoopOp::Erf, {x * (1 / std::numbers::sqrt2)}) + 1.0);
}

Value gelu_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const Value x = n.in(0);
  if (text(n, "approximate") == "tanh") {
    const Value inner = g.mul(g.mul(x, g.add(g.mul(g.square(x), kGeluCubic), 1)), kSqrt2OverPi);
    const Value slope = g.mul(g.add(g.mul(g.square(x), 3 * kGeluCubic), 1), kSqrt2OverPi);
    const Value th = g.tanh(inner);
    const Value left = g.mul(g.add(th, 1), 0.5);
    const Value right = g.mul(g.mul(g.mul(x, 0.5), g.sub(1, g.square(th))), slope);
    return g.mul(dy, g.add(left, right));
  }
  const Value cdf = g.mul(g.add(g.unary("erf", g.mul(x, 1 / std::numbers::sqrt2)), 1), 0.5);
  const Value density = g.mul(g.exp(g.mul(g.square(x), -0.5)), kSqrt2OverPi / 2);
  return g.mul(dy, g.add(cdf, g.mul(x, density)));
}

void add_rectifiers(OpTable& t) {
  t.add("relu")
      .doc("max(x, 0), element by element; NaN stays NaN; the gradient at 0 is 0.")
      .input("x", Accepts::Number)
      .infer(same_as())
      .pointwise([](const Node&, std::span<const Expr> in) { return loops::max(in[0], zero_of(in[0])); })
      .gradient(unary_gradient(
          [](GraphBuilder& g, const Node& n, Value dy) { return g.select(g.greater(n.in(0), 0), dy, 0.0); }));
  t.add("relu6")
      .doc("x limited to [0, 6]; the gradient at both ends is 0.")
      .input("x", Accepts::Number)
      .infer(same_as())
      .pointwise([](const Node&, std::span<const Expr> in) {
        return loops::min(loops::max(in[0], zero_of(in[0])), Expr(6));
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        return g.select(g.logical_and(g.greater(n.in(0), 0), g.less(n.in(0), 6)), dy, 0.0);
      }));
  activation(
      t, "leaky_relu", "x above 0, slope * x below.",
      [](const Node& n, const Expr& x) { return positive_or(x, x * number(n, "slope")); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.select(g.greater(n.in(0), 0), dy, g.mul(dy, number(n, "slope")));
      })
      .attr("slope", AttrKind::Float, 0.01, "The slope below 0.");
  activation(
      t, "thresholded_relu", "x above alpha, 0 elsewhere.",
      [](const Node& n, const Expr& x) { return loops::select(x > Expr(number(n, "alpha")), x, zero_of(x)); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.select(g.greater(n.in(0), number(n, "alpha")), dy, 0.0);
      })
      .attr("alpha", AttrKind::Float, 1.0, "The threshold.");
  t.add("prelu")
      .doc("x above 0, slope * x below, the slope being a tensor that broadcasts (He et al., 2015).")
      .input("x", Accepts::Number)
      .input("slope", Accepts::Number)
      .infer(broadcast_inputs())
      .pointwise([](const Node&, std::span<const Expr> in) { return positive_or(in[0], in[0] * in[1]); })
      .gradient(elementwise_gradient([](GraphBuilder& g, const Node& n, int i, Value dy) {
        const Value positive = g.greater(n.in(0), 0);
        return i == 0 ? g.select(positive, dy, g.mul(dy, n.in(1)))
                      : g.select(positive, 0.0, g.mul(dy, n.in(0)));
      }));
  activation(
      t, "shrink", "x - bias above lambda, x + bias below -lambda, 0 between.",
      [](const Node& n, const Expr& x) {
        const double bias = number(n, "bias"), lambda = number(n, "lambda");
        return loops::select(x < Expr(-lambda), x + bias,
                             loops::select(x > Expr(lambda), x - bias, zero_of(x)));
      },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.select(g.greater(g.abs(n.in(0)), number(n, "lambda")), dy, 0.0);
      })
      .attr("lambda", AttrKind::Float, 0.5, "Where the flat part ends.")
      .attr("bias", AttrKind::Float, 0.0, "What is taken off outside the flat part.");
}

void add_exponential_units(OpTable& t) {
  activation(
      t, "elu", "x above 0, alpha * (exp(x) - 1) below (Clevert et al., 2015).",
      [](const Node& n, const Expr& x) {
        return positive_or(x, loops::make(LoopOp::Expm1, {x}) * number(n, "alpha"));
      },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const Value below = g.mul(dy, g.add(n.out(), number(n, "alpha")));
        return g.select(g.greater(n.in(0), 0), dy, below);
      })
      .attr("alpha", AttrKind::Float, 1.0, "The limit below.");
  activation(
      t, "celu", "x above 0, alpha * (exp(x / alpha) - 1) below (Barron, 2017).",
      [](const Node& n, const Expr& x) {
        const double alpha = number(n, "alpha");
        return positive_or(x, loops::make(LoopOp::Expm1, {x * (1 / alpha)}) * alpha);
      },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const Value below = g.mul(dy, g.exp(g.mul(n.in(0), 1 / number(n, "alpha"))));
        return g.select(g.greater(n.in(0), 0), dy, below);
      })
      .attr("alpha", AttrKind::Float, 1.0, "The limit below.");
  activation(
      t, "selu", "gamma * x above 0, gamma * alpha * (exp(x) - 1) below (Klambauer et al., 2017).",
      [](const Node& n, const Expr& x) {
        return positive_or(x, loops::make(LoopOp::Expm1, {x}) * number(n, "alpha")) * number(n, "gamma");
      },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const double gamma = number(n, "gamma");
        const Value below = g.mul(dy, g.add(n.out(), number(n, "alpha") * gamma));
        return g.select(g.greater(n.in(0), 0), g.mul(dy, gamma), below);
      })
      .attr("alpha", AttrKind::Float, kSeluAlpha, "")
      .attr("gamma", AttrKind::Float, kSeluGamma, "");
}

void add_sigmoids(OpTable& t) {
  activation(
      t, "sigmoid", "1 / (1 + exp(-x)).", [](const Node&, const Expr& x) { return sigmoid(x); },
      [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.mul(n.out(), g.sub(1, n.out()))); });
  activation(
      t, "log_sigmoid", "log(sigmoid(x)), without overflow.",
      [](const Node&, const Expr& x) { return -softplus(-x); },
      [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.sigmoid(g.neg(n.in(0)))); });
  activation(
      t, "softplus", "log(1 + exp(beta * x)) / beta, without overflow.",
      [](const Node& n, const Expr& x) { return softplus(x * number(n, "beta")) * (1 / number(n, "beta")); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.mul(dy, g.sigmoid(g.mul(n.in(0), number(n, "beta"))));
      })
      .attr("beta", AttrKind::Float, 1.0, "The sharpness.");
  activation(
      t, "softsign", "x / (1 + |x|).",
      [](const Node&, const Expr& x) { return x / (loops::make(LoopOp::Abs, {x}) + 1.0); },
      [](GraphBuilder& g, const Node& n, Value dy) { return g.div(dy, g.square(g.add(g.abs(n.in(0)), 1))); });
  activation(
      t, "silu", "x * sigmoid(x), also called swish.",
      [](const Node&, const Expr& x) { return x * sigmoid(x); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const Value s = g.sigmoid(n.in(0));
        return g.mul(dy, g.mul(s, g.add(g.mul(n.in(0), g.sub(1, s)), 1)));
      });
  activation(
      t, "mish", "x * tanh(softplus(x)) (Misra, 2019).",
      [](const Node&, const Expr& x) { return x * tanh(softplus(x)); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const Value th = g.tanh(g.op("softplus", {n.in(0)}));
        const Value slope = g.mul(g.mul(n.in(0), g.sigmoid(n.in(0))), g.sub(1, g.square(th)));
        return g.mul(dy, g.add(th, slope));
      });
  activation(t, "gelu",
             "x * Phi(x), Phi being the normal distribution (Hendrycks and Gimpel, 2016), or its tanh form.",
             gelu, gelu_gradient)
      .attr("approximate", AttrKind::String, std::string("none"), "\"none\" or \"tanh\".")
      .infer([](const Node& n) {
        const std::string& form = text(n, "approximate");
        if (form != "none" && form != "tanh")
          bad_input(n, "approximate \"none\" or \"tanh\"", "\"" + form + "\"");
        return same_as()(n);
      });
  activation(
      t, "hard_sigmoid", "alpha * x + beta limited to [0, 1].",
      [](const Node& n, const Expr& x) {
        const Expr line = x * number(n, "alpha") + number(n, "beta");
        return loops::min(loops::max(line, zero_of(x)), loops::one(x.type()));
      },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const Value inside = g.logical_and(g.greater(n.out(), 0), g.less(n.out(), 1));
        return g.select(inside, g.mul(dy, number(n, "alpha")), 0.0);
      })
      .attr("alpha", AttrKind::Float, 1.0 / 6, "The slope.")
      .attr("beta", AttrKind::Float, 0.5, "The value at 0.");
  activation(
      t, "hard_swish", "x * relu6(x + 3) / 6 (Howard et al., \"Searching for MobileNetV3\", 2019).",
      [](const Node&, const Expr& x) {
        return x * loops::min(loops::max(x + 3.0, zero_of(x)), Expr(6.0)) * (1.0 / 6);
      },
      [](GraphBuilder& g, const Node& n, Value dy) {
        const Value middle = g.mul(dy, g.add(g.mul(n.in(0), 1.0 / 3), 0.5));
        const Value upper = g.select(g.greater_equal(n.in(0), 3), dy, middle);
        return g.select(g.less_equal(n.in(0), -3), 0.0, upper);
      });
}

}  // namespace

void add_activation_ops(OpTable& t) {
  add_rectifiers(t);
  add_exponential_units(t);
  add_sigmoids(t);
}

}  // namespace deepseek
