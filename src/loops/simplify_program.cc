#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "loops/polynomial.h"
#include "loops/simplify.h"

namespace deepseek::loops {
namespace {

bool has_load(const Expr& e) {
  bool found = false;
  visit(e, [&](const Expr& x) { found |= x.op() == Op::Load; });
  return found;
}

// Takes the place of a variable: a leaf, or a leaf and a constant added or multiplied.
bool is_short(const Expr& e) {
  const auto leaf = [](const Expr& x) { return x.is_const() || x.op() == Op::Var || x.op() == Op::Symbol; };
  if (leaf(e)) return true;
  const bool sum = e.op() == Op::Add || e.op() == Op::Sub || e.op() == Op::Mul;
  return sum && is_index(e) && leaf(e->args[0]) && e->args[1].is_const();
}

// Without the Lets that nothing uses.
class DeadLets {
 public:
  explicit DeadLets(const Stmt& s) {
    visit_stmts(s, [&](const Stmt& inner) {
      visit_exprs(inner, [&](const Expr& e) {
        visit(e, [&](const Expr& x) {
          if (x.op() == Op::Var) used_.insert(x->var.get());
        });
      });
    });
  }
  bool found() const { return found_; }

  Stmt operator()(const Stmt& s) {
    if (const auto* let = as<Let>(s)) {
      if (used_.contains(let->var.get())) return s;
      found_ = true;
      return nullptr;
    }
    if (const auto* b = as<Block>(s)) {
      std::vector<Stmt> stmts;
      for (const Stmt& inner : b->stmts) stmts.push_back((*this)(inner));
      return block(std::move(stmts));
    }
    if (const auto* f = as<For>(s)) return stmt(For{f->var, f->extent, f->kind, kept((*this)(f->body))});
    if (const auto* w = as<While>(s)) return stmt(While{w->condition, kept((*this)(w->body))});
    if (const auto* i = as<If>(s))
      return stmt(If{i->condition, kept((*this)(i->then)), i->otherwise ? (*this)(i->otherwise) : nullptr});
    if (const auto* t = as<TileStore>(s))
      return stmt(TileStore{t->tile, t->i, t->j, t->x, t->valid_rows, t->valid_cols, kept((*this)(t->body))});
    return s;
  }

 private:
  std::unordered_set<const VarNode*> used_;
  bool found_ = false;
  static Stmt kept(Stmt s) { return s ? s : stmt(Block{}); }
};

class Simplifier {
 public:
  Program run(const Program& p) {
    Program result = p;
    const Block* top = as<Block>(p.body);
    std::vector<Stmt> stmts;
    for (const Stmt& s : top ? top->stmts : std::vector<Stmt>{p.body}) stmts.push_back(rebuilt(s));
    result.body = block(std::move(stmts));
    for (bool more = true; more;) {
      DeadLets dead(result.body);
      result.body = dead(result.body);
      more = dead.found();
    }
    if (!result.body) result.body = stmt(Block{});
    return result;
  }

 private:
  struct Fact {
    Expr condition;
    bool truth;
  };
  std::unordered_map<const VarNode*, Expr> values_;
  std::unordered_map<const BufferNode*, Buffer> buffers_;
  std::unordered_map<const TileNode*, Tile> tiles_;
  std::vector<Fact> facts_;
  std::unordered_map<const ExprNode*, Expr> done_;  // under the present facts and values

  // -- expressions ---------------------------------------------------------------------------------------------

  Buffer of(const Buffer& b) const {
    const auto it = buffers_.find(b.get());
    return it == buffers_.end() ? b : it->second;
  }

  Expr rebuilt(const Expr& e) {
    if (!e.get()) return e;
    if (const auto it = done_.find(e.get()); it != done_.end()) return it->second;
    Expr result = apply_facts(again(e));
    done_.emplace(e.get(), result);
    return result;
  }

  Expr again(const Expr& e) {
    std::vector<Expr> args;
    for (const Expr& a : e->args) args.push_back(rebuilt(a));
    switch (e.op()) {
      case Op::Const:
      case Op::Symbol:
      case Op::Reduce:
        return e;
      case Op::Var: {
        const auto it = values_.find(e->var.get());
        return it == values_.end() ? e : it->second;
      }
      case Op::Load:
        return args.size() == 1 ? load(of(e->buffer), args[0])
                                : load(of(e->buffer), args[0], args[1], args[2]);
      case Op::Cast:
        return cast(e.type(), args[0]);
      case Op::Bitcast:
        return bitcast(e.type(), args[0]);
      default:
        return make(e.op(), std::move(args));
    }
  }

  Expr apply_facts(const Expr& e) const {
    if (e.type() == DType::Bool && !e.is_const())
      for (const Fact& f : facts_)
        if (same(f.condition, e)) return constant(DType::Bool, std::int64_t{f.truth});
    return e;
  }

  // -- facts ---------------------------------------------------------------------------------------------------

  // What memory holds may change before it is asked again.
  void learn(const Expr& condition, bool truth, std::set<std::string>& positive) {
    if (condition.op() == (truth ? Op::And : Op::Or)) {
      learn(condition->args[0], truth, positive);
      learn(condition->args[1], truth, positive);
      return;
    }
    if (condition.op() == Op::Not) return learn(condition->args[0], !truth, positive);
    if (condition.is_const() || has_load(condition)) return;
    facts_.push_back({condition, truth});
    facts_.push_back({!condition, !truth});
    const Expr holds = truth ? condition : !condition;
    if ((holds.op() == Op::Lt || holds.op() == Op::Le) && holds->args[0].type() == DType::I64) {
      const Range below = range(holds->args[0]);
      if (below.min && *below.min >= (holds.op() == Op::Lt ? 0 : 1))
        positive.merge(positive_where_positive(holds->args[1]));
    }
  }

  // Runs f with what is learnt by `teach`, then forgets it.
  template <class Teach, class F>
  auto within(Teach teach, F f) {
    const std::size_t known = facts_.size();
    std::set<std::string> positive;
    teach(positive);
    const AssumePositive assume(positive);
    done_.clear();
    auto result = f();
    facts_.resize(known);
    done_.clear();
    return result;
  }

  // -- statements ----------------------------------------------------------------------------------------------

  Stmt rebuilt(const Stmt& s) {
    if (!s) return s;
    return std::visit([&](const auto& x) { return again(x); }, s->v);
  }

  Stmt again(const Block& b) {
    std::vector<Stmt> stmts;
    for (const Stmt& s : b.stmts) stmts.push_back(rebuilt(s));
    return block(std::move(stmts));
  }

  static bool does_nothing(const Stmt& s) {
    const Block* b = as<Block>(s);
    return !s || (b && b->stmts.empty());
  }

  Stmt again(const For& x) {
    const Expr extent = rebuilt(x.extent);
    const auto n = extent.int_value();
    if (n && *n <= 0 && x.kind != LoopKind::Parallel && x.kind != LoopKind::Block) return nullptr;
    const bool unwrap =
        n == 1 && (x.kind == LoopKind::Serial || x.kind == LoopKind::Vector || x.kind == LoopKind::Unrolled);
    const Var v = loop_var(x.var->name, extent);
    values_[x.var.get()] = unwrap ? Expr(0) : var(v);
    const Stmt body =
        within([&](std::set<std::string>& positive) { positive = positive_where_positive(extent); },
               [&] { return rebuilt(x.body); });
    if (does_nothing(body) && x.kind != LoopKind::Parallel && x.kind != LoopKind::Block) return nullptr;
    return unwrap ? body : stmt(For{v, extent, x.kind, body ? body : stmt(Block{})});
  }

  Stmt again(const While& x) {
    const Expr condition = rebuilt(x.condition);
    if (condition.int_value() == 0) return nullptr;
    return stmt(While{condition, or_empty(rebuilt(x.body))});
  }
  static Stmt or_empty(Stmt s) { return s ? s : stmt(Block{}); }

  Stmt again(const If& x) {
    const Expr condition = rebuilt(x.condition);
    if (const auto known = condition.int_value()) return rebuilt(*known ? x.then : x.otherwise);
    const auto branch = [&](const Stmt& s, bool truth) {
      return within([&](std::set<std::string>& positive) { learn(condition, truth, positive); },
                    [&] { return rebuilt(s); });
    };
    const Stmt then = branch(x.then, true), otherwise = branch(x.otherwise, false);
    const bool no_then = does_nothing(then), no_otherwise = does_nothing(otherwise);
    if (no_then && no_otherwise) return nullptr;
    return stmt(If{condition, or_empty(then), no_otherwise ? nullptr : otherwise});
  }

  Stmt again(const Let& x) {
    const Expr value = rebuilt(x.value);
    done_.clear();
    if (is_short(value)) {
      values_[x.var.get()] = value;
      return nullptr;
    }
    VarNode v{.name = x.var->name, .dtype = value.type()};
    if (is_index(value)) {
      const Range r = range(value);
      v.min = r.min;
      v.max = r.max;
      v.value = value;
      if (!v.min && always_nonnegative(value)) v.min = 0;
      if (value.op() == Op::Mod && !value->args[1].is_const() && always_positive(value->args[1]))
        v.extent = value->args[1];
    }
    const Var bounded = std::make_shared<const VarNode>(std::move(v));
    values_[x.var.get()] = var(bounded);
    return stmt(Let{bounded, value});
  }

  // Fresh ones: a statement that stands in two places may come to stand in one block.
  Stmt again(const Alloc& x) {
    const BufferNode& b = *x.buffer;
    done_.clear();
    return stmt(Alloc{buffers_[&b] = make_buffer(b.name, b.dtype, b.space, rebuilt(b.extent))});
  }

  // A predicate that always holds is left out; nothing remains of a statement whose predicate never does.
  bool never(Expr& predicate) {
    predicate = rebuilt(predicate);
    const auto known = predicate.int_value();
    if (known == 1) predicate = Expr();
    return known == 0;
  }
  Stmt again(const Store& x) {
    Expr predicate = x.predicate;
    if (never(predicate)) return nullptr;
    return stmt(Store{of(x.buffer), rebuilt(x.index), rebuilt(x.value), predicate});
  }
  Stmt again(const Accumulate& x) {
    Expr predicate = x.predicate;
    if (never(predicate)) return nullptr;
    return stmt(Accumulate{x.reducer, of(x.buffer), rebuilt(x.index), rebuilt(x.value), predicate});
  }
  Stmt again(const Assert& x) {
    const Expr condition = rebuilt(x.condition);
    return condition.int_value() == 1 ? nullptr : stmt(Assert{condition, x.code});
  }

  Tile of(const Tile& t) const {
    const auto it = tiles_.find(t.get());
    return it == tiles_.end() ? t : it->second;
  }
  Stmt again(const TileAlloc& x) {
    return stmt(TileAlloc{tiles_[x.tile.get()] = std::make_shared<const TileNode>(*x.tile)});
  }
  Stmt again(const TileFill& x) { return stmt(TileFill{of(x.tile), rebuilt(x.value)}); }
  Stmt again(const TileLoad& x) {
    return stmt(TileLoad{of(x.tile), of(x.buffer), rebuilt(x.base), rebuilt(x.row_stride),
                         rebuilt(x.col_stride), rebuilt(x.valid_rows), rebuilt(x.valid_cols), x.group});
  }
  Stmt again(const TileMma& x) { return stmt(TileMma{of(x.c), of(x.a), of(x.b)}); }
  Var coordinate(const Var& v, const Expr& extent) {
    const Var bounded = loop_var(v->name, extent);
    values_[v.get()] = var(bounded);
    return bounded;
  }
  Stmt again(const TileMap& x) {
    const Var i = coordinate(x.i, x.tile->rows), j = coordinate(x.j, x.tile->cols);
    done_.clear();
    return stmt(TileMap{of(x.tile), i, j, x.x, rebuilt(x.value)});
  }
  Stmt again(const TileStore& x) {
    const Expr rows = rebuilt(x.valid_rows), cols = rebuilt(x.valid_cols);
    const Var i = coordinate(x.i, min(rows, x.tile->rows)), j = coordinate(x.j, min(cols, x.tile->cols));
    const Stmt body = within([](std::set<std::string>&) {}, [&] { return rebuilt(x.body); });
    if (does_nothing(body)) return nullptr;
    return stmt(TileStore{of(x.tile), i, j, x.x, rows, cols, body});
  }
  Stmt again(const CopyAsync& x) {
    return stmt(CopyAsync{of(x.dst), rebuilt(x.dst_base), rebuilt(x.dst_stride), of(x.src),
                          rebuilt(x.src_base), rebuilt(x.src_stride), rebuilt(x.rows), rebuilt(x.cols),
                          x.token});
  }
  Stmt again(const Wait& x) { return stmt(Wait{x}); }
  Stmt again(const Barrier&) { return stmt(Barrier{}); }
  Stmt again(const Prefetch& x) { return stmt(Prefetch{of(x.buffer), rebuilt(x.index), x.near}); }
};

}  // namespace

Program simplify(const Program& p) { return Simplifier().run(p); }

}  // namespace deepseek::loops
