#include "loops/polynomial.h"

#include <algorithm>

#include "loops/simplify.h"

namespace deepseek::loops {
namespace {

constexpr std::size_t kMostTerms = 24, kMostFactors = 5;
constexpr int kMostEliminations = 16;

bool add_term(Proof::Poly& p, const Proof::Monomial& m, std::int64_t c) {
  if (c == 0) return true;
  const auto [it, fresh] = p.try_emplace(m, c);
  if (!fresh) {
    if (__builtin_add_overflow(it->second, c, &it->second)) return false;
    if (it->second == 0) p.erase(it);
  }
  return p.size() <= kMostTerms;
}

bool index_tree(const Expr& e, int& budget) {
  if (--budget < 0) return false;
  switch (e.op()) {
    case Op::Const:
    case Op::Symbol:
      return true;
    case Op::Var:
      return e->var->min || e->var->max || e->var->extent.get();
    case Op::Cast:
      return is_integer(e->args[0].type()) && bits(e->args[0].type()) < 64;
    case Op::Select:
      return index_tree(e->args[1], budget) && index_tree(e->args[2], budget);
    case Op::Add:
    case Op::Sub:
    case Op::Mul:
    case Op::Neg:
    case Op::Div:
    case Op::Rem:
    case Op::FloorDiv:
    case Op::Mod:
    case Op::Min:
    case Op::Max:
      return std::ranges::all_of(e->args, [&](const Expr& a) { return index_tree(a, budget); });
    default:
      return false;
  }
}

}  // namespace

bool is_index(const Expr& e) {
  int budget = 100;
  return e.type() == DType::I64 && index_tree(e, budget);
}

Proof::Poly Proof::plus(Poly p, std::int64_t c) {
  std::int64_t& constant = p[{}];
  constant = static_cast<std::int64_t>(static_cast<std::uint64_t>(constant) + static_cast<std::uint64_t>(c));
  if (constant == 0) p.erase(Monomial{});
  return p;
}

std::optional<Proof::Poly> Proof::combine(const Poly& a, const Poly& b, std::int64_t factor) {
  Poly sum = a;
  for (const auto& [m, c] : b) {
    std::int64_t scaled = 0;
    if (__builtin_mul_overflow(c, factor, &scaled) || !add_term(sum, m, scaled)) return std::nullopt;
  }
  return sum;
}

std::optional<Proof::Poly> Proof::product(const Poly& a, const Poly& b) {
  Poly result;
  for (const auto& [m, c] : a)
    for (const auto& [n, d] : b) {
      Monomial factors;
      std::ranges::merge(m, n, std::back_inserter(factors));
      std::int64_t coefficient = 0;
      if (factors.size() > kMostFactors || __builtin_mul_overflow(c, d, &coefficient) ||
          !add_term(result, factors, coefficient))
        return std::nullopt;
    }
  return result;
}

std::pair<Proof::Poly, Proof::Poly> Proof::split(const Poly& p, const Monomial& d, std::int64_t coefficient) {
  Poly quotient, rest;
  for (const auto& [m, c] : p) {
    if (c % coefficient == 0 && std::ranges::includes(m, d)) {
      Monomial left;
      std::ranges::set_difference(m, d, std::back_inserter(left));
      add_term(quotient, left, c / coefficient);
    } else {
      add_term(rest, m, c);
    }
  }
  return {std::move(quotient), std::move(rest)};
}

std::optional<Proof::Poly> Proof::read(const Expr& e) {
  if (--budget_ < 0) return std::nullopt;
  if (const auto c = e.int_value()) return *c == 0 ? Poly{} : Poly{{{}, *c}};
  switch (e.op()) {
    case Op::Add:
    case Op::Sub: {
      const auto a = read(e->args[0]), b = read(e->args[1]);
      return a && b ? combine(*a, *b, e.op() == Op::Add ? 1 : -1) : std::nullopt;
    }
    case Op::Neg: {
      const auto a = read(e->args[0]);
      return a ? combine({}, *a, -1) : std::nullopt;
    }
    case Op::Mul: {
      const auto a = read(e->args[0]), b = read(e->args[1]);
      return a && b ? product(*a, *b) : std::nullopt;
    }
    default:
      return Poly{{{atom(e)}, 1}};
  }
}

Expr Proof::write(const Poly& p) const {
  Expr sum = 0;
  for (const auto& [m, c] : p) {
    if (m.empty()) continue;
    Expr term = atoms_[static_cast<std::size_t>(m[0])].expr;
    for (std::size_t i = 1; i < m.size(); ++i) term = term * atoms_[static_cast<std::size_t>(m[i])].expr;
    sum = sum + term * c;
  }
  const auto constant = p.find({});
  return constant == p.end() ? sum : sum + constant->second;
}

int Proof::atom(const Expr& e) {
  for (std::size_t i = 0; i < atoms_.size(); ++i)
    if (same(atoms_[i].expr, e)) return static_cast<int>(i);
  const auto number = static_cast<int>(atoms_.size());
  const Range r = range(e);
  atoms_.push_back({.expr = e, .min = r.min, .max = r.max});
  if (e.op() == Op::Var) {
    note_vars(e);
    if (e->var->extent) {
      if (auto upper = read(e->var->extent)) {
        Atom& a = atoms_[static_cast<std::size_t>(number)];
        a.has_upper = true;
        a.upper = plus(std::move(*upper), -1);
      }
    }
    return number;
  }
  if (e.op() == Op::Symbol) return number;
  note_vars(e);
  if (e.op() == Op::Mod || e.op() == Op::FloorDiv) {
    const auto d = read(e->args[1]);
    if (!d || d->size() != 1 || d->begin()->first.empty() || !positive(*d)) return number;
    Poly upper;
    if (e.op() == Op::Mod) {
      upper = plus(*d, -1);
    } else {
      // floor(v / d) <= E/d - 1 for a variable v < E where d divides E.
      const Expr& x = e->args[0];
      if (x.op() != Op::Var || !x->var->extent.get()) return number;
      const auto extent = read(x->var->extent);
      if (!extent) return number;
      auto [quotient, rest] = split(*extent, d->begin()->first, d->begin()->second);
      if (!rest.empty()) return number;
      upper = plus(std::move(quotient), -1);
    }
    Atom& a = atoms_[static_cast<std::size_t>(number)];
    a.has_upper = true;
    a.upper = std::move(upper);
    if (!a.min && (e.op() == Op::Mod || always_nonnegative(e->args[0]))) a.min = 0;
  }
  return number;
}

// The extent of a variable that runs is >= 1; where it is one product, so is each symbol in it.
void Proof::assume_runs(const VarNode& v) {
  if (!v.extent.get() || std::ranges::find(seen_vars_, &v) != seen_vars_.end()) return;
  seen_vars_.push_back(&v);
  const auto extent = read(v.extent);
  if (!extent || extent->size() != 1 || extent->begin()->second <= 0) return;
  for (const int i : extent->begin()->first) {
    Atom& a = atoms_[static_cast<std::size_t>(i)];
    if (a.min && *a.min == 0) a.min = 1;
  }
}

void Proof::note_vars(const Expr& e) {
  if (--budget_ < 0) return;
  if (e.op() == Op::Var) assume_runs(*e->var);
  for (const Expr& a : e->args) note_vars(a);
}

int Proof::degree(const Poly& p, int atom) const {
  std::ptrdiff_t most = 0;
  for (const auto& [m, c] : p) most = std::max(most, std::ranges::count(m, atom));
  return static_cast<int>(most);
}

// By intervals, term by term; atoms that may be negative only where they stand alone.
std::optional<std::int64_t> Proof::lower_bound(const Poly& p) const {
  std::int64_t sum = 0;
  for (const auto& [m, c] : p) {
    std::int64_t term = c;
    for (const int i : m) {
      const Atom& a = atoms_[static_cast<std::size_t>(i)];
      if (m.size() > 1 && (!a.min || *a.min < 0)) return std::nullopt;
      const auto bound = c > 0 ? a.min : a.max;
      if (!bound || __builtin_mul_overflow(term, *bound, &term)) return std::nullopt;
    }
    if (__builtin_add_overflow(sum, term, &sum)) return std::nullopt;
  }
  return sum;
}

bool Proof::nonnegative(const Poly& start, int depth) {
  Poly p = start;
  for (int step = 0; step < kMostEliminations; ++step) {
    if (const auto low = lower_bound(p); low && *low >= 0) return true;
    if (depth == 0) return false;
    bool progress = false;
    // Variables before symbols: their bounds are written in symbols.
    for (const bool symbols : {false, true}) {
      for (int i = 0; i < static_cast<int>(atoms_.size()) && !progress; ++i) {
        if ((atoms_[static_cast<std::size_t>(i)].expr.op() == Op::Symbol) != symbols || degree(p, i) != 1)
          continue;
        const auto [factor, rest] = split(p, {i}, 1);
        const Atom& a = atoms_[static_cast<std::size_t>(i)];
        std::optional<Poly> bound;
        if (a.has_upper || a.max) {
          const auto negated = combine({}, factor, -1);
          if (negated && nonnegative(*negated, depth - 1)) bound = a.has_upper ? a.upper : plus({}, *a.max);
        }
        if (!bound && a.min && nonnegative(factor, depth - 1)) bound = plus({}, *a.min);
        if (!bound) continue;
        const auto scaled = product(factor, *bound);
        const auto next = scaled ? combine(rest, *scaled, 1) : std::nullopt;
        if (!next) return false;
        p = *next;
        progress = true;
      }
      if (progress) break;
    }
    if (!progress) return false;
  }
  return false;
}

}  // namespace deepseek::loops
