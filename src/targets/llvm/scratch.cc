#include "targets/llvm/scratch.h"

#include <algorithm>

namespace deepseek::codegen {
namespace {

using namespace loops;

constexpr std::int64_t kScratchAlign = 64;

class Planner {
 public:
  explicit Planner(const Machine& machine) : machine_(machine) {}

  // The first free byte after everything in `s`, whose buffers start at `top`. Buffers of a block stay until its
  // end, so `scope` moves with them.
  Expr walk(const Stmt& s, Expr& scope, bool in_vector) {
    if (const auto* block = as<Block>(s)) {
      Expr inner = scope, high = scope;
      for (const Stmt& child : block->stmts) high = max(high, walk(child, inner, in_vector));
      return high;
    }
    if (const auto* alloc = as<Alloc>(s)) {
      place(alloc->buffer, scope, in_vector);
      return scope;
    }
    Expr high = scope;
    for (const Stmt& child : children(s)) {
      Expr inner = scope;
      const auto* loop = as<For>(s);
      high = max(high, walk(child, inner, in_vector || (loop && loop->kind == LoopKind::Vector)));
    }
    return high;
  }

  ScratchPlan plan;

 private:
  static std::vector<Stmt> children(const Stmt& s) {
    if (const auto* f = as<For>(s)) return {f->body};
    if (const auto* w = as<While>(s)) return {w->body};
    if (const auto* i = as<If>(s))
      return i->otherwise ? std::vector{i->then, i->otherwise} : std::vector{i->then};
    return {};
  }

  void place(const Buffer& b, Expr& top, bool in_vector) {
    const std::int64_t lanes = in_vector ? machine_.lanes : 1;
    const std::int64_t element_bits = std::max(bits(b->dtype), 8) * lanes;
    if (b->space == Space::Register) {
      const auto extent = b->extent.int_value();
      if (!extent || *extent * element_bits <= kMaxStackBytes * 8) return;
    }
    plan.offset[b.get()] = top;
    const Expr size = b->extent * Expr(element_bits / 8) + Expr(kScratchAlign - 1);
    top = top + floordiv(size, kScratchAlign) * Expr(kScratchAlign);
  }

  const Machine& machine_;
};

}  // namespace

ScratchPlan plan_scratch(const loops::Stmt& phase, const Machine& machine) {
  if (machine.gpu) return {};
  Planner planner(machine);
  Expr top = 0;
  planner.plan.bytes = planner.walk(phase, top, false);
  planner.plan.bytes = max(planner.plan.bytes, top);
  return std::move(planner.plan);
}

}  // namespace deepseek::codegen
