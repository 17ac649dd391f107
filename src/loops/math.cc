#include "loops/math.h"

#include <unordered_map>

#include "loops/math_functions.h"

namespace deepseek::loops {
namespace {

using math::Trigonometric;

Expr wide(const Expr& x) { return cast(DType::F64, x); }

// F32 that has its own version.
Expr single(Op op, const Expr& x) {
  switch (op) {
    case Op::Exp:
      return math::exp32(x);
    case Op::Expm1:
      return math::expm1(x);
    case Op::Log:
      return math::log32(x);
    case Op::Log1p:
      return math::log1p(x);
    case Op::Tanh:
      return math::tanh32(x);
    case Op::Sigmoid:
      return math::sigmoid32(x);
    case Op::Erf:
      return math::erf32(x);
    case Op::Sin:
      return cast(DType::F32, math::trigonometric32(Trigonometric::Sin, wide(x)));
    case Op::Cos:
      return cast(DType::F32, math::trigonometric32(Trigonometric::Cos, wide(x)));
    case Op::Tan:
      return cast(DType::F32, math::trigonometric32(Trigonometric::Tan, wide(x)));
    default:
      return {};
  }
}

Expr unary(Op op, const Expr& x) {
  switch (op) {
    case Op::Exp:
      return math::exp64(x);
    case Op::Expm1:
      return math::expm1(x);
    case Op::Log:
      return math::log64(x);
    case Op::Log1p:
      return math::log1p(x);
    case Op::Sin:
      return math::trigonometric64(Trigonometric::Sin, x);
    case Op::Cos:
      return math::trigonometric64(Trigonometric::Cos, x);
    case Op::Tan:
      return math::trigonometric64(Trigonometric::Tan, x);
    case Op::Asin:
      return math::asin64(x);
    case Op::Acos:
      return math::acos64(x);
    case Op::Atan:
      return math::atan64(x);
    case Op::Sinh:
      return math::sinh64(x);
    case Op::Cosh:
      return math::cosh64(x);
    case Op::Tanh:
      return math::tanh64(x);
    case Op::Sigmoid:
      return math::sigmoid64(x);
    case Op::Asinh:
      return math::asinh64(x);
    case Op::Acosh:
      return math::acosh64(x);
    case Op::Atanh:
      return math::atanh64(x);
    case Op::Erf:
      return math::erf64(x);
    case Op::Erfc:
      return math::erfc64(x);
    case Op::LGamma:
      return math::lgamma64(x);
    case Op::Digamma:
      return math::digamma64(x);
    default:
      return {};
  }
}

// x to a constant power that few multiplications give, as exactly as pow does.
Expr constant_power(const Expr& x, const Expr& y) {
  const double* p = y.is_const() ? std::get_if<double>(&y->value) : nullptr;
  if (!p) return {};
  if (*p == 2) return x * x;
  if (*p == 1) return x;
  if (*p == 0) return one(x.type());
  if (*p == -1) return one(x.type()) / x;
  return {};
}

Expr binary(Op op, const Expr& a, const Expr& b) {
  const bool is_single = a.type() == DType::F32;
  switch (op) {
    case Op::Rem:
      return math::rem(a, b);
    case Op::Mod:
      return math::mod(a, b);
    case Op::FloorDiv:
      return math::floor_div(a, b);
    case Op::Atan2:
      return is_single ? cast(DType::F32, math::atan2_64(wide(a), wide(b))) : math::atan2_64(a, b);
    case Op::Pow:
      if (Expr e = constant_power(a, b)) return e;
      return is_single ? cast(DType::F32, math::pow32(wide(a), wide(b))) : math::pow64(a, b);
    case Op::Ldexp:
      return math::ldexp32(a, b);
    default:
      return {};
  }
}

bool is_function(Op op) {
  return (op >= Op::Exp && op <= Op::Digamma) || op == Op::Pow || op == Op::Atan2 || op == Op::Ldexp ||
         op == Op::Rem || op == Op::Mod || op == Op::FloorDiv;
}

Expr in_integers(const Expr& e) {
  return e.op() == Op::Ldexp ? math::ldexp32(e->args[0], e->args[1]) : Expr();
}

Expr expanded(const Expr& e, bool has_ldexp) {
  if (!is_function(e.op()) || (has_ldexp && e.op() == Op::Ldexp)) return {};
  const DType t = e.type();
  if (!is_float(t)) return e.op() == Op::Pow ? math::integer_pow(e->args[0], e->args[1]) : Expr();
  if (bits(t) < 32) {
    std::vector<Expr> args;
    for (const Expr& a : e->args) args.push_back(cast(DType::F32, a));
    return cast(t, expand_math(make(e.op(), std::move(args)), has_ldexp));
  }
  if (e->args.size() == 2) return binary(e.op(), e->args[0], e->args[1]);
  if (t == DType::F64) return unary(e.op(), e->args[0]);
  if (Expr own = single(e.op(), e->args[0])) return has_ldexp ? own : rewrite(own, in_integers);
  return cast(DType::F32, unary(e.op(), wide(e->args[0])));
}

class Expander {
 public:
  explicit Expander(bool has_ldexp) : has_ldexp_(has_ldexp) {}

  Stmt operator()(const Stmt& s) {
    if (!s) return s;
    return std::visit([&](const auto& x) { return rebuilt(s, x); }, s->v);
  }

 private:
  Expr ex(const Expr& e) const { return e ? expand_math(e, has_ldexp_) : e; }

  Stmt rebuilt(const Stmt&, const Block& x) {
    Block b;
    for (const Stmt& s : x.stmts) b.stmts.push_back((*this)(s));
    return stmt(std::move(b));
  }
  Stmt rebuilt(const Stmt&, const For& x) { return stmt(For{x.var, ex(x.extent), x.kind, (*this)(x.body)}); }
  Stmt rebuilt(const Stmt&, const While& x) { return stmt(While{ex(x.condition), (*this)(x.body)}); }
  Stmt rebuilt(const Stmt&, const If& x) {
    return stmt(If{ex(x.condition), (*this)(x.then), (*this)(x.otherwise)});
  }
  Stmt rebuilt(const Stmt&, const Let& x) { return stmt(Let{x.var, ex(x.value)}); }
  Stmt rebuilt(const Stmt&, const Store& x) {
    return stmt(Store{x.buffer, ex(x.index), ex(x.value), ex(x.predicate)});
  }
  Stmt rebuilt(const Stmt&, const Accumulate& x) {
    return stmt(Accumulate{x.reducer, x.buffer, ex(x.index), ex(x.value), ex(x.predicate)});
  }
  Stmt rebuilt(const Stmt&, const Assert& x) { return stmt(Assert{ex(x.condition), x.code}); }
  Stmt rebuilt(const Stmt&, const TileFill& x) { return stmt(TileFill{x.tile, ex(x.value)}); }
  Stmt rebuilt(const Stmt&, const TileMap& x) { return stmt(TileMap{x.tile, x.i, x.j, x.x, ex(x.value)}); }
  Stmt rebuilt(const Stmt&, const TileStore& x) {
    return stmt(TileStore{x.tile, x.i, x.j, x.x, ex(x.valid_rows), ex(x.valid_cols), (*this)(x.body)});
  }
  // The others hold index expressions only.
  template <class T>
  Stmt rebuilt(const Stmt& s, const T&) {
    return s;
  }

  bool has_ldexp_;
};

}  // namespace

Expr expand_math(const Expr& e, bool has_ldexp) {
  return rewrite(e, [has_ldexp](const Expr& x) { return expanded(x, has_ldexp); });
}

Program expand_math(const Program& p, bool has_ldexp) {
  Program result = p;
  result.body = Expander(has_ldexp)(p.body);
  return result;
}

}  // namespace deepseek::loops
