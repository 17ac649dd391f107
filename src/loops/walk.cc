// Walks over expressions: comparison, substitution, rewriting. Shared sub-trees are visited once.
#include <bit>
#include <unordered_map>
#include <unordered_set>

#include "deepseek/error.h"
#include "loops/ir.h"
#include "loops/simplify.h"

namespace deepseek::loops {
namespace {

struct PairHash {
  std::size_t operator()(const std::pair<const ExprNode*, const ExprNode*>& p) const {
    return std::hash<const void*>()(p.first) * 31 + std::hash<const void*>()(p.second);
  }
};

// Of constants: bit for bit, so that 0 and -0 differ and NaN is itself.
bool same_value(const ExprNode& a, const ExprNode& b) {
  const double *x = std::get_if<double>(&a.value), *y = std::get_if<double>(&b.value);
  return x && y ? std::bit_cast<std::uint64_t>(*x) == std::bit_cast<std::uint64_t>(*y) : a.value == b.value;
}

// Trees are mostly small: pairs found equal are remembered only once many steps were taken.
class Comparison {
 public:
  bool same(const ExprNode* a, const ExprNode* b) {
    if (a == b) return true;
    if (!a || !b || a->op != b->op || a->type != b->type || a->args.size() != b->args.size() ||
        !same_value(*a, *b) || a->var != b->var || a->buffer != b->buffer || a->symbol != b->symbol)
      return false;
    if (a->op == Op::Reduce && !same_axes(*a->reduction, *b->reduction)) return false;
    if (a->args.empty()) return true;
    const bool remember = ++steps_ > kStepsWithoutMemory;
    if (remember && equal_.contains({a, b})) return true;
    for (std::size_t i = 0; i < a->args.size(); ++i)
      if (!same(a->args[i].get(), b->args[i].get())) return false;
    if (remember) equal_.insert({a, b});
    return true;
  }

 private:
  static constexpr int kStepsWithoutMemory = 64;
  int steps_ = 0;
  std::unordered_set<std::pair<const ExprNode*, const ExprNode*>, PairHash> equal_;

  bool same_axes(const Reduction& a, const Reduction& b) {
    if (a.reducer != b.reducer || a.axes.size() != b.axes.size()) return false;
    for (std::size_t i = 0; i < a.axes.size(); ++i)
      if (a.axes[i].var != b.axes[i].var || !same(a.axes[i].extent.get(), b.axes[i].extent.get()))
        return false;
    return true;
  }
};

// The node with other arguments, simplified where its constructor does that.
Expr rebuilt(const Expr& e, std::vector<Expr> args) {
  switch (e.op()) {
    case Op::Const:
    case Op::Var:
    case Op::Symbol:
      return e;
    case Op::Cast:
      return cast(e.type(), std::move(args[0]));
    case Op::Bitcast:
      return bitcast(e.type(), std::move(args[0]));
    case Op::Load:
      return args.size() == 1 ? load(e->buffer, std::move(args[0]))
                              : load(e->buffer, std::move(args[0]), std::move(args[1]), std::move(args[2]));
    case Op::Reduce:
      return reduce(e->reduction->reducer, e->reduction->axes, std::move(args[0]));
    default:
      return make(e.op(), std::move(args));
  }
}

class Rewriter {
 public:
  explicit Rewriter(const std::function<Expr(const Expr&)>& f) : f_(f) {}

  Expr operator()(const Expr& e) {
    if (const auto it = done_.find(e.get()); it != done_.end()) return it->second;
    std::vector<Expr> args;
    args.reserve(e->args.size());
    bool changed = false;
    for (const Expr& a : e->args) {
      args.push_back((*this)(a));
      changed |= args.back().get() != a.get();
    }
    Expr current = e;
    if (e.op() == Op::Reduce) {
      std::vector<Axis> axes;
      for (const Axis& a : e->reduction->axes) {
        axes.push_back({a.var, (*this)(a.extent)});
        changed |= axes.back().extent.get() != a.extent.get();
      }
      if (changed) current = reduce(e->reduction->reducer, std::move(axes), std::move(args[0]));
    } else if (changed) {
      current = rebuilt(e, std::move(args));
    }
    if (Expr replaced = f_(current)) current = replaced;
    done_.emplace(e.get(), current);
    return current;
  }

 private:
  const std::function<Expr(const Expr&)>& f_;
  std::unordered_map<const ExprNode*, Expr> done_;
};

void visit(const Expr& e, const std::function<void(const Expr&)>& f,
           std::unordered_set<const ExprNode*>& seen) {
  if (!seen.insert(e.get()).second) return;
  f(e);
  for (const Expr& a : e->args) visit(a, f, seen);
  if (e->reduction)
    for (const Axis& a : e->reduction->axes) visit(a.extent, f, seen);
}

}  // namespace

bool same(const Expr& a, const Expr& b) { return Comparison().same(a.get(), b.get()); }

Expr rewrite(const Expr& e, const std::function<Expr(const Expr&)>& f) { return Rewriter(f)(e); }

Expr substitute(const Expr& e, std::span<const Var> from, std::span<const Expr> to) {
  check(from.size() == to.size(), "substitute: as many expressions as variables");
  return rewrite(e, [&](const Expr& x) -> Expr {
    if (x.op() == Op::Var)
      for (std::size_t i = 0; i < from.size(); ++i)
        if (x->var == from[i]) return to[i];
    return {};
  });
}

void visit(const Expr& e, const std::function<void(const Expr&)>& f) {
  if (!e.get()) return;
  std::unordered_set<const ExprNode*> seen;
  visit(e, f, seen);
}

bool uses(const Expr& e, const Var& v) {
  bool found = false;
  visit(e, [&](const Expr& x) { found |= x.op() == Op::Var && x->var == v; });
  return found;
}

std::optional<Expr> coefficient(const Expr& e, const Var& v) {
  if (e.op() == Op::Var && e->var == v) return one(e.type());
  if (!uses(e, v)) return zero(e.type());
  switch (e.op()) {
    case Op::Add:
    case Op::Sub: {
      const auto a = coefficient(e->args[0], v), b = coefficient(e->args[1], v);
      if (!a || !b) return std::nullopt;
      return make(e.op(), {*a, *b});
    }
    case Op::Neg: {
      const auto a = coefficient(e->args[0], v);
      return a ? std::optional(-*a) : std::nullopt;
    }
    case Op::Mul: {
      const bool left = uses(e->args[0], v), right = uses(e->args[1], v);
      if (left && right) return std::nullopt;
      const auto c = coefficient(e->args[left ? 0 : 1], v);
      return c ? std::optional(*c * e->args[left ? 1 : 0]) : std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace deepseek::loops
