#include <algorithm>
#include <functional>

#include "loops/polynomial.h"
#include "loops/scalar.h"
#include "loops/semantics.h"
#include "loops/simplify.h"

namespace deepseek::loops {
namespace {

using Bound = std::optional<std::int64_t>;

thread_local const std::set<std::string>* assumed = nullptr;  // symbols >= 1

template <class F>
Bound checked(const Bound& a, const Bound& b, F overflows) {
  std::int64_t result = 0;
  return a && b && !overflows(*a, *b, &result) ? Bound(result) : std::nullopt;
}
Bound add(const Bound& a, const Bound& b) {
  return checked(a, b, [](auto x, auto y, auto* r) { return __builtin_add_overflow(x, y, r); });
}
Bound sub(const Bound& a, const Bound& b) {
  return checked(a, b, [](auto x, auto y, auto* r) { return __builtin_sub_overflow(x, y, r); });
}
Bound mul(const Bound& a, const Bound& b) {
  return checked(a, b, [](auto x, auto y, auto* r) { return __builtin_mul_overflow(x, y, r); });
}

Range type_range(DType t) {
  if (t == DType::Bool || (is_integer(t) && bits(t) < 64)) return {integer_min(t), integer_max(t)};
  return {};
}

Range product(const Range& a, const Range& b) {
  if (a.min && b.min && *a.min >= 0 && *b.min >= 0) return {mul(a.min, b.min), mul(a.max, b.max)};
  const Bound corners[] = {mul(a.min, b.min), mul(a.min, b.max), mul(a.max, b.min), mul(a.max, b.max)};
  if (!std::ranges::all_of(corners, [](const Bound& c) { return c.has_value(); })) return {};
  return {*std::ranges::min_element(corners), *std::ranges::max_element(corners)};
}

Range quotient(const Range& a, std::int64_t d) {
  const auto down = [d](const Bound& x) { return x ? Bound(semantics::floor_div(*x, d)) : std::nullopt; };
  return d > 0 ? Range{down(a.min), down(a.max)} : Range{};
}

Range range_of(const Expr& e, int& budget) {
  if (--budget < 0 || !(is_integer(e.type()) || e.type() == DType::Bool)) return {};
  if (const auto c = e.int_value()) return e.type() == DType::U64 && *c < 0 ? Range{} : Range{*c, *c};
  const auto arg = [&](std::size_t i) { return range_of(e->args[i], budget); };
  const bool index = e.type() == DType::I64;
  switch (e.op()) {
    case Op::Var: {
      Range r{e->var->min, e->var->max};
      const Range t = type_range(e.type());
      return {r.min ? r.min : t.min, r.max ? r.max : t.max};
    }
    case Op::Symbol:
      return {assumed && assumed->contains(e->symbol) ? 1 : 0, std::nullopt};
    case Op::Cast: {
      const DType from = e->args[0].type();
      if (!is_integer(from) && from != DType::Bool) return type_range(e.type());
      const Range r = arg(0), t = type_range(e.type());
      if (from == DType::U64 && !r.min) return t;
      const bool fits = (!t.min || (r.min && *r.min >= *t.min)) && (!t.max || (r.max && *r.max <= *t.max));
      return fits ? r : t;
    }
    case Op::Select: {
      const Range a = arg(1), b = arg(2);
      return {a.min && b.min ? Bound(std::min(*a.min, *b.min)) : std::nullopt,
              a.max && b.max ? Bound(std::max(*a.max, *b.max)) : std::nullopt};
    }
    default:
      break;
  }
  if (!index) return type_range(e.type());  // narrower arithmetic wraps
  switch (e.op()) {
    case Op::Add: {
      const Range a = arg(0), b = arg(1);
      return {add(a.min, b.min), add(a.max, b.max)};
    }
    case Op::Sub: {
      const Range a = arg(0), b = arg(1);
      return {sub(a.min, b.max), sub(a.max, b.min)};
    }
    case Op::Neg: {
      const Range a = arg(0);
      return {sub(0, a.max), sub(0, a.min)};
    }
    case Op::Mul:
      return product(arg(0), arg(1));
    case Op::FloorDiv: {
      const auto d = e->args[1].int_value();
      const Range a = arg(0);
      if (d) return quotient(a, *d);
      const Range b = arg(1);
      return a.min && *a.min >= 0 && b.min && *b.min >= 0 ? Range{0, a.max} : Range{};
    }
    case Op::Mod: {
      const Range a = arg(0), b = arg(1);
      if (!b.min || *b.min < 0) return {};
      const Bound top = b.max ? sub(b.max, 1) : std::nullopt;
      if (!a.min || *a.min < 0 || !a.max)
        return {0, top ? Bound(std::max<std::int64_t>(*top, 0)) : std::nullopt};
      return {0, top ? std::max<std::int64_t>(0, std::min(*a.max, *top)) : *a.max};
    }
    case Op::Min: {
      const Range a = arg(0), b = arg(1);
      return {a.min && b.min ? Bound(std::min(*a.min, *b.min)) : std::nullopt,
              a.max && b.max ? Bound(std::min(*a.max, *b.max))
              : a.max        ? a.max
                             : b.max};
    }
    case Op::Max: {
      const Range a = arg(0), b = arg(1);
      return {a.min && b.min ? Bound(std::max(*a.min, *b.min))
              : a.min        ? a.min
                             : b.min,
              a.max && b.max ? Bound(std::max(*a.max, *b.max)) : std::nullopt};
    }
    case Op::And: {
      const Range a = arg(0), b = arg(1);
      const bool a_fits = a.min && *a.min >= 0, b_fits = b.min && *b.min >= 0;
      if (a_fits && b_fits)
        return {0, a.max && b.max ? Bound(std::min(*a.max, *b.max)) : a.max ? a.max : b.max};
      if (a_fits) return {0, a.max};
      return b_fits ? Range{0, b.max} : Range{};
    }
    default:
      return {};
  }
}

}  // namespace

AssumePositive::AssumePositive(const std::set<std::string>& symbols) : outer_(assumed), all_(symbols) {
  if (outer_) all_.insert(outer_->begin(), outer_->end());
  assumed = &all_;
}
AssumePositive::~AssumePositive() { assumed = outer_; }

// Quotients, and sums with constants, of a product of symbols: (N*M + 13) // 14 >= 1 means N*M >= 1.
std::set<std::string> positive_where_positive(const Expr& e) {
  const std::function<void(const Expr&, std::int64_t, std::set<std::string>&)> infer =
      [&](const Expr& x, std::int64_t least, std::set<std::string>& found) {  // x >= least
        if (least < 1) return;
        switch (x.op()) {
          case Op::Symbol:
            found.insert(x->symbol);
            return;
          case Op::Mul:  // of factors >= 0: neither is 0
            if (range(x->args[0]).min.value_or(-1) < 0 || range(x->args[1]).min.value_or(-1) < 0) return;
            infer(x->args[0], 1, found);
            infer(x->args[1], 1, found);
            return;
          case Op::FloorDiv:
            if (const auto d = x->args[1].int_value();
                d && *d > 0 && least < (std::int64_t{1} << 31) && *d < (std::int64_t{1} << 31))
              infer(x->args[0], least * *d, found);
            return;
          case Op::Add:
            if (const auto c = x->args[1].int_value()) infer(x->args[0], semantics::sub(least, *c), found);
            return;
          case Op::Sub:
            if (const auto c = x->args[1].int_value()) infer(x->args[0], semantics::add(least, *c), found);
            return;
          case Op::Min:
            infer(x->args[0], least, found);
            infer(x->args[1], least, found);
            return;
          default:
            return;
        }
      };
  std::set<std::string> found;
  infer(e, 1, found);
  return found;
}

Range range(const Expr& e) {
  int budget = 120;
  return range_of(e, budget);
}

bool always_nonnegative(const Expr& e) {
  if (!is_index(e)) return false;
  if (const auto low = range(e).min) {
    if (*low >= 0) return true;
  }
  Proof proof;
  const auto p = proof.read(e);
  return p && proof.nonnegative(*p);
}

bool always_positive(const Expr& e) {
  if (!is_index(e)) return false;
  if (const auto low = range(e).min; low && *low > 0) return true;
  Proof proof;
  const auto p = proof.read(e);
  return p && proof.positive(*p);
}

std::optional<bool> decide(Op op, const Expr& a, const Expr& b) {
  if (op == Op::Ne) {
    const auto equal = decide(Op::Eq, a, b);
    return equal ? std::optional(!*equal) : std::nullopt;
  }
  if (!is_index(a) || !is_index(b)) return std::nullopt;
  const Range ra = range(a), rb = range(b);
  const bool below = ra.max && rb.min && *ra.max < *rb.min;
  const bool above = ra.min && rb.max && *ra.min > *rb.max;
  if (below || above) return op == Op::Eq ? false : below;
  if (op == Op::Le && ra.max && rb.min && *ra.max <= *rb.min) return true;
  if (op == Op::Lt && ra.min && rb.max && *ra.min >= *rb.max) return false;
  Proof proof;
  const auto pa = proof.read(a), pb = proof.read(b);
  if (!pa || !pb) return std::nullopt;
  const auto up = Proof::combine(*pb, *pa, -1), down = Proof::combine(*pa, *pb, -1);
  if (!up || !down) return std::nullopt;
  switch (op) {
    case Op::Eq:
      if (up->empty()) return true;
      return proof.positive(*up) || proof.positive(*down) ? std::optional(false) : std::nullopt;
    case Op::Lt:
      if (proof.positive(*up)) return true;
      return proof.nonnegative(*down) ? std::optional(false) : std::nullopt;
    case Op::Le:
      if (proof.nonnegative(*up)) return true;
      return proof.positive(*down) ? std::optional(false) : std::nullopt;
    default:
      return std::nullopt;
  }
}

}  // namespace deepseek::loops
