#include "kernels/gpu_map.h"

#include "kernels/nest.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kThreads = 128;  // of a block

bool has_threads(const Stmt& s) {
  bool found = false;
  visit_stmts(s, [&](const Stmt& x) {
    if (const auto* f = as<For>(x)) found = found || f->kind == LoopKind::Thread;
  });
  return found;
}

Stmt serial_vectors(const Stmt& s) {
  if (!s) return s;
  if (const auto* b = as<Block>(s)) {
    std::vector<Stmt> all;
    for (const Stmt& x : b->stmts) all.push_back(serial_vectors(x));
    return block(std::move(all));
  }
  if (const auto* f = as<For>(s))
    return stmt(For{f->var, f->extent, f->kind == LoopKind::Vector ? LoopKind::Serial : f->kind,
                    serial_vectors(f->body)});
  if (const auto* i = as<If>(s))
    return stmt(If{i->condition, serial_vectors(i->then), serial_vectors(i->otherwise)});
  if (const auto* w = as<While>(s)) return stmt(While{w->condition, serial_vectors(w->body)});
  return s;
}

// {Lets..., one Vector loop whose extent does not depend on them}: the shape of an elementwise kernel.
const For* sole_vector(const Stmt& body) {
  if (const auto* f = as<For>(body)) return f->kind == LoopKind::Vector ? f : nullptr;
  const auto* b = as<Block>(body);
  if (!b || b->stmts.empty()) return nullptr;
  for (std::size_t i = 0; i + 1 < b->stmts.size(); ++i)
    if (!as<Let>(b->stmts[i])) return nullptr;
  const auto* f = as<For>(b->stmts.back());
  if (!f || f->kind != LoopKind::Vector) return nullptr;
  for (std::size_t i = 0; i + 1 < b->stmts.size(); ++i)
    if (uses(f->extent, as<Let>(b->stmts[i])->var)) return nullptr;
  return f;
}

Stmt map_phase(const Stmt& s) {
  const auto* p = as<For>(s);
  if (!p || p->kind != LoopKind::Parallel) return serial_vectors(s);
  if (has_threads(p->body)) return stmt(For{p->var, p->extent, LoopKind::Block, serial_vectors(p->body)});

  Expr work = p->extent;
  Stmt body = p->body;
  const Var item = make_var("item");
  std::vector<Stmt> lets = {};
  const For* v = sole_vector(p->body);
  if (v && !uses(v->extent, p->var)) {
    work = p->extent * v->extent;
    lets = {stmt(Let{p->var, floordiv(var(item), v->extent)}), stmt(Let{v->var, mod(var(item), v->extent)})};
    if (const auto* b = as<Block>(p->body)) lets.insert(lets.end(), b->stmts.begin(), b->stmts.end() - 1);
    body = v->body;
  } else {
    lets = {stmt(Let{p->var, var(item)})};
  }
  lets.push_back(serial_vectors(body));
  const Axis blocks = make_axis("block", floordiv(work + (kThreads - 1), kThreads)),
             thread = make_axis("thread", kThreads);
  const Stmt guarded = block({stmt(Let{item, var(blocks.var) * kThreads + var(thread.var)}),
                              stmt(If{var(item) < work, block(std::move(lets)), nullptr})});
  return loop(blocks, LoopKind::Block, loop(thread, LoopKind::Thread, guarded));
}

}  // namespace

Program map_to_gpu(const Program& p) {
  Program result = p;
  if (const auto* b = as<Block>(p.body)) {
    std::vector<Stmt> phases;
    for (const Stmt& s : b->stmts) phases.push_back(map_phase(s));
    result.body = block(std::move(phases));
  } else {
    result.body = map_phase(p.body);
  }
  return result;
}

}  // namespace deepseek::kernels
