// Proofs about index expressions: they are read as polynomials over atoms (symbols, variables, and whatever
// is not a sum or product), and atoms are replaced by their bounds until signs are plain. Everything here is
// sound and gives up early: small budgets, no search.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "loops/ir.h"

namespace deepseek::loops {

// I64, of constants, symbols, bounded variables and casts of narrower integers.
bool is_index(const Expr& e);

class Proof {
 public:
  using Monomial = std::vector<int>;  // atoms by number, sorted; empty: the constant
  using Poly = std::map<Monomial, std::int64_t>;

  // Nothing when it is too large or its constants overflow. Variables seen here run, so their extents are
  // >= 1.
  std::optional<Poly> read(const Expr& e);
  Expr write(const Poly& p) const;
  bool nonnegative(const Poly& p, int depth = 3);
  bool positive(const Poly& p) { return nonnegative(plus(p, -1)); }

  static Poly plus(Poly p, std::int64_t c);
  static std::optional<Poly> combine(const Poly& a, const Poly& b, std::int64_t factor);  // a + factor*b
  static std::optional<Poly> product(const Poly& a, const Poly& b);
  // p = quotient*d + rest, term by term; d is one monomial with a positive coefficient.
  static std::pair<Poly, Poly> split(const Poly& p, const Monomial& d, std::int64_t coefficient);

 private:
  struct Atom {
    Expr expr;
    std::optional<std::int64_t> min, max;
    bool has_upper = false;
    Poly upper;  // inclusive, when has_upper
  };
  std::vector<Atom> atoms_;
  std::vector<const VarNode*> seen_vars_;
  int budget_ = 200;

  int atom(const Expr& e);
  void assume_runs(const VarNode& v);
  void note_vars(const Expr& e);
  std::optional<std::int64_t> lower_bound(const Poly& p) const;
  int degree(const Poly& p, int atom) const;
};

}  // namespace deepseek::loops
