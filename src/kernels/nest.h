// Building blocks of the generic schedules: from expressions over axes to loop nests.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "loops/ir.h"

namespace deepseek::kernels {

using loops::Axis;
using loops::Expr;
using loops::LoopKind;
using loops::Stmt;

Axis make_axis(std::string name, Expr extent);
std::vector<Axis> make_axes(const std::string& prefix, std::span<const Expr> extents);
std::vector<Expr> coords_of(std::span<const Axis> axes);
Stmt loop(const Axis& axis, LoopKind kind, Stmt body);
Expr product(std::span<const Axis> axes);

// Appends a Let of `value` under a name of its own to `stmts`; the variable.
Expr let(const std::string& name, const Expr& value, std::vector<Stmt>& stmts);

// Statements in order, and an expression over what they computed.
struct Computed {
  std::vector<Stmt> stmts;
  Expr value;
};

// Replaces each Reduce in `e` by an accumulator and the loops that fill it. `checks` that depend on a
// reduction's axes move into its loops; the others are left in `checks`. With `vector`, the innermost axis of
// a reduction becomes a Vector loop: only where no Vector loop is around it.
Computed expand_reductions(const Expr& e, bool vector, std::vector<Stmt>& checks);

// Joins neighbouring axes, innermost first, where every expression stays free of divisions by the joined
// axis. `exprs` are rewritten to the new axes.
void merge_axes(std::vector<Axis>& axes, std::span<Expr*> exprs);

// When loads in `body` are predicated on conditions that do not depend on variables bound inside `body`: an
// If over all of them with a fast branch that has no predicates. Otherwise the body itself. Where iterations of all
// loops are `independent`, those of the fast branch are joined.
Stmt split_on_predicates(const Stmt& body, bool independent = false);

// Joins perfectly nested loops, innermost first, where that takes no divisions. Iterations are independent.
Stmt join_loops(const Stmt& nest);

// Replaces a variable in a statement and everything in it.
Stmt substitute(const Stmt& s, const loops::Var& from, const Expr& to);
// Replaces expressions in a statement and everything in it.
Stmt rewrite_exprs(const Stmt& s, const std::function<Expr(const Expr&)>& f);

// Elements of each of the parts that a long loop is cut into for threads, at least `least` where there are so many. It
// follows from the loop's length alone, and parts begin at multiples, so that they end with whole vectors.
std::int64_t part_length(std::int64_t length, std::int64_t least);

}  // namespace deepseek::kernels
