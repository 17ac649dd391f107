#include "loops/simplify.h"

#include <cmath>
#include <numeric>

#include "loops/polynomial.h"
#include "loops/semantics.h"

namespace deepseek::loops {
namespace {

bool is_int(const Expr& e, std::int64_t v) { return e.int_value() == v; }
bool is_float_constant(const Expr& e, double v) {
  const double* d = e.is_const() ? std::get_if<double>(&e->value) : nullptr;
  return d && *d == v && std::signbit(*d) == std::signbit(v);
}
bool is_comparison(Op op) { return op == Op::Eq || op == Op::Ne || op == Op::Lt || op == Op::Le; }

// -- sums of I64 terms
// -----------------------------------------------------------------------------------------

struct Term {
  Expr expr;
  std::int64_t coefficient;
};
struct Sum {
  std::vector<Term> terms;  // in order of appearance, distinct
  std::uint64_t constant = 0;
  static constexpr std::size_t kMostTerms = 32;
  bool too_large = false;

  void add(const Expr& e, std::int64_t factor) {
    if (too_large) return;
    const auto scale = [&](std::int64_t c) { return semantics::mul(factor, c); };
    if (const auto c = e.int_value()) {
      constant += static_cast<std::uint64_t>(scale(*c));
      return;
    }
    switch (e.op()) {
      case Op::Add:
        add(e->args[0], factor);
        add(e->args[1], factor);
        return;
      case Op::Sub:
        add(e->args[0], factor);
        add(e->args[1], scale(-1));
        return;
      case Op::Neg:
        add(e->args[0], scale(-1));
        return;
      case Op::Mul:
        if (const auto c = e->args[1].int_value()) return add(e->args[0], scale(*c));
        if (const auto c = e->args[0].int_value()) return add(e->args[1], scale(*c));
        break;
      default:
        break;
    }
    for (Term& t : terms)
      if (same(t.expr, e)) {
        t.coefficient = semantics::add(t.coefficient, factor);
        return;
      }
    if (terms.size() == kMostTerms)
      too_large = true;
    else
      terms.push_back({e, factor});
  }

  void drop_zeros() {
    std::erase_if(terms, [](const Term& t) { return t.coefficient == 0; });
  }

  Expr expr() const {
    const auto scaled = [](const Expr& e, std::int64_t c) {
      return c == 1 ? e : node(Op::Mul, DType::I64, {e, constant_index(c)});
    };
    Expr sum;
    std::size_t lead = 0;
    while (lead < terms.size() && terms[lead].coefficient < 0) ++lead;
    const auto c = static_cast<std::int64_t>(constant);
    bool constant_left = c != 0;
    if (lead < terms.size()) {
      sum = scaled(terms[lead].expr, terms[lead].coefficient);
    } else if (constant_left || terms.empty()) {
      sum = constant_index(c);
      constant_left = false;
    } else {
      lead = 0;
      sum = terms[0].coefficient == -1 ? node(Op::Neg, DType::I64, {terms[0].expr})
                                       : scaled(terms[0].expr, terms[0].coefficient);
    }
    for (std::size_t i = 0; i < terms.size(); ++i) {
      if (i == lead) continue;
      const std::int64_t k = terms[i].coefficient;
      const bool negative = k < 0 && k != std::numeric_limits<std::int64_t>::min();
      sum = node(negative ? Op::Sub : Op::Add, DType::I64, {sum, scaled(terms[i].expr, negative ? -k : k)});
    }
    if (constant_left) {
      const bool negative = c < 0 && c != std::numeric_limits<std::int64_t>::min();
      sum = node(negative ? Op::Sub : Op::Add, DType::I64, {sum, constant_index(negative ? -c : c)});
    }
    return sum;
  }

 private:
  static Expr constant_index(std::int64_t c) { return loops::constant(DType::I64, c); }
};

// d > 0 wherever x's variables run.
bool positive_beside(const Expr& d, const Expr& x) {
  if (!is_index(x) || !is_index(d)) return false;
  Proof proof;
  if (!proof.read(x)) return false;
  const auto divisor = proof.read(d);
  return divisor && proof.positive(*divisor);
}

// A variable's value, where it is known.
Expr seen_through(const Expr& e) { return e.op() == Op::Var && e->var->value.get() ? e->var->value : e; }
Expr product_seen_through(const Expr& e) {
  return e.op() == Op::Mul ? node(Op::Mul, e.type(), {seen_through(e->args[0]), e->args[1]})
                           : seen_through(e);
}

// floordiv(x, d)*d + mod(x, d) -> x, with d a constant or positive wherever x's variables run.
bool join_quotient_and_rest(Sum& sum) {
  for (const Term& rest : sum.terms) {
    const Expr remainder = seen_through(rest.expr);
    if (remainder.op() != Op::Mod) continue;
    const Expr x = remainder->args[0], d = remainder->args[1];
    const auto c = d.int_value();
    if (c ? *c <= 0 : !positive_beside(d, x)) continue;
    std::int64_t coefficient = rest.coefficient;
    if (c && __builtin_mul_overflow(coefficient, *c, &coefficient)) continue;
    const Expr quotient = floordiv(x, d), wanted = c ? quotient : node(Op::Mul, DType::I64, {quotient, d});
    for (const Term& t : sum.terms) {
      if (t.coefficient != coefficient || &t == &rest) continue;
      if (!same(t.expr, wanted) && !same(product_seen_through(t.expr), wanted)) continue;
      Sum joined;
      for (const Term& other : sum.terms)
        if (&other == &rest)
          joined.add(x, rest.coefficient);
        else if (&other != &t)
          joined.add(other.expr, other.coefficient);
      joined.constant += sum.constant;
      if (joined.too_large) return false;
      joined.drop_zeros();
      sum = std::move(joined);
      return true;
    }
  }
  return false;
}

bool is_sum(const Expr& e) {
  return e.op() == Op::Add || e.op() == Op::Sub || e.op() == Op::Neg || e.is_const() ||
         (e.op() == Op::Mul && (e->args[0].is_const() || e->args[1].is_const()));
}

Expr collected(Op op, const std::vector<Expr>& args) {
  Sum sum;
  if (op == Op::Mul) {
    const auto right = args[1].int_value(), left = args[0].int_value();
    if (!right && !left) return {};
    sum.add(args[right ? 0 : 1], right ? *right : *left);
  } else {
    sum.add(args[0], op == Op::Neg ? -1 : 1);
    if (op != Op::Neg) sum.add(args[1], op == Op::Sub ? -1 : 1);
  }
  if (sum.too_large) return {};
  sum.drop_zeros();
  bool joined = false;
  while (join_quotient_and_rest(sum)) joined = true;
  // Two unrelated terms need no new order.
  if (!joined && op == Op::Add && sum.terms.size() == 2 && sum.constant == 0 && !is_sum(args[0]) &&
      !is_sum(args[1]))
    return {};
  return sum.expr();
}

// -- quotients and remainders of index expressions
// ---------------------------------------------------------------

// e / d or e mod d through e = quotient*d + rest.
Expr divided(Op op, const Expr& e, const Expr& d) {
  const bool wants_quotient = op == Op::FloorDiv;
  Proof proof;
  const auto p = proof.read(e);
  const auto divisor = proof.read(d);
  if (!p || !divisor || divisor->size() != 1) return {};
  const auto& [factors, c] = *divisor->begin();
  if (c <= 0) return {};
  const auto [quotient, rest] = Proof::split(*p, factors, c);
  if (proof.nonnegative(rest)) {
    if (const auto gap = Proof::combine(Proof::plus(*divisor, -1), rest, -1); gap && proof.nonnegative(*gap))
      return proof.write(wants_quotient ? quotient : rest);
  }
  if (!factors.empty() && !proof.positive(*divisor)) return {};
  if (!quotient.empty()) {
    const Expr left = proof.write(rest);
    return wants_quotient ? proof.write(quotient) + floordiv(left, d) : mod(left, d);
  }
  if (!factors.empty()) return {};
  // Terms with a common factor g of the divisor, the others together in [0, g).
  for (const auto& [m, k] : rest) {
    const std::int64_t g = std::gcd(k, c);
    if (m.empty() || g <= 1) continue;
    auto [coarse, fine] = Proof::split(rest, {}, g);
    if (coarse.empty()) continue;
    if (fine.contains({})) {  // a constant's own multiple of g goes with the coarse part
      const std::int64_t whole = semantics::floor_div(fine[{}], g);
      coarse = Proof::plus(std::move(coarse), whole);
      fine = Proof::plus(std::move(fine), -whole * g);
    }
    const auto gap = Proof::combine({{{}, g - 1}}, fine, -1);
    if (!gap || !proof.nonnegative(fine) || !proof.nonnegative(*gap)) continue;
    const Expr outer = proof.write(coarse), small = constant(DType::I64, c / g);
    return wants_quotient ? floordiv(outer, small) : mod(outer, small) * g + proof.write(fine);
  }
  return {};
}

Expr simpler_division(Op op, const Expr& e, const Expr& d) {
  if (op == Op::Div || op == Op::Rem) {
    if (always_nonnegative(e) && always_nonnegative(d))
      return make(op == Op::Div ? Op::FloorDiv : Op::Mod, {e, d});
    return {};
  }
  if (!is_index(e) || !is_index(d)) return {};
  const auto c = d.int_value();
  if (c && *c == 1) return op == Op::FloorDiv ? e : Expr(0);
  if (c && *c > 1) {
    const Expr inner = e->args.size() == 2 ? e->args[1] : Expr();
    const auto a = inner ? inner.int_value() : std::nullopt;
    std::int64_t both = 0;
    if (a && *a > 0) {
      if (op == Op::FloorDiv && e.op() == Op::FloorDiv && !__builtin_mul_overflow(*a, *c, &both))
        return floordiv(e->args[0], both);
      if (op == Op::Mod && e.op() == Op::Mod && *a % *c == 0) return mod(e->args[0], d);
      if (op == Op::FloorDiv && e.op() == Op::Mod && *a % *c == 0)
        return mod(floordiv(e->args[0], d), *a / *c);
    }
  }
  return divided(op, e, d);
}

// -- the other types
// -------------------------------------------------------------------------------------------

Expr simpler_integer(Op op, DType t, const std::vector<Expr>& args) {
  const Expr &a = args[0], b = args.size() > 1 ? args[1] : Expr();
  switch (op) {
    case Op::Add:
      if (is_int(a, 0)) return b;
      if (is_int(b, 0)) return a;
      if (b.is_const() && a.op() == Op::Add && a->args[1].is_const()) return a->args[0] + (a->args[1] + b);
      if (a.is_const()) return b + a;
      return {};
    case Op::Sub:
      if (is_int(b, 0)) return a;
      if (same(a, b)) return zero(t);
      if (b.is_const()) return a + constant(t, semantics::sub<std::int64_t>(0, *b.int_value()));
      return {};
    case Op::Mul:
      if (is_int(a, 0) || is_int(b, 1)) return a;
      if (is_int(b, 0) || is_int(a, 1)) return b;
      if (a.is_const()) return b * a;
      return {};
    case Op::Div:
    case Op::FloorDiv:
      if (is_int(b, 1)) return a;
      if (is_int(b, 0) || is_int(a, 0)) return zero(t);
      return {};
    case Op::Rem:
    case Op::Mod:
      if (is_int(b, 1) || is_int(b, 0) || is_int(a, 0)) return zero(t);
      return {};
    case Op::Floor:
    case Op::Ceil:
    case Op::Trunc:
    case Op::Round:
      return a;
    case Op::IsNan:
    case Op::IsInf:
      return zero(DType::Bool);
    case Op::Abs:
      if (!is_signed(t) || always_nonnegative(a)) return a;
      return {};
    case Op::Neg:
    case Op::Not:
      if (a.op() == op) return a->args[0];
      return {};
    case Op::And:
      if (is_int(a, 0) || is_int(b, -1) || same(a, b)) return a;
      if (is_int(b, 0) || is_int(a, -1)) return b;
      return {};
    case Op::Or:
      if (is_int(b, 0) || same(a, b)) return a;
      if (is_int(a, 0)) return b;
      return {};
    case Op::Xor:
      if (is_int(b, 0)) return a;
      if (is_int(a, 0)) return b;
      if (same(a, b)) return zero(t);
      return {};
    case Op::Shl:
    case Op::Shr:
      return is_int(b, 0) ? a : Expr();
    case Op::Min:
    case Op::Max:
      return same(a, b) ? a : Expr();
    default:
      return {};
  }
}

Expr simpler_bool(Op op, const std::vector<Expr>& args) {
  const Expr &a = args[0], b = args.size() > 1 ? args[1] : Expr();
  switch (op) {
    case Op::And:
    case Op::Min:
      if (is_int(a, 1) || is_int(b, 0) || same(a, b)) return b;
      if (is_int(b, 1) || is_int(a, 0)) return a;
      return op == Op::Min ? a && b : Expr();
    case Op::Or:
    case Op::Max:
      if (is_int(a, 0) || is_int(b, 1) || same(a, b)) return b;
      if (is_int(b, 0) || is_int(a, 1)) return a;
      return op == Op::Max ? a || b : Expr();
    case Op::Xor:
    case Op::Ne:
      if (is_int(b, 0)) return a;
      if (is_int(a, 0)) return b;
      return {};
    case Op::Eq:
      if (is_int(b, 1)) return a;
      if (is_int(a, 1)) return b;
      return {};
    case Op::Not: {
      if (a.op() == Op::Not) return a->args[0];
      const bool integers = !a->args.empty() && !is_float(a->args[0].type());
      if (a.op() == Op::Eq) return make(Op::Ne, a->args);
      if (a.op() == Op::Ne) return make(Op::Eq, a->args);
      if (integers && a.op() == Op::Lt) return make(Op::Le, {a->args[1], a->args[0]});
      if (integers && a.op() == Op::Le) return make(Op::Lt, {a->args[1], a->args[0]});
      return {};
    }
    default:
      return {};
  }
}

Expr simpler_float(Op op, const std::vector<Expr>& args) {
  const Expr &a = args[0], b = args.size() > 1 ? args[1] : Expr();
  switch (op) {
    case Op::Add:
      if (is_float_constant(b, -0.0)) return a;
      return is_float_constant(a, -0.0) ? b : Expr();
    case Op::Sub:
      return is_float_constant(b, 0.0) ? a : Expr();
    case Op::Mul:
      if (is_float_constant(b, 1)) return a;
      return is_float_constant(a, 1) ? b : Expr();
    case Op::Div:
      return is_float_constant(b, 1) ? a : Expr();
    case Op::Neg:
      return a.op() == Op::Neg ? a->args[0] : Expr();
    case Op::Abs:
      return a.op() == Op::Abs ? a : a.op() == Op::Neg ? make(Op::Abs, {a->args[0]}) : Expr();
    case Op::Min:
    case Op::Max:
      return same(a, b) ? a : Expr();
    default:
      return {};
  }
}

Expr simpler_comparison(Op op, const Expr& a, const Expr& b) {
  if (is_float(a.type())) return {};
  if (same(a, b)) return constant(DType::Bool, std::int64_t{op == Op::Eq || op == Op::Le});
  if (const auto truth = decide(op, a, b)) return constant(DType::Bool, std::int64_t{*truth});
  return {};
}

Expr simpler_select(const Expr& c, const Expr& yes, const Expr& no) {
  if (const auto v = c.int_value()) return *v ? yes : no;
  if (same(yes, no)) return yes;
  if (yes.type() == DType::Bool) {
    if (is_int(yes, 1) && is_int(no, 0)) return c;
    if (is_int(yes, 0) && is_int(no, 1)) return !c;
  }
  if (c.op() == Op::Not) return select(c->args[0], no, yes);
  return {};
}

}  // namespace

Expr simplified(Op op, DType type, const std::vector<Expr>& args) {
  if (op == Op::Select) return simpler_select(args[0], args[1], args[2]);
  if (op == Op::Fma) return {};
  const DType t = args[0].type();
  if (is_comparison(op)) {
    if (Expr e = simpler_comparison(op, args[0], args[1])) return e;
    return t == DType::Bool ? simpler_bool(op, args) : Expr();
  }
  if (t == DType::Bool) return simpler_bool(op, args);
  if (is_float(t)) return simpler_float(op, args);
  if (Expr e = simpler_integer(op, type, args)) return e;
  if (t != DType::I64) return {};
  switch (op) {
    case Op::Add:
    case Op::Sub:
    case Op::Mul:
    case Op::Neg:
      return collected(op, args);
    case Op::Div:
    case Op::Rem:
    case Op::FloorDiv:
    case Op::Mod:
      return simpler_division(op, args[0], args[1]);
    case Op::Min:
    case Op::Max:
      if (const auto truth = decide(Op::Le, args[0], args[1])) return args[*truth == (op == Op::Min) ? 0 : 1];
      if (const auto truth = decide(Op::Le, args[1], args[0])) return args[*truth == (op == Op::Min) ? 1 : 0];
      return {};
    default:
      return {};
  }
}

}  // namespace deepseek::loops
