// Facts about index expressions, and the rules that the constructors apply.
//
// An index expression is an I64 tree of constants, symbols (>= 0) and bounded variables; its arithmetic is
// taken not to wrap. The rules:
//   any type        constants fold; select on a constant or of equal branches; not(not x); x and true, x or
//   false integers        x+0, x-0, x*1, x*0, x/1, x-x, x shifted by 0; (x + c1) + c2; comparison of a tree
//   with itself floats          x*1, x/1, x-0, x + -0 (nothing that could change a NaN or a zero's sign) I64
//   sums are collected: i*4 + 2 + i -> i*5 + 2, (i + j)*4 -> i*4 + j*4 index           (a*c + b)/c -> a and
//   (a*c + b) mod c -> b when 0 <= b < c; (x/a)/b -> x/(a*b);
//                   (x/c)*c + x mod c -> x; (x mod (a*b)) mod b -> x mod b; Div and Rem of values >= 0 become
//                   FloorDiv and Mod; min, max and comparisons that the bounds decide
// c may be a symbol or a product of symbols: loop variables know their extents.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "loops/ir.h"

namespace deepseek::loops {

struct Range {
  std::optional<std::int64_t> min, max;
};
// Bounds of an integer expression's value, as far as constants tell.
Range range(const Expr& e);
// True when e is an index expression and e >= 0 (e > 0) follows from its variables' bounds.
bool always_nonnegative(const Expr& e);
bool always_positive(const Expr& e);
// What a comparison (Eq, Ne, Lt, Le) of two index expressions gives, when the bounds decide.
std::optional<bool> decide(Op op, const Expr& a, const Expr& b);

// While it lives, this thread's proofs take these symbols to be >= 1. Nests.
class AssumePositive {
 public:
  explicit AssumePositive(const std::set<std::string>& symbols);
  AssumePositive(const AssumePositive&) = delete;
  AssumePositive& operator=(const AssumePositive&) = delete;
  ~AssumePositive();

 private:
  const std::set<std::string>* outer_;
  std::set<std::string> all_;
};
// The symbols that are >= 1 wherever e, of constants and symbols, is >= 1.
std::set<std::string> positive_where_positive(const Expr& e);

// An equal program with the rules applied again to every expression, now knowing more: variables of Lets get their
// value's bounds (and give way to it where it is short), a loop that runs has an extent >= 1, what an If asks is so in
// its branches. Loops that run once are unwrapped, branches and statements that cannot happen are dropped.
Program simplify(const Program& p);

// The constructors' hook: a simpler expression equal to op(args), or empty.
Expr simplified(Op op, DType type, const std::vector<Expr>& args);
// The node as it stands, without folding; types are not checked.
Expr node(Op op, DType type, std::vector<Expr> args);

}  // namespace deepseek::loops
