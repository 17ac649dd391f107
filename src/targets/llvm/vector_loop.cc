// The Vector loop: whole steps of all lanes, then a masked step or a scalar loop for the rest.
#include <llvm/IR/Constants.h>
#include <llvm/IR/Intrinsics.h>

#include <algorithm>

#include "targets/llvm/accumulator.h"
#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::ConstantInt;
using loops::as;
using loops::Stmt;
using Shape = Val::Shape;

namespace {

bool is_float_sum(const loops::Accumulate& a) {
  return a.reducer == loops::Reducer::Sum && (a.buffer->dtype == DType::F32 || a.buffer->dtype == DType::F64);
}

bool contains_loop(const Stmt& body) {
  bool found = false;
  loops::visit_stmts(body, [&](const Stmt& s) { found = found || as<loops::For>(s) != nullptr; });
  return found;
}

// What the body of a Vector loop binds, and which buffers it touches other than by Accumulate.
struct Body {
  std::unordered_set<const loops::VarNode*> bound;
  std::unordered_set<const loops::BufferNode*> touched;
  std::vector<Stmt> accumulates;
  std::unordered_set<const loops::StmtNode*> conditional;
};

void note_loads(Body& b, const loops::Expr& e) {
  if (e.get() == nullptr) return;
  loops::visit(e, [&](const loops::Expr& x) {
    if (x.op() == loops::Op::Load) b.touched.insert(x->buffer.get());
  });
}

void scan(Body& b, const Stmt& s, bool conditional) {
  if (!s) return;
  loops::visit_exprs(s, [&](const loops::Expr& e) { note_loads(b, e); });
  if (const auto* block = as<loops::Block>(s)) {
    for (const Stmt& child : block->stmts) scan(b, child, conditional);
  } else if (const auto* f = as<loops::For>(s)) {
    b.bound.insert(f->var.get());
    scan(b, f->body, true);
  } else if (const auto* i = as<loops::If>(s)) {
    scan(b, i->then, true);
    scan(b, i->otherwise, true);
  } else if (const auto* let = as<loops::Let>(s)) {
    b.bound.insert(let->var.get());
  } else if (const auto* alloc = as<loops::Alloc>(s)) {
    b.touched.insert(alloc->buffer.get());
  } else if (const auto* store = as<loops::Store>(s)) {
    b.touched.insert(store->buffer.get());
  } else if (const auto* a = as<loops::Accumulate>(s)) {
    b.accumulates.push_back(s);
    if (conditional || a->predicate.get() != nullptr) b.conditional.insert(s.get());
  } else if (const auto* c = as<loops::CopyAsync>(s)) {
    b.touched.insert(c->dst.get());
  }
}

bool invariant(const Body& b, const loops::Expr& e) {
  bool ok = true;
  loops::visit(e, [&](const loops::Expr& x) {
    ok = ok && x.op() != loops::Op::Load && !(x.op() == loops::Op::Var && b.bound.contains(x->var.get()));
  });
  return ok;
}

}  // namespace

// Accumulates whose element does not depend on anything inside the loop, into buffers that nothing else there
// touches: they stay in registers until the loop is over.
std::vector<Accumulator> Emitter::find_accumulators(const loops::For& s) {
  Body body;
  body.bound.insert(s.var.get());
  scan(body, s.body, false);
  std::vector<Accumulator> found;
  for (const Stmt& stmt : body.accumulates) {
    const auto& a = *as<loops::Accumulate>(stmt);
    const bool alone = std::all_of(body.accumulates.begin(), body.accumulates.end(), [&](const Stmt& o) {
      const auto& other = *as<loops::Accumulate>(o);
      return other.buffer != a.buffer || (other.reducer == a.reducer && invariant(body, other.index));
    });
    if (!alone || body.touched.contains(a.buffer.get()) || !invariant(body, a.index)) continue;
    const bool seen =
        std::any_of(found.begin(), found.end(), [&](const Accumulator& x) { return x.key == stmt.get(); });
    if (!seen) found.push_back({stmt.get(), &a, {}, nullptr, body.conditional.contains(stmt.get())});
  }
  return found;
}

bool Emitter::accumulate_in_register(const Stmt& s, llvm::Value* mask) {
  const auto it = accumulators_.find(s.get());
  if (it == accumulators_.end() || lanes_ == 1) return false;
  Accumulator& a = *it->second;
  llvm::AllocaInst* slot = a.registers[static_cast<std::size_t>(accumulator_set_) % a.registers.size()];
  llvm::Value* old = b_.CreateLoad(slot->getAllocatedType(), slot);
  llvm::Value* sum = combine(a.source->reducer, a.source->buffer->dtype, old, vec(emit(a.source->value)));
  b_.CreateStore(mask ? b_.CreateSelect(mask, sum, old) : sum, slot);
  if (a.used) {
    llvm::Value* hit = mask ? any(mask) : b_.getTrue();
    b_.CreateStore(b_.CreateOr(b_.CreateLoad(b_.getInt1Ty(), a.used), hit), a.used);
  }
  return true;
}

llvm::Value* Emitter::sum_of_registers(const Accumulator& a) {
  std::vector<llvm::Value*> sums;
  for (llvm::AllocaInst* slot : a.registers) sums.push_back(b_.CreateLoad(slot->getAllocatedType(), slot));
  while (sums.size() > 1) {
    for (std::size_t i = 0; i < sums.size() / 2; ++i)
      sums[i] = combine(a.source->reducer, a.source->buffer->dtype, sums[i], sums[i + sums.size() / 2]);
    sums.resize(sums.size() / 2);
  }
  return sums[0];
}

void Emitter::put_away(const Accumulator& a) {
  llvm::Value* x = sum_of_registers(a);
  llvm::Type* t = x->getType();
  llvm::Value *old = b_.CreateLoad(t, a.total), *total = b_.CreateFAdd(old, x);
  llvm::Value* added = b_.CreateFSub(total, old);
  llvm::Value* lost = b_.CreateFAdd(b_.CreateFSub(old, b_.CreateFSub(total, added)), b_.CreateFSub(x, added));
  b_.CreateStore(total, a.total);
  b_.CreateStore(b_.CreateFAdd(b_.CreateLoad(t, a.lost), lost), a.lost);
  for (llvm::AllocaInst* slot : a.registers) b_.CreateStore(llvm::Constant::getNullValue(t), slot);
}

void Emitter::finish(Accumulator& a) {
  const loops::Accumulate& s = *a.source;
  const DType t = s.buffer->dtype;
  llvm::Value* sum = sum_of_registers(a);
  if (a.total) {
    put_away(a);
    llvm::Value* total = b_.CreateLoad(sum->getType(), a.total);
    llvm::Value* lost = b_.CreateLoad(sum->getType(), a.lost);
    // Of infinite sums nothing is known to be lost.
    sum = b_.CreateSelect(b_.CreateFCmpORD(lost, lost), b_.CreateFAdd(total, lost), total);
  }
  const auto write = [&] {
    update(memory(s.buffer), emit_scalar(s.index), s.reducer, reduce_lanes(s.reducer, t, sum));
  };
  if (!a.used) return write();
  when(b_.CreateLoad(b_.getInt1Ty(), a.used), write, "used");
}

bool Emitter::needs_scalar_tail(const Stmt& body) const {
  bool narrow = machine_.masked_bits > 64;
  const auto look = [&](const loops::Buffer& b) {
    const int size = b->dtype == DType::Bool ? 8 : bits(b->dtype);
    narrow = narrow || (b->space != loops::Space::Register && size < machine_.masked_bits);
  };
  loops::visit_stmts(body, [&](const Stmt& s) {
    if (const auto* store = as<loops::Store>(s)) look(store->buffer);
    if (const auto* a = as<loops::Accumulate>(s)) look(a->buffer);
    loops::visit_exprs(s, [&](const loops::Expr& e) {
      if (e.get() != nullptr)
        loops::visit(e, [&](const loops::Expr& x) {
          if (x.op() == loops::Op::Load) look(x->buffer);
        });
    });
  });
  return narrow;
}

// A Serial loop. Where it consists of Vector ones that are pieces of one loop, their sums stay in registers until it is over.
void Emitter::emit_pieces(const loops::For& s) {
  const auto pieces = s.extent.int_value();
  const auto* body = as<loops::Block>(s.body);
  if (in_vector_ || machine_.lanes == 1 || !pieces || *pieces < 2 || !body) return emit_serial(s);
  const std::int64_t step = machine_.lanes * kAccumulators;
  std::unordered_set<const loops::StmtNode*> in_pieces;
  std::int64_t longest = step;  // piece
  for (const Stmt& child : body->stmts) {
    const auto* vector = as<loops::For>(child);
    if (!vector || vector->kind != loops::LoopKind::Vector) continue;
    const auto extent = vector->extent.int_value();
    if (!extent || *extent % step != 0 || *extent > kLongestChain * step) continue;
    longest = std::max(longest, *extent);
    for (const Accumulator& a : find_accumulators(*vector))
      if (!a.conditional) in_pieces.insert(a.key);
  }
  if (in_pieces.empty()) return emit_serial(s);
  std::vector<Accumulator> found = find_accumulators(s);
  std::erase_if(found, [&](const Accumulator& a) { return !in_pieces.contains(a.key); });
  for (Accumulator& a : found) a.conditional = false;
  const std::int64_t length = kLongestChain * step / longest;
  accumulating(std::move(found), kAccumulators, *pieces > length,
               [&](const PutAway& put_away) { emit_serial(s, length, put_away); });
}

void Emitter::accumulating(std::vector<Accumulator> accumulators, int registers, bool long_loop,
                           const std::function<void(const PutAway&)>& emit_loop) {
  const auto outer = accumulators_;
  std::vector<const Accumulator*> long_sums;
  for (Accumulator& a : accumulators) {
    const DType t = a.source->buffer->dtype;
    llvm::Value* start =
        b_.CreateVectorSplat(static_cast<unsigned>(machine_.lanes), identity(a.source->reducer, t));
    const auto slot = [&](const char* name) {
      llvm::AllocaInst* s = local(start->getType(), name);
      b_.CreateStore(start, s);
      return s;
    };
    for (int i = 0; i < registers; ++i) a.registers.push_back(slot("sum"));
    if (long_loop && is_float_sum(*a.source)) {
      a.total = slot("total");
      a.lost = slot("lost");
      long_sums.push_back(&a);
    }
    if (a.conditional) {
      a.used = local(b_.getInt1Ty(), "used");
      b_.CreateStore(b_.getFalse(), a.used);
    }
    accumulators_[a.key] = &a;
  }
  const auto all_away = [&] {
    for (const Accumulator* a : long_sums) put_away(*a);
  };
  emit_loop(long_sums.empty() ? PutAway() : all_away);
  accumulators_ = outer;
  memo_.clear();
  for (Accumulator& a : accumulators) finish(a);
}

void Emitter::loop_in_parts(llvm::Value* begin, llvm::Value* end, std::int64_t step, std::int64_t length,
                            const PutAway& put_away, const std::function<void(llvm::Value*)>& body) {
  if (!put_away) return loop(begin, end, step, false, body);
  loop(begin, end, length * step, false, [&](llvm::Value* first) {
    llvm::Value* next = b_.CreateAdd(first, i64(length * step));
    loop(first, b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, next, end), step, true, body);
    put_away();
  });
}

void Emitter::emit_vector(const loops::For& s) {
  llvm::Value* n = emit_scalar(s.extent);
  const auto* constant = llvm::dyn_cast<ConstantInt>(n);
  const std::int64_t extent = constant ? constant->getSExtValue() : -1;
  if (extent == 0) return;
  std::vector<Accumulator> accumulators = find_accumulators(s);
  const bool short_loop = extent >= 0 && extent < kAccumulators * machine_.lanes;
  const int sets = accumulators.empty() || short_loop || contains_loop(s.body) ? 1 : kAccumulators;
  const bool long_loop = extent < 0 || extent > kLongestChain * sets * machine_.lanes;
  std::erase_if(accumulators, [&](const Accumulator& a) { return accumulators_.contains(a.key); });
  accumulating(std::move(accumulators), sets, long_loop,
               [&](const PutAway& put_away) { emit_steps(s, n, sets, put_away); });
}

void Emitter::emit_steps(const loops::For& s, llvm::Value* n, int sets, const PutAway& put_away) {
  const std::int64_t lanes = machine_.lanes;
  in_vector_ = true;
  lanes_ = static_cast<int>(lanes);
  const auto step = [&](llvm::Value* base) {
    vars_[s.var.get()] = {base, Shape::Linear, 1, Congruence::of(lanes, 0)};
    emit(s.body);
  };
  const auto whole = [&](llvm::Value* from, std::int64_t size) {
    llvm::Value* rest = b_.CreateSub(n, from);
    return b_.CreateAdd(from, b_.CreateSub(rest, b_.CreateURem(rest, i64(size))));
  };
  llvm::Value* done = i64(0);
  if (sets > 1) {
    llvm::Value* end = whole(done, sets * lanes);
    loop_in_parts(done, end, sets * lanes, kLongestChain, put_away, [&](llvm::Value* i) {
      for (accumulator_set_ = 0; accumulator_set_ < sets; ++accumulator_set_)
        step(b_.CreateAdd(i, i64(accumulator_set_ * lanes)));
    });
    accumulator_set_ = 0;
    done = end;
  }
  llvm::Value* end = whole(done, lanes);
  loop_in_parts(done, end, lanes, kLongestChain, sets > 1 ? PutAway() : put_away, step);
  if (needs_scalar_tail(s.body)) {
    lanes_ = 1;
    loop(end, n, 1, false, [&](llvm::Value* i) {
      vars_[s.var.get()] = {i};
      emit(s.body);
    });
  } else {
    when(
        b_.CreateICmpSLT(end, n),
        [&] {
          llvm::Value* left = b_.CreateTrunc(b_.CreateSub(n, end), b_.getInt32Ty());
          mask_ = b_.CreateICmpULT(iota(b_.getInt32Ty()),
                                   b_.CreateVectorSplat(static_cast<unsigned>(lanes_), left));
          step(end);
          mask_ = nullptr;
        },
        "rest");
  }
  lanes_ = 1;
  in_vector_ = false;
}

}  // namespace deepseek::codegen
