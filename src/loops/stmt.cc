#include <algorithm>
#include <set>

#include "loops/ir.h"

namespace deepseek::loops {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

const char* name(LoopKind k) {
  switch (k) {
    case LoopKind::Serial:
      return "serial";
    case LoopKind::Parallel:
      return "parallel";
    case LoopKind::Vector:
      return "vector";
    case LoopKind::Unrolled:
      return "unrolled";
    case LoopKind::Block:
      return "block";
    case LoopKind::Thread:
      return "thread";
  }
  return "?";
}

Stmt block(std::vector<Stmt> stmts) {
  Block flat;
  for (Stmt& s : stmts) {
    if (const Block* inner = as<Block>(s))
      flat.stmts.insert(flat.stmts.end(), inner->stmts.begin(), inner->stmts.end());
    else if (s)
      flat.stmts.push_back(std::move(s));
  }
  if (flat.stmts.size() == 1) return flat.stmts[0];
  return stmt(std::move(flat));
}

void visit_exprs(const Stmt& s, const std::function<void(const Expr&)>& f) {
  if (!s) return;
  const auto all = [&](std::initializer_list<Expr> list) {
    for (const Expr& e : list)
      if (e) f(e);
  };
  std::visit(
      Overloaded{
          [&](const For& x) { all({x.extent}); },
          [&](const While& x) { all({x.condition}); },
          [&](const If& x) { all({x.condition}); },
          [&](const Let& x) { all({x.value}); },
          [&](const Alloc& x) { all({x.buffer->extent}); },
          [&](const Store& x) { all({x.index, x.value, x.predicate}); },
          [&](const Accumulate& x) { all({x.index, x.value, x.predicate}); },
          [&](const Assert& x) { all({x.condition}); },
          [&](const TileFill& x) { all({x.value}); },
          [&](const TileLoad& x) { all({x.base, x.row_stride, x.col_stride, x.valid_rows, x.valid_cols}); },
          [&](const TileMap& x) { all({x.value}); },
          [&](const TileStore& x) { all({x.valid_rows, x.valid_cols}); },
          [&](const Prefetch& x) { all({x.index}); },
          [&](const CopyAsync& x) {
            all({x.dst_base, x.dst_stride, x.src_base, x.src_stride, x.rows, x.cols});
          },
          [](const auto&) {},
      },
      s->v);
}

void visit_stmts(const Stmt& s, const std::function<void(const Stmt&)>& f) {
  if (!s) return;
  f(s);
  std::visit(Overloaded{
                 [&](const Block& x) {
                   for (const Stmt& inner : x.stmts) visit_stmts(inner, f);
                 },
                 [&](const For& x) { visit_stmts(x.body, f); },
                 [&](const While& x) { visit_stmts(x.body, f); },
                 [&](const If& x) {
                   visit_stmts(x.then, f);
                   visit_stmts(x.otherwise, f);
                 },
                 [&](const TileStore& x) { visit_stmts(x.body, f); },
                 [](const auto&) {},
             },
             s->v);
}

Stmt Phase::whole() const {
  std::vector<Stmt> all = prefix;
  all.push_back(body);
  return block(std::move(all));
}

Expr Phase::grid() const {
  if (!parallel) return 1;
  std::vector<Var> from;
  std::vector<Expr> to;
  for (const Stmt& s : prefix)
    if (const Let* let = as<Let>(s)) {
      to.push_back(substitute(let->value, from, to));
      from.push_back(let->var);
    }
  return substitute(parallel->extent, from, to);
}

std::vector<Phase> phases(const Program& p) {
  const Block* top = as<Block>(p.body);
  const std::vector<Stmt> stmts = top ? top->stmts : std::vector<Stmt>{p.body};
  std::vector<Phase> result;
  std::vector<Stmt> declared, prefix,
      serial;         // all declarations so far; those before `serial`; the open phase
  bool acts = false;  // `serial` is more than declarations
  const auto close = [&] {
    if (acts) result.push_back({prefix, block(std::move(serial)), nullptr});
    serial.clear();
    prefix = declared;
    acts = false;
  };
  for (const Stmt& s : stmts) {
    if (!s) continue;
    const For* loop = as<For>(s);
    if (loop && (loop->kind == LoopKind::Parallel || loop->kind == LoopKind::Block)) {
      close();
      result.push_back({declared, s, loop});
      continue;
    }
    const bool declaration = as<Let>(s) || as<Alloc>(s);
    if (declaration) declared.push_back(s);
    acts |= !declaration;
    serial.push_back(s);
  }
  close();
  return result;
}

bool is_read(const Program& p, const Buffer& b) {
  bool read = false;
  visit_stmts(p.body, [&](const Stmt& s) {
    const auto* tile = as<TileLoad>(s);
    const auto* sum = as<Accumulate>(s);
    const auto* copy = as<CopyAsync>(s);
    read |= (tile && tile->buffer == b) || (sum && sum->buffer == b) ||
            (copy && (copy->src == b || copy->dst == b));
    visit_exprs(s, [&](const Expr& e) {
      visit(e, [&](const Expr& x) { read |= x.op() == Op::Load && x->buffer == b; });
    });
  });
  return read;
}

std::vector<std::string> collect_symbols(const Program& p) {
  std::set<std::string> names;
  const auto note = [&](const Expr& e) {
    visit(e, [&](const Expr& x) {
      if (x.op() == Op::Symbol) names.insert(x->symbol);
    });
  };
  for (const Param& param : p.params) note(param.buffer->extent);
  visit_stmts(p.body, [&](const Stmt& s) { visit_exprs(s, note); });
  return {names.begin(), names.end()};
}

}  // namespace deepseek::loops
