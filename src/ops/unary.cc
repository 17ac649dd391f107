// Elementwise functions of one tensor.
#include <cmath>
#include <numbers>

#include "ops/entries.h"

namespace deepseek {
namespace {

using LoopOp = loops::Op;
using Formula = std::function<Expr(const Node&, const Expr&)>;

OpBuilder unary(OpTable& t, std::string name, std::string doc, Accepts accepts, Formula f,
                UnaryGradient gradient = {}) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc)).input("x", accepts).infer(same_as());
  b.pointwise([f = std::move(f)](const Node& n, std::span<const Expr> in) { return f(n, in[0]); });
  if (gradient) b.gradient(unary_gradient(std::move(gradient)));
  return b;
}

Formula plain(LoopOp op) {
  return [op](const Node&, const Expr& x) { return loops::make(op, {x}); };
}
// Identity on integers, `op` on floats.
Formula rounding(LoopOp op) {
  return [op](const Node&, const Expr& x) { return is_float(x.type()) ? loops::make(op, {x}) : x; };
}

Value zero_gradient(GraphBuilder& g, const Node& n, Value) { return g.full_like(n.in(0), 0.0); }

void add_arithmetic(OpTable& t) {
  unary(
      t, "copy", "x itself, in memory of its own: what a compiler inserts to settle a view once.",
      Accepts::Any, [](const Node&, const Expr& x) { return x; },
      [](GraphBuilder&, const Node&, Value dy) { return dy; });
  t.add("stop_gradient")
      .doc("x itself, through which no gradient passes.")
      .input("x", Accepts::Any)
      .infer(same_as())
      .composed([](Graph&, const Node& n) { return std::vector<Value>{n.in(0)}; })
      .gradient([](Graph&, const Node&, std::span<const Value>, const std::vector<bool>&) {
        return std::vector<Value>(1);
      });
  unary(t, "neg", "-x; the smallest integer stays itself.", Accepts::Number, plain(LoopOp::Neg),
        [](GraphBuilder& g, const Node&, Value dy) { return g.neg(dy); });
  unary(
      t, "abs", "|x|; the gradient at 0 is 0.", Accepts::Number,
      [](const Node&, const Expr& x) { return is_signed(x.type()) ? loops::make(LoopOp::Abs, {x}) : x; },
      [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.sign(n.in(0))); });
  unary(
      t, "sign", "-1, 0 or 1 by the sign of x; NaN stays NaN.", Accepts::Number,
      [](const Node&, const Expr& x) {
        const Expr positive = loops::select(x > loops::zero(x.type()), loops::one(x.type()), x);
        if (!is_signed(x.type())) return positive;
        return loops::select(x < loops::zero(x.type()), -loops::one(x.type()), positive);
      },
      zero_gradient);
  unary(t, "floor", "The largest integer not above x.", Accepts::Number, rounding(LoopOp::Floor),
        zero_gradient);
  unary(t, "ceil", "The smallest integer not below x.", Accepts::Number, rounding(LoopOp::Ceil),
        zero_gradient);
  unary(t, "round", "The nearest integer, halves to even.", Accepts::Number, rounding(LoopOp::Round),
        zero_gradient);
  unary(t, "trunc", "x without its fraction.", Accepts::Number, rounding(LoopOp::Trunc), zero_gradient);
  unary(t, "sqrt", "The square root; NaN below 0.", Accepts::Float, plain(LoopOp::Sqrt),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.div(g.mul(dy, 0.5), n.out()); });
  unary(
      t, "rsqrt", "1 / sqrt(x).", Accepts::Float,
      [](const Node&, const Expr& x) { return loops::one(x.type()) / loops::make(LoopOp::Sqrt, {x}); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.mul(g.mul(dy, -0.5), g.mul(n.out(), g.square(n.out())));
      });
  unary(
      t, "reciprocal", "1 / x.", Accepts::Float,
      [](const Node&, const Expr& x) { return loops::one(x.type()) / x; },
      [](GraphBuilder& g, const Node& n, Value dy) { return g.neg(g.mul(dy, g.square(n.out()))); });
}

void add_exponentials(OpTable& t) {
  unary(t, "exp", "e to the x.", Accepts::Float, plain(LoopOp::Exp),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, n.out()); });
  unary(t, "expm1", "e to the x, minus 1, exact near 0.", Accepts::Float, plain(LoopOp::Expm1),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.add(n.out(), 1)); });
  unary(t, "log", "The natural logarithm; -inf at 0, NaN below.", Accepts::Float, plain(LoopOp::Log),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.div(dy, n.in(0)); });
  unary(t, "log1p", "log(1 + x), exact near 0.", Accepts::Float, plain(LoopOp::Log1p),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.div(dy, g.add(n.in(0), 1)); });
  unary(
      t, "log2", "The logarithm to base 2.", Accepts::Float,
      [](const Node&, const Expr& x) { return loops::make(LoopOp::Log, {x}) * std::numbers::log2e; },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.div(g.mul(dy, std::numbers::log2e), n.in(0));
      });
  unary(
      t, "log10", "The logarithm to base 10.", Accepts::Float,
      [](const Node&, const Expr& x) { return loops::make(LoopOp::Log, {x}) * std::numbers::log10e; },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return g.div(g.mul(dy, std::numbers::log10e), n.in(0));
      });
  unary(
      t, "exp2", "2 to the x.", Accepts::Float,
      [](const Node&, const Expr& x) {
        return loops::make(LoopOp::Pow, {loops::constant(x.type(), 2.0), x});
      },
      [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(g.mul(dy, std::numbers::ln2), n.out()); });
  unary(t, "erf", "The error function.", Accepts::Float, plain(LoopOp::Erf),
        [](GraphBuilder& g, const Node& n, Value dy) {
          return g.mul(dy, g.mul(g.exp(g.neg(g.square(n.in(0)))), 2 * std::numbers::inv_sqrtpi));
        });
  unary(t, "erfc", "1 - erf(x), exact for large x.", Accepts::Float, plain(LoopOp::Erfc),
        [](GraphBuilder& g, const Node& n, Value dy) {
          return g.mul(dy, g.mul(g.exp(g.neg(g.square(n.in(0)))), -2 * std::numbers::inv_sqrtpi));
        });
  unary(t, "lgamma", "log |gamma(x)|.", Accepts::Float, plain(LoopOp::LGamma),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.unary("digamma", n.in(0))); });
  unary(t, "digamma", "The derivative of lgamma; NaN at 0 and the negative integers.", Accepts::Float,
        plain(LoopOp::Digamma));
}

void add_trigonometry(OpTable& t) {
  unary(t, "sin", "The sine; x in radians.", Accepts::Float, plain(LoopOp::Sin),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.cos(n.in(0))); });
  unary(t, "cos", "The cosine; x in radians.", Accepts::Float, plain(LoopOp::Cos),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.neg(g.mul(dy, g.sin(n.in(0)))); });
  unary(t, "tan", "The tangent; x in radians.", Accepts::Float, plain(LoopOp::Tan),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.add(g.square(n.out()), 1)); });
  unary(t, "asin", "The inverse sine; NaN beyond [-1, 1].", Accepts::Float, plain(LoopOp::Asin),
        [](GraphBuilder& g, const Node& n, Value dy) {
          return g.mul(dy, g.rsqrt(g.sub(1, g.square(n.in(0)))));
        });
  unary(t, "acos", "The inverse cosine; NaN beyond [-1, 1].", Accepts::Float, plain(LoopOp::Acos),
        [](GraphBuilder& g, const Node& n, Value dy) {
          return g.neg(g.mul(dy, g.rsqrt(g.sub(1, g.square(n.in(0))))));
        });
  unary(t, "atan", "The inverse tangent.", Accepts::Float, plain(LoopOp::Atan),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.div(dy, g.add(g.square(n.in(0)), 1)); });
  unary(t, "sinh", "The hyperbolic sine.", Accepts::Float, plain(LoopOp::Sinh),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.unary("cosh", n.in(0))); });
  unary(t, "cosh", "The hyperbolic cosine.", Accepts::Float, plain(LoopOp::Cosh),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.unary("sinh", n.in(0))); });
  unary(t, "tanh", "The hyperbolic tangent.", Accepts::Float, plain(LoopOp::Tanh),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.mul(dy, g.sub(1, g.square(n.out()))); });
  unary(t, "asinh", "The inverse hyperbolic sine.", Accepts::Float, plain(LoopOp::Asinh),
        [](GraphBuilder& g, const Node& n, Value dy) {
          return g.mul(dy, g.rsqrt(g.add(g.square(n.in(0)), 1)));
        });
  unary(t, "acosh", "The inverse hyperbolic cosine; NaN below 1.", Accepts::Float, plain(LoopOp::Acosh),
        [](GraphBuilder& g, const Node& n, Value dy) {
          return g.mul(dy, g.rsqrt(g.sub(g.square(n.in(0)), 1)));
        });
  unary(t, "atanh", "The inverse hyperbolic tangent; NaN beyond [-1, 1].", Accepts::Float,
        plain(LoopOp::Atanh),
        [](GraphBuilder& g, const Node& n, Value dy) { return g.div(dy, g.sub(1, g.square(n.in(0)))); });
}

InferFn to_bool() {
  return [](const Node& n) { return std::vector<Type>{{DType::Bool, n.in(0).shape()}}; };
}

void add_tests(OpTable& t) {
  unary(t, "is_nan", "Whether x is NaN.", Accepts::Float, plain(LoopOp::IsNan)).infer(to_bool());
  unary(t, "is_inf", "Whether x is infinite, of the signs asked for.", Accepts::Float,
        [](const Node& n, const Expr& x) {
          const Expr infinite = loops::make(LoopOp::IsInf, {x});
          const bool positive = flag(n, "positive"), negative = flag(n, "negative");
          if (positive && negative) return infinite;
          if (positive) return infinite && (x > loops::zero(x.type()));
          if (negative) return infinite && (x < loops::zero(x.type()));
          return loops::constant(DType::Bool, std::int64_t{0});
        })
      .attr("positive", AttrKind::Bool, true, "Whether +inf counts.")
      .attr("negative", AttrKind::Bool, true, "Whether -inf counts.")
      .infer(to_bool());
  unary(t, "is_finite", "Whether x is neither NaN nor infinite.", Accepts::Float,
        [](const Node&, const Expr& x) {
          return !(loops::make(LoopOp::IsNan, {x}) || loops::make(LoopOp::IsInf, {x}));
        })
      .infer(to_bool());
}

void add_casts(OpTable& t) {
  const InferFn to_dtype = [](const Node& n) {
    return std::vector<Type>{{n.attr<DType>("dtype"), n.in(0).shape()}};
  };
  unary(
      t, "cast",
      "x in another dtype. Float to integer truncates, saturates and gives 0 for NaN; to bool is x != 0; to "
      "a narrower float rounds to nearest even; integers wrap.",
      Accepts::Real, [](const Node& n, const Expr& x) { return loops::cast(n.attr<DType>("dtype"), x); },
      [](GraphBuilder& g, const Node& n, Value dy) {
        return is_float(n.in(0).dtype()) && is_float(dy.dtype()) ? g.cast(dy, n.in(0).dtype()) : Value();
      })
      .attr("dtype", AttrKind::DType, "The result's dtype.")
      .infer(to_dtype);
  unary(t, "bitcast", "The bits of x read as another dtype of the same width.", Accepts::Number,
        [](const Node& n, const Expr& x) {
          return loops::bitcast(n.attr<DType>("dtype"), loops::cast(n.in(0).dtype(), x));
        })
      .attr("dtype", AttrKind::DType, "The result's dtype.")
      .infer([to_dtype](const Node& n) {
        if (bits(n.attr<DType>("dtype")) != bits(n.in(0).dtype()))
          bad_input(n, "a dtype of " + std::to_string(bits(n.in(0).dtype())) + " bits",
                    std::string(name(n.attr<DType>("dtype"))));
        return to_dtype(n);
      });
}

}  // namespace

void add_unary_ops(OpTable& t) {
  add_arithmetic(t);
  add_exponentials(t);
  add_trigonometry(t);
  add_tests(t);
  add_casts(t);
}

}  // namespace deepseek
