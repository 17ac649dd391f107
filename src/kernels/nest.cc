#include "kernels/nest.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "deepseek/error.h"

namespace deepseek::kernels {

using namespace loops;

namespace {
// A reduction over at most this many points is unrolled: a pooling window, a depthwise kernel.
constexpr std::int64_t kUnrolledReduction = 27;
// A longer float sum is a sum of sums over about so many points, and what adding these loses by rounding is added in the
// end, so that its error does not grow with its length (Higham, "The accuracy of floating point summation", 1993).
constexpr std::int64_t kSummedInARow = 32;
}  // namespace

Axis make_axis(std::string name, Expr extent) {
  Var v = loop_var(std::move(name), extent);
  return {std::move(v), std::move(extent)};
}

std::vector<Axis> make_axes(const std::string& prefix, std::span<const Expr> extents) {
  std::vector<Axis> axes;
  for (const Expr& e : extents) axes.push_back(make_axis(prefix + std::to_string(axes.size()), e));
  return axes;
}

std::vector<Expr> coords_of(std::span<const Axis> axes) {
  std::vector<Expr> result;
  for (const Axis& a : axes) result.push_back(var(a.var));
  return result;
}

Stmt loop(const Axis& axis, LoopKind kind, Stmt body) {
  return stmt(For{axis.var, axis.extent, kind, std::move(body)});
}

Expr let(const std::string& name, const Expr& value, std::vector<Stmt>& stmts) {
  const Var v = make_var(name + std::to_string(stmts.size()), value.type());
  stmts.push_back(stmt(Let{v, value}));
  return var(v);
}

Expr product(std::span<const Axis> axes) {
  Expr p = 1;
  for (const Axis& a : axes) p = p * a.extent;
  return p;
}

// -- reductions
// ----------------------------------------------------------------------------------------------
namespace {

struct Unit {  // one accumulator and the loops that fill it
  std::vector<Stmt> stmts;
  Buffer accumulator;
  std::set<const VarNode*> vars;        // free variables
  std::set<const BufferNode*> buffers;  // accumulators read
};

void collect(const Expr& e, std::set<const VarNode*>& vars, std::set<const BufferNode*>& buffers) {
  visit(e, [&](const Expr& x) {
    if (x.op() == Op::Var) vars.insert(x->var.get());
    if (x.op() == Op::Load) buffers.insert(x->buffer.get());
  });
}

class ReductionExpander {
 public:
  ReductionExpander(bool vector, std::vector<Stmt>& checks) : vector_(vector), checks_(checks) {}

  Computed run(const Expr& e) {
    Computed result;
    result.value = rewrite(e, [&](const Expr& x) { return x.op() == Op::Reduce ? expand(x) : Expr(); });
    for (Unit& u : units_) result.stmts.insert(result.stmts.end(), u.stmts.begin(), u.stmts.end());
    return result;
  }

 private:
  // The units and checks that depend on the axes, removed from their lists.
  std::vector<Stmt> inside(const std::vector<Axis>& axes) {
    std::set<const VarNode*> vars;
    for (const Axis& a : axes) vars.insert(a.var.get());
    std::set<const BufferNode*> moved;
    std::vector<Stmt> result;
    const auto depends = [&](const std::set<const VarNode*>& v, const std::set<const BufferNode*>& b) {
      return std::any_of(v.begin(), v.end(), [&](const VarNode* x) { return vars.contains(x); }) ||
             std::any_of(b.begin(), b.end(), [&](const BufferNode* x) { return moved.contains(x); });
    };
    std::erase_if(units_, [&](Unit& u) {
      if (!depends(u.vars, u.buffers)) return false;
      moved.insert(u.accumulator.get());
      result.insert(result.end(), u.stmts.begin(), u.stmts.end());
      return true;
    });
    std::erase_if(checks_, [&](const Stmt& s) {
      std::set<const VarNode*> v;
      std::set<const BufferNode*> b;
      collect(as<Assert>(s)->condition, v, b);
      if (!depends(v, b)) return false;
      result.push_back(s);
      return true;
    });
    return result;
  }

  Expr expand(const Expr& x) {
    if (const auto it = done_.find(x.get()); it != done_.end()) return it->second;
    const Reduction& r = *x->reduction;
    Expr body = x->args[0];
    std::vector<Axis> axes = r.axes;
    std::vector<Stmt> nested = inside(axes);
    if (nested.empty()) {
      Expr* exprs[] = {&body};
      merge_axes(axes, exprs);
    }
    std::int64_t points = 1;
    for (const Axis& a : axes)
      points = a.extent.int_value() && points <= kUnrolledReduction ? points * *a.extent.int_value()
                                                                    : kUnrolledReduction + 1;

    const bool sums = r.reducer == Reducer::Sum && (x.type() == DType::F32 || x.type() == DType::F64);
    const std::optional<std::size_t> long_sum = sums ? cut(axes, body, nested) : std::nullopt;
    const std::size_t innermost = axes.size() - 1;
    const auto around = [&](std::size_t first, std::size_t end, Stmt s) {
      for (std::size_t i = end; i-- > first;) {
        const LoopKind kind = vector_ && i == innermost      ? LoopKind::Vector
                              : points <= kUnrolledReduction ? LoopKind::Unrolled
                                                             : LoopKind::Serial;
        s = loop(axes[i], kind, std::move(s));
      }
      return s;
    };
    const auto begin = [&](const char* name, std::vector<Stmt>& to) {
      const Buffer acc = make_buffer(name, x.type(), Space::Register, 1);
      to.push_back(stmt(Alloc{acc}));
      to.push_back(stmt(Store{acc, 0, identity(r.reducer, x.type()), {}}));
      return acc;
    };

    std::vector<Stmt> stmts;
    Buffer acc = begin("acc", stmts);
    nested.push_back(accumulate(r.reducer, acc, body));
    stmts.push_back(around(long_sum.value_or(0), axes.size(), block(std::move(nested))));
    if (long_sum) {
      std::vector<Stmt> outer;
      const Buffer sum = begin("sum", outer), lost = begin("lost", outer);
      add_exactly(load(acc, 0), sum, lost, stmts);
      outer.push_back(around(0, *long_sum, block(std::move(stmts))));
      // Of infinite sums nothing is known to be lost.
      const Expr all = load(sum, 0), rest = load(lost, 0);
      outer.push_back(stmt(Store{sum, 0, select(rest == rest, all + rest, all), {}}));
      stmts = std::move(outer);
      acc = sum;
    }
    Unit unit{std::move(stmts), acc, {}, {}};
    collect(body, unit.vars, unit.buffers);
    for (const Axis& a : axes) collect(a.extent, unit.vars, unit.buffers);
    const Expr result = load(acc, 0);
    units_.push_back(std::move(unit));
    keep_.push_back(x);
    return done_[x.get()] = result;
  }

  // Adds x to a sum, and what that loses by rounding to what was lost before (Knuth's two-sum).
  static void add_exactly(const Expr& x, const Buffer& sum, const Buffer& lost, std::vector<Stmt>& stmts) {
    const auto named = [&](const char* name, const Expr& value) {
      const Var v = make_var(name, value.type());
      stmts.push_back(stmt(Let{v, value}));
      return var(v);
    };
    const Expr old = named("old", load(sum, 0)), added = named("added", x);
    const Expr total = named("total", old + added), counted = named("counted", total - old);
    stmts.push_back(
        stmt(Store{lost, 0, load(lost, 0) + ((old - (total - counted)) + (added - counted)), {}}));
    stmts.push_back(stmt(Store{sum, 0, total, {}}));
  }

  // Where a sum over the axes is long: the first of the axes that are summed in a row. An axis may be cut in two for that.
  // The innermost axis of vectors has many accumulators already.
  std::optional<std::size_t> cut(std::vector<Axis>& axes, Expr& body, std::vector<Stmt>& nested) const {
    std::int64_t inside = 1;
    for (std::size_t i = axes.size() - (vector_ ? 1 : 0); i-- > 0;) {
      const std::optional<std::int64_t> extent = axes[i].extent.int_value();
      if (extent && inside * *extent <= 2 * kSummedInARow) {
        inside *= *extent;
        continue;
      }
      const std::int64_t length = std::max<std::int64_t>(1, kSummedInARow / inside);
      if (length > 1) split(axes, i, length, body, nested);
      return i + 1;
    }
    return std::nullopt;
  }

  // Cuts an axis into parts of a length, or of a shorter one that leaves no rest.
  static void split(std::vector<Axis>& axes, std::size_t at, std::int64_t length, Expr& body,
                    std::vector<Stmt>& nested) {
    const Axis whole = axes[at];
    const std::optional<std::int64_t> extent = whole.extent.int_value();
    for (std::int64_t l = length; extent && l > length / 2 && *extent % length != 0; --l)
      if (*extent % l == 0) length = l;
    const Axis parts = make_axis(whole.var->name + "_part", floordiv(whole.extent + (length - 1), length));
    const Expr first = var(parts.var) * length;
    const bool even = extent && *extent % length == 0;
    const Axis point =
        make_axis(whole.var->name, even ? Expr(length) : loops::min(Expr(length), whole.extent - first));
    const Expr to = first + var(point.var);
    const Var from[] = {whole.var};
    const auto replaced = [&](const Expr& e) { return loops::substitute(e, from, std::span(&to, 1)); };
    body = replaced(body);
    for (Axis& inner : axes) inner.extent = replaced(inner.extent);
    for (Stmt& s : nested) s = kernels::substitute(s, whole.var, to);
    axes[at] = point;
    axes.insert(axes.begin() + static_cast<std::ptrdiff_t>(at), parts);
  }

  // Sums of products fuse where the accumulator is not shared between lanes.
  Stmt accumulate(Reducer r, const Buffer& acc, const Expr& body) const {
    const bool fuses = !vector_ && r == Reducer::Sum && body.op() == Op::Mul &&
                       (body.type() == DType::F32 || body.type() == DType::F64);
    if (!fuses) return stmt(Accumulate{r, acc, 0, body, {}});
    return stmt(Store{acc, 0, make(Op::Fma, {body->args[0], body->args[1], load(acc, 0)}), {}});
  }

  bool vector_;
  std::vector<Stmt>& checks_;
  std::vector<Unit> units_;
  std::map<const ExprNode*, Expr> done_;
  std::vector<Expr> keep_;  // keys of done_ stay alive
};

}  // namespace

Computed expand_reductions(const Expr& e, bool vector, std::vector<Stmt>& checks) {
  return ReductionExpander(vector, checks).run(e);
}

// -- axes
// ----------------------------------------------------------------------------------------------------
namespace {

bool divides(const Expr& e, const Var& v) {
  bool found = false;
  visit(e, [&](const Expr& x) {
    if ((x.op() == Op::FloorDiv || x.op() == Op::Mod) && uses(x, v)) found = true;
  });
  return found;
}

}  // namespace

void merge_axes(std::vector<Axis>& axes, std::span<Expr*> exprs) {
  for (std::size_t i = axes.size(); i-- > 1;) {
    const Axis outer = axes[i - 1], inner = axes[i];
    if (inner.extent.int_value() == 1 || outer.extent.int_value() == 1) {
      const std::size_t drop = inner.extent.int_value() == 1 ? i : i - 1;
      const Var from[] = {axes[drop].var};
      const Expr to[] = {0};
      for (Expr* e : exprs) *e = substitute(*e, from, to);
      axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(drop));
      continue;
    }
    const Axis joined = make_axis(outer.var->name + inner.var->name, outer.extent * inner.extent);
    const Var from[] = {outer.var, inner.var};
    const Expr to[] = {floordiv(var(joined.var), inner.extent), mod(var(joined.var), inner.extent)};
    std::vector<Expr> rewritten;
    bool clean = true;
    for (const Expr* e : exprs) {
      rewritten.push_back(substitute(*e, from, to));
      clean = clean && !divides(rewritten.back(), joined.var);
      if (!clean) break;
    }
    if (!clean) continue;
    for (std::size_t k = 0; k < exprs.size(); ++k) *exprs[k] = rewritten[k];
    axes[i - 1] = joined;
    axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// -- statements
// ----------------------------------------------------------------------------------------------
Stmt rewrite_exprs(const Stmt& s, const std::function<Expr(const Expr&)>& f) {
  if (!s) return s;
  const auto ex = [&](const Expr& e) { return e ? rewrite(e, f) : e; };
  const auto st = [&](const Stmt& inner) { return rewrite_exprs(inner, f); };
  return std::visit(
      [&](const auto& x) -> Stmt {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, Block>) {
          std::vector<Stmt> all;
          for (const Stmt& i : x.stmts) all.push_back(st(i));
          return block(std::move(all));
        } else if constexpr (std::is_same_v<T, For>) {
          return stmt(For{x.var, ex(x.extent), x.kind, st(x.body)});
        } else if constexpr (std::is_same_v<T, While>) {
          return stmt(While{ex(x.condition), st(x.body)});
        } else if constexpr (std::is_same_v<T, If>) {
          return stmt(If{ex(x.condition), st(x.then), st(x.otherwise)});
        } else if constexpr (std::is_same_v<T, Let>) {
          return stmt(Let{x.var, ex(x.value)});
        } else if constexpr (std::is_same_v<T, Store>) {
          return stmt(Store{x.buffer, ex(x.index), ex(x.value), ex(x.predicate)});
        } else if constexpr (std::is_same_v<T, Accumulate>) {
          return stmt(Accumulate{x.reducer, x.buffer, ex(x.index), ex(x.value), ex(x.predicate)});
        } else if constexpr (std::is_same_v<T, Assert>) {
          return stmt(Assert{ex(x.condition), x.code});
        } else if constexpr (std::is_same_v<T, TileFill>) {
          return stmt(TileFill{x.tile, ex(x.value)});
        } else if constexpr (std::is_same_v<T, TileLoad>) {
          return stmt(TileLoad{x.tile, x.buffer, ex(x.base), ex(x.row_stride), ex(x.col_stride),
                               ex(x.valid_rows), ex(x.valid_cols), x.group});
        } else if constexpr (std::is_same_v<T, TileMap>) {
          return stmt(TileMap{x.tile, x.i, x.j, x.x, ex(x.value)});
        } else if constexpr (std::is_same_v<T, TileStore>) {
          return stmt(TileStore{x.tile, x.i, x.j, x.x, ex(x.valid_rows), ex(x.valid_cols), st(x.body)});
        } else if constexpr (std::is_same_v<T, Prefetch>) {
          return stmt(Prefetch{x.buffer, ex(x.index), x.near});
        } else if constexpr (std::is_same_v<T, CopyAsync>) {
          return stmt(CopyAsync{x.dst, ex(x.dst_base), ex(x.dst_stride), x.src, ex(x.src_base),
                                ex(x.src_stride), ex(x.rows), ex(x.cols), x.token});
        } else {
          return s;
        }
      },
      s->v);
}

Stmt substitute(const Stmt& s, const Var& from, const Expr& to) {
  return rewrite_exprs(s, [&](const Expr& x) { return x.op() == Op::Var && x->var == from ? to : Expr(); });
}

namespace {

void conjuncts(const Expr& e, std::vector<Expr>& out) {
  if (e.op() == Op::And && e.type() == DType::Bool) {
    conjuncts(e->args[0], out);
    conjuncts(e->args[1], out);
  } else if (e.int_value() != 1) {
    out.push_back(e);
  }
}

// Whether a comparison is linear in v, so that it holds on a range of v when it holds at both ends.
bool monotone(const Expr& atom, const Var& v) {
  if (atom.op() != Op::Lt && atom.op() != Op::Le) return false;
  const auto c = coefficient(atom->args[0] - atom->args[1], v);
  return c && c->is_const();
}

// Conditions free of the loops' variables which together imply `predicate` everywhere in the loops; nothing
// when there are none such.
std::optional<std::vector<Expr>> hoisted(const Expr& predicate,
                                         const std::map<const VarNode*, const For*>& loops,
                                         const std::set<const VarNode*>& inner) {
  std::vector<Expr> atoms;
  conjuncts(predicate, atoms);
  std::vector<Expr> result;
  while (!atoms.empty()) {
    const Expr atom = atoms.back();
    atoms.pop_back();
    std::set<const VarNode*> vars;
    std::set<const BufferNode*> buffers;
    collect(atom, vars, buffers);
    if (!buffers.empty()) return std::nullopt;
    const auto bound =
        std::find_if(vars.begin(), vars.end(), [&](const VarNode* v) { return inner.contains(v); });
    if (bound == vars.end()) {
      result.push_back(atom);
      continue;
    }
    const auto it = loops.find(*bound);
    if (it == loops.end() || !it->second->extent.is_const() || !monotone(atom, it->second->var))
      return std::nullopt;
    const Var from[] = {it->second->var};
    for (const Expr& end : {Expr(0), it->second->extent - 1}) {
      const Expr to[] = {end};
      conjuncts(substitute(atom, from, to), atoms);
    }
  }
  return result;
}

}  // namespace

Stmt join_loops(const Stmt& nest) {
  const auto* outer = as<For>(nest);
  if (!outer) return nest;
  const Stmt body = join_loops(outer->body);
  const auto* inner = as<For>(body);
  if (!inner) return stmt(For{outer->var, outer->extent, outer->kind, body});
  const Axis joined = make_axis(outer->var->name + inner->var->name, outer->extent * inner->extent);
  const Stmt both = substitute(substitute(inner->body, outer->var, floordiv(var(joined.var), inner->extent)),
                               inner->var, mod(var(joined.var), inner->extent));
  bool clean = true;
  visit_stmts(both, [&](const Stmt& s) {
    visit_exprs(s, [&](const Expr& e) { clean = clean && !divides(e, joined.var); });
  });
  return clean ? loop(joined, inner->kind, both) : stmt(For{outer->var, outer->extent, outer->kind, body});
}

Stmt split_on_predicates(const Stmt& body, bool independent) {
  std::set<const VarNode*> inner;
  std::map<const VarNode*, const For*> loops;
  visit_stmts(body, [&](const Stmt& s) {
    if (const auto* f = as<For>(s)) {
      inner.insert(f->var.get());
      loops[f->var.get()] = f;
    }
    if (const auto* l = as<Let>(s)) inner.insert(l->var.get());
    if (const auto* t = as<TileStore>(s)) inner.insert({t->i.get(), t->j.get(), t->x.get()});
  });
  std::vector<Expr> conditions, decided;
  visit_stmts(body, [&](const Stmt& s) {
    visit_exprs(s, [&](const Expr& e) {
      visit(e, [&](const Expr& x) {
        if (x.op() != Op::Load || x->args.size() != 3) return;
        const auto known = [](const std::vector<Expr>& list, const Expr& c) {
          return std::any_of(list.begin(), list.end(), [&](const Expr& y) { return same(c, y); });
        };
        if (known(decided, x->args[1])) return;
        const auto atoms = hoisted(x->args[1], loops, inner);
        if (!atoms) return;
        decided.push_back(x->args[1]);
        for (const Expr& a : *atoms)
          if (!known(conditions, a)) conditions.push_back(a);
      });
    });
  });
  if (conditions.empty()) return body;
  Expr all = conditions[0];
  for (std::size_t i = 1; i < conditions.size(); ++i) all = all && conditions[i];
  if (all.int_value() == 0) return body;
  const Stmt fast = rewrite_exprs(body, [&](const Expr& x) {
    if (x.op() == Op::Load && x->args.size() == 3 &&
        std::any_of(decided.begin(), decided.end(), [&](const Expr& c) { return same(c, x->args[1]); }))
      return load(x->buffer, x->args[0]);
    return Expr();
  });
  return stmt(If{all, independent ? join_loops(fast) : fast, body});
}

std::int64_t part_length(std::int64_t length, std::int64_t least) {
  constexpr std::int64_t kMostParts = 64, kGrain = 256;
  const std::int64_t parts = std::clamp<std::int64_t>(length / least, 1, kMostParts);
  return ((length + parts - 1) / parts + kGrain - 1) / kGrain * kGrain;
}

}  // namespace deepseek::kernels
