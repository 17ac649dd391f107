// Elementwise arithmetic and comparisons of two or three tensors, with NumPy's broadcasting.
#include "ops/entries.h"

namespace deepseek {
namespace {

using LoopOp = loops::Op;
using Formula = std::function<Expr(const Expr&, const Expr&)>;

OpBuilder binary(OpTable& t, std::string name, std::string doc, Accepts accepts, Formula f,
                 ElementwiseGradient gradient = {}) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc)).input("a", accepts).input("b", accepts).infer(broadcast_inputs());
  b.pointwise([f = std::move(f)](const Node&, std::span<const Expr> in) { return f(in[0], in[1]); });
  if (gradient) b.gradient(elementwise_gradient(std::move(gradient)));
  return b;
}

Formula plain(LoopOp op) {
  return [op](const Expr& a, const Expr& b) { return loops::make(op, {a, b}); };
}

// Half of dy to each side of a tie, so that the two gradients add up to dy.
Value choose_gradient(GraphBuilder& g, const Node& n, int i, Value dy, std::string_view wins) {
  const Value mine = n.in(i), other = n.in(1 - i);
  return g.select(g.equal(mine, other), g.mul(dy, 0.5), g.select(g.op(wins, {mine, other}), dy, 0.0));
}

Value pow_gradient(GraphBuilder& g, const Node& n, int i, Value dy) {
  const Value a = n.in(0), b = n.in(1);
  if (i == 0) {
    const Value slope = g.mul(b, g.pow(a, g.sub(b, 1)));
    return g.mul(dy, g.select(g.equal(b, 0), 0.0, slope));
  }
  const Value flat = g.logical_and(g.equal(a, 0), g.greater_equal(b, 0));
  return g.mul(dy, g.select(flat, 0.0, g.mul(n.out(), g.log(a))));
}

void add_arithmetic(OpTable& t) {
  binary(t, "add", "a + b.", Accepts::Number, plain(LoopOp::Add),
         [](GraphBuilder&, const Node&, int, Value dy) { return dy; });
  binary(t, "sub", "a - b.", Accepts::Number, plain(LoopOp::Sub),
         [](GraphBuilder& g, const Node&, int i, Value dy) { return i == 0 ? dy : g.neg(dy); });
  binary(t, "mul", "a * b.", Accepts::Number, plain(LoopOp::Mul),
         [](GraphBuilder& g, const Node& n, int i, Value dy) { return g.mul(dy, n.in(1 - i)); });
  binary(t, "div", "a / b; integers truncate towards zero, dividing them by 0 is an error.", Accepts::Number,
         plain(LoopOp::Div), [](GraphBuilder& g, const Node& n, int i, Value dy) {
           return i == 0 ? g.div(dy, n.in(1)) : g.neg(g.div(g.mul(dy, n.out()), n.in(1)));
         });
  binary(t, "floor_div", "floor(a / b), Python's //; dividing integers by 0 is an error.", Accepts::Number,
         [](const Expr& a, const Expr& b) {
           return is_float(a.type()) ? loops::make(LoopOp::Floor, {a / b}) : loops::floordiv(a, b);
         });
  binary(t, "mod",
         "a - b*floor(a/b): the remainder with the sign of b, Python's %; an error for integers and b = 0.",
         Accepts::Number, plain(LoopOp::Mod), [](GraphBuilder& g, const Node& n, int i, Value dy) {
           return i == 0 ? dy : g.neg(g.mul(dy, g.unary("floor", g.div(n.in(0), n.in(1)))));
         });
  binary(t, "rem",
         "a - b*trunc(a/b): the remainder with the sign of a, C's fmod; an error for integers and b = 0.",
         Accepts::Number, plain(LoopOp::Rem), [](GraphBuilder& g, const Node& n, int i, Value dy) {
           return i == 0 ? dy : g.neg(g.mul(dy, g.unary("trunc", g.div(n.in(0), n.in(1)))));
         });
  binary(
      t, "pow",
      "a to the b. Integers wrap; a negative exponent gives the power truncated towards 0, and 0 for a = 0.",
      Accepts::Number, plain(LoopOp::Pow), pow_gradient);
  binary(t, "atan2", "The angle of the point (b, a), in [-pi, pi].", Accepts::Float, plain(LoopOp::Atan2),
         [](GraphBuilder& g, const Node& n, int i, Value dy) {
           const Value scaled = g.div(dy, g.add(g.square(n.in(0)), g.square(n.in(1))));
           return i == 0 ? g.mul(scaled, n.in(1)) : g.neg(g.mul(scaled, n.in(0)));
         });
  binary(t, "minimum", "The smaller one; NaN if either is. Ties share the gradient.", Accepts::Number,
         plain(LoopOp::Min), [](GraphBuilder& g, const Node& n, int i, Value dy) {
           return choose_gradient(g, n, i, dy, "less");
         });
  binary(t, "maximum", "The larger one; NaN if either is. Ties share the gradient.", Accepts::Number,
         plain(LoopOp::Max), [](GraphBuilder& g, const Node& n, int i, Value dy) {
           return choose_gradient(g, n, i, dy, "greater");
         });
}

void add_comparisons(OpTable& t) {
  const auto compare = [&t](std::string name, std::string doc, Accepts accepts, Formula f) {
    binary(t, std::move(name), std::move(doc), accepts, std::move(f)).infer(broadcast_to_dtype(DType::Bool));
  };
  compare("equal", "a == b; false with NaN.", Accepts::Real,
          [](const Expr& a, const Expr& b) { return a == b; });
  compare("not_equal", "a != b; true with NaN.", Accepts::Real,
          [](const Expr& a, const Expr& b) { return a != b; });
  compare("less", "a < b; false with NaN.", Accepts::Number,
          [](const Expr& a, const Expr& b) { return a < b; });
  compare("less_equal", "a <= b; false with NaN.", Accepts::Number,
          [](const Expr& a, const Expr& b) { return a <= b; });
  compare("greater", "a > b; false with NaN.", Accepts::Number,
          [](const Expr& a, const Expr& b) { return a > b; });
  compare("greater_equal", "a >= b; false with NaN.", Accepts::Number,
          [](const Expr& a, const Expr& b) { return a >= b; });
}

void add_logic(OpTable& t) {
  binary(t, "logical_and", "Whether both hold.", Accepts::Bool, plain(LoopOp::And));
  binary(t, "logical_or", "Whether one at least holds.", Accepts::Bool, plain(LoopOp::Or));
  binary(t, "logical_xor", "Whether exactly one holds.", Accepts::Bool, plain(LoopOp::Xor));
  binary(t, "bit_and", "The bits set in both.", Accepts::IntegerOrBool, plain(LoopOp::And));
  binary(t, "bit_or", "The bits set in either.", Accepts::IntegerOrBool, plain(LoopOp::Or));
  binary(t, "bit_xor", "The bits set in one of the two.", Accepts::IntegerOrBool, plain(LoopOp::Xor));
  binary(t, "shift_left", "a * 2**b; 0 when b is the width or more.", Accepts::Integer, plain(LoopOp::Shl));
  binary(t, "shift_right", "floor(a / 2**b), the sign kept; 0 or -1 when b is the width or more.",
         Accepts::Integer, plain(LoopOp::Shr));
  const auto inverse = [&t](std::string name, std::string doc, Accepts accepts) {
    t.add(std::move(name))
        .doc(std::move(doc))
        .input("x", accepts)
        .infer(same_as())
        .pointwise([](const Node&, std::span<const Expr> in) { return loops::make(LoopOp::Not, {in[0]}); });
  };
  inverse("logical_not", "Whether x does not hold.", Accepts::Bool);
  inverse("bit_not", "Every bit turned over.", Accepts::IntegerOrBool);
}

void add_ternary(OpTable& t) {
  t.add("select")
      .doc("yes where the condition holds, no elsewhere; NaN in the branch not taken does no harm.")
      .input_free("condition", Accepts::Bool)
      .input("yes")
      .input("no")
      .infer(
          [](const Node& n) { return std::vector<Type>{{n.in(1).dtype(), broadcast_inputs()(n)[0].shape}}; })
      .pointwise([](const Node&, std::span<const Expr> in) { return loops::select(in[0], in[1], in[2]); })
      .gradient(elementwise_gradient([](GraphBuilder& g, const Node& n, int i, Value dy) {
        if (i == 0) return Value();
        return i == 1 ? g.select(n.in(0), dy, 0.0) : g.select(n.in(0), 0.0, dy);
      }));
  t.add("clamp")
      .doc(
          "x limited to [low, high], either of which may be absent; high wins where they cross; NaN stays "
          "NaN.")
      .input("x", Accepts::Number)
      .input_optional("low", Accepts::Number)
      .input_optional("high", Accepts::Number)
      .infer(broadcast_inputs())
      .pointwise([](const Node& n, std::span<const Expr> in) {
        Expr x = in[0];
        if (n.has(1)) x = loops::max(x, in[1]);
        if (n.has(2)) x = loops::min(x, in[2]);
        return x;
      })
      .gradient(elementwise_gradient([](GraphBuilder& g, const Node& n, int i, Value dy) {
        const Value x = n.in(0);
        const Value above = n.has(1) ? g.greater_equal(x, n.in(1)) : Value();
        const Value below = n.has(2) ? g.less_equal(x, n.in(2)) : Value();
        if (i == 0) {
          if (!above && !below) return dy;
          return g.select(!above ? below : !below ? above : g.logical_and(above, below), dy, 0.0);
        }
        if (i == 2) return g.select(below, 0.0, dy);
        const Value raised = g.select(above, 0.0, dy);
        return n.has(2) ? g.select(g.greater(n.in(1), n.in(2)), 0.0, raised) : raised;
      }));
  t.add("fma")
      .doc("a*b + c, rounded once.")
      .input("a", Accepts::Float)
      .input("b", Accepts::Float)
      .input("c", Accepts::Float)
      .infer(broadcast_inputs())
      .pointwise([](const Node&, std::span<const Expr> in) {
        return loops::make(LoopOp::Fma, {in[0], in[1], in[2]});
      })
      .gradient(elementwise_gradient([](GraphBuilder& g, const Node& n, int i, Value dy) {
        return i == 2 ? dy : g.mul(dy, n.in(1 - i));
      }));
}

}  // namespace

void add_binary_ops(OpTable& t) {
  add_arithmetic(t);
  add_comparisons(t);
  add_logic(t);
  add_ternary(t);
}

}  // namespace deepseek
