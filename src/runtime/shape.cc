// Dims: polynomials over atoms in normal form. See include/deepseek/shape.h.
#include "deepseek/shape.h"

#include <algorithm>
#include <compare>
#include <numeric>

#include "deepseek/error.h"

namespace deepseek {
namespace {

using Factors = std::vector<std::shared_ptr<const Dim::Atom>>;
using Terms = std::vector<Dim::Term>;

// A polynomial with more terms than this is a mistake (or an attack), not a tensor's size.
constexpr std::size_t kMaxTerms = 1024;

[[noreturn]] void overflow() {
  throw Error(Code::InvalidArgument, "", "", "a size that fits 64 bits", "an overflow");
}

std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t r;
  if (__builtin_add_overflow(a, b, &r)) overflow();
  return r;
}

std::int64_t checked_mul(std::int64_t a, std::int64_t b) {
  std::int64_t r;
  if (__builtin_mul_overflow(a, b, &r)) overflow();
  return r;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  if (b == 0) throw Error(Code::InvalidArgument, "", "", "a divisor of a size that is not 0", "0");
  if (b == -1) return checked_mul(a, -1);
  const std::int64_t q = a / b;
  return q - ((a % b != 0) && ((a < 0) != (b < 0)) ? 1 : 0);
}

std::int64_t floor_mod(std::int64_t a, std::int64_t b) {
  if (b == 0) throw Error(Code::InvalidArgument, "", "", "a divisor of a size that is not 0", "0");
  if (b == -1) return 0;
  const std::int64_t r = a % b;
  return r != 0 && ((r < 0) != (b < 0)) ? r + b : r;
}

std::strong_ordering compare(const Dim& a, const Dim& b);

std::strong_ordering compare(const Dim::Atom& a, const Dim::Atom& b) {
  if (&a == &b) return std::strong_ordering::equal;
  if (a.kind != b.kind) return a.kind <=> b.kind;
  if (const int c = a.symbol.compare(b.symbol); c != 0) return c <=> 0;
  if (a.args.size() != b.args.size()) return a.args.size() <=> b.args.size();
  for (std::size_t i = 0; i < a.args.size(); ++i)
    if (const auto c = compare(a.args[i], b.args[i]); c != 0) return c;
  return std::strong_ordering::equal;
}

// The order of terms: higher degree first, so that the constant comes last; it is a monomial order, which is
// what polynomial division needs.
std::strong_ordering compare(const Factors& a, const Factors& b) {
  if (a.size() != b.size()) return b.size() <=> a.size();
  for (std::size_t i = 0; i < a.size(); ++i)
    if (const auto c = compare(*a[i], *b[i]); c != 0) return c;
  return std::strong_ordering::equal;
}

Terms terms_of(const Dim& d) {
  if (!d.is_static()) return d.terms();
  if (d.value() == 0) return {};
  return {{d.value(), {}}};
}

std::strong_ordering compare(const Dim& a, const Dim& b) {
  if (a.is_static() && b.is_static()) return a.value() <=> b.value();
  if (a.is_static() != b.is_static()) return b.is_static() <=> a.is_static();
  const auto &s = a.terms(), &t = b.terms();
  if (s.size() != t.size()) return s.size() <=> t.size();
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (const auto c = compare(s[i].factors, t[i].factors); c != 0) return c;
    if (s[i].coefficient != t[i].coefficient) return s[i].coefficient <=> t[i].coefficient;
  }
  return std::strong_ordering::equal;
}

Factors merge(const Factors& a, const Factors& b) {
  Factors r(a);
  r.insert(r.end(), b.begin(), b.end());
  std::sort(r.begin(), r.end(), [](const auto& x, const auto& y) { return compare(*x, *y) < 0; });
  return r;
}

// The factors of `a` without those of `b`; nothing when b has one that a lacks.
std::optional<Factors> divide(const Factors& a, const Factors& b) {
  Factors r;
  std::size_t j = 0;
  for (const auto& f : a) {
    if (j < b.size() && compare(*f, *b[j]) == 0)
      ++j;
    else
      r.push_back(f);
  }
  if (j != b.size()) return std::nullopt;
  return r;
}

Dim monomial(std::int64_t coefficient, Factors factors) {
  return Dim::from_terms({{coefficient, std::move(factors)}});
}

Dim apply(Dim::Atom atom) { return monomial(1, {std::make_shared<const Dim::Atom>(std::move(atom))}); }

bool nonnegative(const Dim& d);

bool positive(const Dim& d) { return nonnegative(d - Dim(1)); }

bool nonnegative(const Dim::Atom& a) {
  const auto nonneg = [](const Dim& d) { return nonnegative(d); };
  switch (a.kind) {
    case Dim::Atom::Kind::Symbol:
      return true;
    case Dim::Atom::Kind::FloorDiv:
      return nonnegative(a.args[0]) && positive(a.args[1]);
    case Dim::Atom::Kind::Mod:
      return positive(a.args[1]);
    case Dim::Atom::Kind::Min:
      return std::all_of(a.args.begin(), a.args.end(), nonneg);
    case Dim::Atom::Kind::Max:
      return std::any_of(a.args.begin(), a.args.end(), nonneg);
  }
  return false;
}

// Certainly >= 0 for every binding (not: whether it is).
bool nonnegative(const Dim& d) {
  if (d.is_static()) return d.value() >= 0;
  return std::all_of(d.terms().begin(), d.terms().end(), [](const Dim::Term& t) {
    return t.coefficient >= 0 &&
           std::all_of(t.factors.begin(), t.factors.end(), [](const auto& f) { return nonnegative(*f); });
  });
}

// a / b when b divides a as a polynomial with integer coefficients.
std::optional<Dim> divide_exactly(Dim a, const Dim& b) {
  const Terms divisor = terms_of(b);
  if (divisor.empty()) return std::nullopt;
  Dim quotient = 0;
  for (std::size_t step = 0; step < 64; ++step) {
    const Terms rest = terms_of(a);
    if (rest.empty()) return quotient;
    const auto factors = divide(rest[0].factors, divisor[0].factors);
    if (!factors || floor_mod(rest[0].coefficient, divisor[0].coefficient) != 0) return std::nullopt;
    const Dim q = monomial(floor_div(rest[0].coefficient, divisor[0].coefficient), *factors);
    quotient = quotient + q;
    a = a - q * b;
  }
  return std::nullopt;
}

Dim smaller_or_larger(const Dim& a, const Dim& b, Dim::Atom::Kind kind) {
  std::vector<Dim> args;
  for (const Dim* d : {&a, &b}) {
    const bool nested = !d->is_static() && d->terms().size() == 1 && d->terms()[0].coefficient == 1 &&
                        d->terms()[0].factors.size() == 1 && d->terms()[0].factors[0]->kind == kind;
    if (nested) {
      const auto& inner = d->terms()[0].factors[0]->args;
      args.insert(args.end(), inner.begin(), inner.end());
    } else {
      args.push_back(*d);
    }
  }
  std::sort(args.begin(), args.end(), [](const Dim& x, const Dim& y) { return compare(x, y) < 0; });
  args.erase(std::unique(args.begin(), args.end()), args.end());
  for (std::size_t i = 0; i < args.size();) {
    const bool superfluous = std::any_of(args.begin(), args.end(), [&](const Dim& other) {
      return &other != &args[i] &&
             nonnegative(kind == Dim::Atom::Kind::Min ? args[i] - other : other - args[i]);
    });
    if (superfluous)
      args.erase(args.begin() + static_cast<std::ptrdiff_t>(i));
    else
      ++i;
  }
  if (args.size() == 1) return args[0];
  return apply({kind, "", std::move(args)});
}

std::string atom_str(const Dim::Atom& a) {
  if (a.kind == Dim::Atom::Kind::Symbol) return a.symbol;
  static constexpr const char* kNames[] = {"", "floordiv", "mod", "min", "max"};
  // min and max of several print nested, as parse takes two arguments.
  std::string r = a.args.back().str();
  for (std::size_t i = a.args.size() - 1; i-- > 0;)
    r = std::string(kNames[static_cast<int>(a.kind)]) + "(" + a.args[i].str() + "," + r + ")";
  return r;
}

std::int64_t eval_atom(const Dim::Atom& a, const DimEnv& env) {
  if (a.kind == Dim::Atom::Kind::Symbol) {
    const auto it = env.find(a.symbol);
    if (it == env.end())
      throw Error(Code::InvalidArgument, "", "", "a value for the symbolic dim " + a.symbol, "none");
    return it->second;
  }
  std::int64_t r = a.args[0].eval(env);
  for (std::size_t i = 1; i < a.args.size(); ++i) {
    const std::int64_t x = a.args[i].eval(env);
    switch (a.kind) {
      case Dim::Atom::Kind::FloorDiv:
        r = floor_div(r, x);
        break;
      case Dim::Atom::Kind::Mod:
        r = floor_mod(r, x);
        break;
      case Dim::Atom::Kind::Min:
        r = std::min(r, x);
        break;
      default:
        r = std::max(r, x);
    }
  }
  return r;
}

void collect(const Dim::Atom& a, std::vector<std::string>& out) {
  if (a.kind == Dim::Atom::Kind::Symbol) {
    if (std::find(out.begin(), out.end(), a.symbol) == out.end()) out.push_back(a.symbol);
  }
  for (const Dim& d : a.args) d.symbols(out);
}

bool starts_identifier(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$';
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool continues_identifier(char c) { return starts_identifier(c) || is_digit(c) || c == '.'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Dim parse() {
    const Dim d = sum();
    if (peek() != '\0') fail("the end");
    return d;
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  static constexpr int kMaxDepth = 64;

  [[noreturn]] void fail(const std::string& expected) {
    throw Error(Code::InvalidArgument, "dim", "", expected + " at character " + std::to_string(at_ + 1),
                "\"" + std::string(text_.substr(0, 80)) + "\"");
  }
  char peek() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void need(char c) {
    if (!take(c)) fail(std::string("'") + c + "'");
  }
  Dim sum() {
    if (++depth_ > kMaxDepth) fail("fewer nested expressions");
    Dim d = product();
    for (;;) {
      if (take('+'))
        d = d + product();
      else if (take('-'))
        d = d - product();
      else
        break;
    }
    --depth_;
    return d;
  }
  Dim product() {
    Dim d = factor();
    while (take('*')) d = d * factor();
    return d;
  }
  Dim factor() {
    bool negative = false;
    while (take('-')) negative = !negative;
    const Dim d = primary();
    return negative ? Dim(0) - d : d;
  }
  Dim primary() {
    const char c = peek();
    if (take('(')) {
      const Dim d = sum();
      need(')');
      return d;
    }
    if (is_digit(c)) {
      std::int64_t v = 0;
      while (at_ < text_.size() && is_digit(text_[at_]))
        v = checked_add(checked_mul(v, 10), text_[at_++] - '0');
      return v;
    }
    if (!starts_identifier(c)) fail("a number, a symbol or '('");
    const std::size_t begin = at_;
    while (at_ < text_.size() && continues_identifier(text_[at_])) ++at_;
    const std::string_view id = text_.substr(begin, at_ - begin);
    if (peek() != '(') return Dim::symbol(std::string(id));
    need('(');
    const Dim a = sum();
    need(',');
    const Dim b = sum();
    need(')');
    if (id == "floordiv") return floordiv(a, b);
    if (id == "ceildiv") return ceildiv(a, b);
    if (id == "mod") return mod(a, b);
    if (id == "min") return min(a, b);
    if (id == "max") return max(a, b);
    at_ = begin;
    fail("floordiv, ceildiv, mod, min or max");
  }
};

}  // namespace

Dim Dim::from_terms(std::vector<Term> terms) {
  std::sort(terms.begin(), terms.end(),
            [](const Term& a, const Term& b) { return compare(a.factors, b.factors) < 0; });
  std::vector<Term> merged;
  for (Term& t : terms) {
    if (!merged.empty() && compare(merged.back().factors, t.factors) == 0)
      merged.back().coefficient = checked_add(merged.back().coefficient, t.coefficient);
    else
      merged.push_back(std::move(t));
  }
  std::erase_if(merged, [](const Term& t) { return t.coefficient == 0; });
  if (merged.size() > kMaxTerms)
    throw Error(Code::InvalidArgument, "dim", "",
                "an expression of at most " + std::to_string(kMaxTerms) + " terms",
                std::to_string(merged.size()));
  if (merged.empty()) return 0;
  if (merged.size() == 1 && merged[0].factors.empty()) return merged[0].coefficient;
  Dim d;
  d.terms_ = std::make_shared<const std::vector<Term>>(std::move(merged));
  return d;
}

Dim Dim::symbol(std::string name) {
  if (name.empty() || !starts_identifier(name[0]) ||
      !std::all_of(name.begin(), name.end(), continues_identifier))
    throw Error(Code::InvalidArgument, "dim", "", "a symbol made of letters, digits, '_', '$' and '.'",
                "\"" + name + "\"");
  return from_terms({{1, {std::make_shared<const Atom>(Atom{Atom::Kind::Symbol, std::move(name), {}})}}});
}

Dim Dim::parse(std::string_view text) { return Parser(text).parse(); }

std::int64_t Dim::value() const {
  if (!is_static()) throw Error(Code::InvalidArgument, "", "", "a dim that is known", str());
  return value_;
}

const std::vector<Dim::Term>& Dim::terms() const {
  static const std::vector<Term> kNone;
  return terms_ ? *terms_ : kNone;
}

std::int64_t Dim::eval(const DimEnv& env) const {
  if (!terms_) return value_;
  std::int64_t sum = 0;
  for (const Term& t : *terms_) {
    std::int64_t product = t.coefficient;
    for (const auto& f : t.factors) product = checked_mul(product, eval_atom(*f, env));
    sum = checked_add(sum, product);
  }
  return sum;
}

std::string Dim::str() const {
  if (!terms_) return std::to_string(value_);
  std::string r;
  for (const Term& t : *terms_) {
    const bool one = (t.coefficient == 1 || t.coefficient == -1) && !t.factors.empty();
    std::string number = std::to_string(t.coefficient);
    if (t.coefficient < 0) number.erase(0, 1);
    if (t.coefficient < 0)
      r += "-";
    else if (!r.empty())
      r += "+";
    if (!one) r += number;
    for (std::size_t i = 0; i < t.factors.size(); ++i) {
      if (i > 0 || !one) r += "*";
      r += atom_str(*t.factors[i]);
    }
  }
  return r;
}

void Dim::symbols(std::vector<std::string>& out) const {
  for (const Term& t : terms())
    for (const auto& f : t.factors) collect(*f, out);
}

Dim operator+(const Dim& a, const Dim& b) {
  if (a.is_static() && b.is_static()) return checked_add(a.value_, b.value_);
  Terms terms = terms_of(a);
  const Terms more = terms_of(b);
  terms.insert(terms.end(), more.begin(), more.end());
  return Dim::from_terms(std::move(terms));
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  if (a.is_static() && b.is_static()) return checked_mul(a.value_, b.value_);
  const Terms x = terms_of(a), y = terms_of(b);
  if (x.size() * y.size() > kMaxTerms * 4)
    throw Error(Code::InvalidArgument, "dim", "",
                "an expression of at most " + std::to_string(kMaxTerms) + " terms",
                std::to_string(x.size()) + " times " + std::to_string(y.size()));
  Terms terms;
  terms.reserve(x.size() * y.size());
  for (const Dim::Term& s : x)
    for (const Dim::Term& t : y)
      terms.push_back({checked_mul(s.coefficient, t.coefficient), merge(s.factors, t.factors)});
  return Dim::from_terms(std::move(terms));
}

bool operator==(const Dim& a, const Dim& b) {
  return a.terms_ == b.terms_ ? a.value_ == b.value_ : compare(a, b) == 0;
}

Dim floordiv(const Dim& a, const Dim& b) {
  if (a.is_static() && b.is_static()) return floor_div(a.value(), b.value());
  if (const auto q = divide_exactly(a, b)) return *q;
  if (b.is_static() && b.value() < 0) return floordiv(Dim(0) - a, -b.value());
  const Terms divisor = terms_of(b);
  if (divisor.empty()) return floor_div(1, 0);
  // Multiples of b leave the division: floordiv(q*b + r, b) = q + floordiv(r, b).
  Dim quotient = 0, rest = 0;
  for (const Dim::Term& t : terms_of(a)) {
    const auto factors = divide(t.factors, divisor[0].factors);
    if (divisor.size() != 1 || !factors) {
      rest = rest + monomial(t.coefficient, t.factors);
      continue;
    }
    const std::int64_t q = floor_div(t.coefficient, divisor[0].coefficient);
    quotient = quotient + monomial(q, *factors);
    rest = rest + monomial(t.coefficient - q * divisor[0].coefficient, t.factors);
  }
  if (rest == Dim(0)) return quotient;
  if (!b.is_static()) return quotient + apply({Dim::Atom::Kind::FloorDiv, "", {rest, b}});

  const std::int64_t divisor_value = b.value();
  if (rest.is_static()) return quotient + Dim(floor_div(rest.value(), divisor_value));
  std::int64_t g = divisor_value;
  for (const Dim::Term& t : rest.terms())
    if (!t.factors.empty()) g = std::gcd(g, t.coefficient);
  if (g > 1) {
    Dim reduced = 0;
    for (const Dim::Term& t : rest.terms())
      reduced = reduced + monomial(floor_div(t.coefficient, g), t.factors);
    return quotient + floordiv(reduced, divisor_value / g);
  }
  const auto& first = rest.terms()[0];
  const bool nested = rest.terms().size() == 1 && first.coefficient == 1 && first.factors.size() == 1 &&
                      first.factors[0]->kind == Dim::Atom::Kind::FloorDiv;
  if (nested) {
    const Dim& inner = first.factors[0]->args[1];
    if (inner.is_static() && inner.value() > 0)
      return quotient + floordiv(first.factors[0]->args[0], checked_mul(inner.value(), divisor_value));
  }
  return quotient + apply({Dim::Atom::Kind::FloorDiv, "", {rest, divisor_value}});
}

Dim mod(const Dim& a, const Dim& b) {
  if (a.is_static() && b.is_static()) return floor_mod(a.value(), b.value());
  if (b.is_static() && b.value() == 0) return floor_mod(1, 0);
  if (divide_exactly(a, b)) return 0;
  if (!b.is_static() || b.value() < 0) return apply({Dim::Atom::Kind::Mod, "", {a, b}});
  Dim rest = 0;
  for (const Dim::Term& t : a.terms()) rest = rest + monomial(floor_mod(t.coefficient, b.value()), t.factors);
  if (rest.is_static()) return floor_mod(rest.value(), b.value());
  return apply({Dim::Atom::Kind::Mod, "", {rest, b}});
}

Dim min(const Dim& a, const Dim& b) { return smaller_or_larger(a, b, Dim::Atom::Kind::Min); }
Dim max(const Dim& a, const Dim& b) { return smaller_or_larger(a, b, Dim::Atom::Kind::Max); }
Dim ceildiv(const Dim& a, const Dim& b) { return floordiv(a + b - Dim(1), b); }

Dim numel(const Shape& s) {
  Dim n = 1;
  for (const Dim& d : s) n = n * d;
  return n;
}

std::int64_t numel(const Dims& s) {
  std::int64_t n = 1;
  if (std::find(s.begin(), s.end(), 0) != s.end()) return 0;
  for (const std::int64_t d : s) n = checked_mul(n, d);
  return n;
}

Dims eval(const Shape& s, const DimEnv& env) {
  Dims d;
  d.reserve(s.size());
  for (const Dim& x : s) d.push_back(x.eval(env));
  return d;
}

bool is_static(const Shape& s) {
  return std::all_of(s.begin(), s.end(), [](const Dim& d) { return d.is_static(); });
}

Dims static_dims(const Shape& s) { return eval(s, {}); }
Shape to_shape(const Dims& d) { return {d.begin(), d.end()}; }

std::string str(const Shape& s) {
  std::string r = "[";
  for (std::size_t i = 0; i < s.size(); ++i) r += (i ? ", " : "") + s[i].str();
  return r + "]";
}

std::string str(const Dims& s) { return str(to_shape(s)); }

std::optional<Shape> broadcast(const Shape& a, const Shape& b, std::vector<std::pair<Dim, Dim>>* taken) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape r = longer;
  const std::size_t skip = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    Dim& x = r[skip + i];
    const Dim& y = shorter[i];
    if (y == x || y == Dim(1)) continue;
    if (x == Dim(1)) {
      x = y;
      continue;
    }
    if (x.is_static() && y.is_static()) return std::nullopt;
    if (taken) taken->emplace_back(x, y);
    if (y.is_static()) x = y;
  }
  return r;
}

}  // namespace deepseek
