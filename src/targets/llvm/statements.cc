// Statements and loops, the Vector loop excepted.
#include <llvm/IR/Constants.h>
#include <llvm/IR/IntrinsicsNVPTX.h>

#include <algorithm>

#include "deepseek/error.h"
#include "targets/llvm/emitter.h"
#include "targets/llvm/hardware_loops.h"

namespace deepseek::codegen {

using llvm::BasicBlock;
using llvm::ConstantInt;
using loops::as;
using loops::LoopKind;
using loops::Stmt;
using Shape = Val::Shape;

namespace {

// A loop around tile multiplies is unrolled until a step has this many vector multiplies, so that the loop's own
// instructions do not count. No further: LLVM loads the operands of all unrolled steps first, and a tile that fills the
// registers then spills.
constexpr std::int64_t kMultipliesPerStep = 12;
constexpr std::int64_t kMaxTileUnroll = 4;

// How often to repeat the body; 1 when it multiplies no tiles.
std::int64_t tile_unroll(const Stmt& body, int lanes) {
  std::int64_t multiplies = 0;
  const auto count = [&](const Stmt& s) {
    if (const auto* m = as<loops::TileMma>(s))
      multiplies += m->c->rows * std::max<std::int64_t>(m->c->cols / lanes, 1) * m->a->cols;
  };
  count(body);
  if (const auto* b = as<loops::Block>(body)) std::for_each(b->stmts.begin(), b->stmts.end(), count);
  std::int64_t unroll = 1;
  while (multiplies > 0 && unroll < kMaxTileUnroll && unroll * multiplies < kMultipliesPerStep) unroll *= 2;
  return unroll;
}

// Statements that neither store to memory nor branch: loads may be put off past them.
bool keeps_memory(const Stmt& s) {
  return as<loops::Let>(s) || as<loops::TileAlloc>(s) || as<loops::TileLoad>(s) || as<loops::TileMma>(s) ||
         as<loops::Block>(s) || as<loops::Alloc>(s) || as<loops::Prefetch>(s);
}

}  // namespace

Emitter::Emitter(const Machine& machine, llvm::Module& module, const Frame& frame)
    : machine_(machine),
      module_(module),
      frame_(frame),
      b_(module.getContext(), llvm::InstSimplifyFolder(module.getDataLayout())) {
  b_.SetInsertPoint(&frame.function->back());
}

void Emitter::bind(const loops::Buffer& buffer, llvm::Value* base) {
  memories_[buffer.get()] = {base, buffer->dtype, false, bits(buffer->dtype) < 8};
}

void Emitter::emit(const Stmt& s) {
  memo_.clear();
  roots_.clear();
  loops::visit_exprs(s, [&](const loops::Expr& e) {
    if (e.get() != nullptr) roots_.push_back(e);
  });
  if (!keeps_memory(s)) settle_tiles();
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, loops::Block>) {
          for (const Stmt& child : v.stmts) emit(child);
        } else if constexpr (std::is_same_v<T, loops::For>) {
          emit_for(v);
        } else if constexpr (std::is_same_v<T, loops::While>) {
          emit_while(v);
        } else if constexpr (std::is_same_v<T, loops::If>) {
          emit_if(v);
        } else if constexpr (std::is_same_v<T, loops::Let>) {
          vars_[v.var.get()] = emit(v.value);
        } else if constexpr (std::is_same_v<T, loops::Alloc>) {
          emit_alloc(v);
        } else if constexpr (std::is_same_v<T, loops::Store>) {
          emit_store(v);
        } else if constexpr (std::is_same_v<T, loops::Accumulate>) {
          emit_accumulate(s);
        } else if constexpr (std::is_same_v<T, loops::Assert>) {
          emit_assert(v);
        } else if constexpr (std::is_same_v<T, loops::TileAlloc>) {
          emit_tile_alloc(v);
        } else if constexpr (std::is_same_v<T, loops::TileFill>) {
          emit_tile_fill(v);
        } else if constexpr (std::is_same_v<T, loops::TileLoad>) {
          emit_tile_load(v);
        } else if constexpr (std::is_same_v<T, loops::TileMma>) {
          emit_tile_mma(v);
        } else if constexpr (std::is_same_v<T, loops::TileMap>) {
          emit_tile_map(v);
        } else if constexpr (std::is_same_v<T, loops::TileStore>) {
          emit_tile_store(v);
        } else if constexpr (std::is_same_v<T, loops::CopyAsync>) {
          emit_copy(v);
        } else if constexpr (std::is_same_v<T, loops::Wait>) {
          // Copies are complete when they are emitted.
        } else if constexpr (std::is_same_v<T, loops::Prefetch>) {
          emit_prefetch(v);
        } else {
          static_assert(std::is_same_v<T, loops::Barrier>);
          if (machine_.gpu)
            emit_barrier();
          else if (in_thread_loop_)
            unsupported("a Barrier inside a Thread loop on this machine");
        }
      },
      s->v);
}

void Emitter::emit_prefetch(const loops::Prefetch& s) {
  const Memory m = memory(s.buffer);
  if (machine_.gpu || m.stream) return;
  llvm::Value* index = emit_scalar(s.index);
  if (m.packed) return;
  prefetch(address(m, index), s.near);
}

void Emitter::emit_barrier() {
#if LLVM_VERSION_MAJOR >= 21
  b_.CreateIntrinsic(b_.getVoidTy(), llvm::Intrinsic::nvvm_barrier_cta_sync_aligned_all, {b_.getInt32(0)});
#else
  b_.CreateIntrinsic(b_.getVoidTy(), llvm::Intrinsic::nvvm_barrier0, {});
#endif
}

void Emitter::when(llvm::Value* condition, const std::function<void()>& then, const char* name,
                   const std::function<void()>& otherwise) {
  if (const auto* c = llvm::dyn_cast<ConstantInt>(condition)) {
    if (c->isOne()) {
      then();
    } else if (otherwise) {
      otherwise();
    }
    return;
  }
  auto& context = module_.getContext();
  auto* inside = BasicBlock::Create(context, name, frame_.function);
  auto* other = otherwise ? BasicBlock::Create(context, "else", frame_.function) : nullptr;
  auto* after = BasicBlock::Create(context, "after", frame_.function);
  b_.CreateCondBr(condition, inside, other ? other : after);
  const auto branch = [&](BasicBlock* from, const std::function<void()>& f) {
    b_.SetInsertPoint(from);
    memo_.clear();
    f();
    memo_.clear();
    b_.CreateBr(after);
  };
  branch(inside, then);
  if (other) branch(other, otherwise);
  b_.SetInsertPoint(after);
}

void Emitter::loop(llvm::Value* begin, llvm::Value* end, std::int64_t step, bool entered,
                   const std::function<void(llvm::Value*)>& body) {
  const auto *first = llvm::dyn_cast<ConstantInt>(begin), *last = llvm::dyn_cast<ConstantInt>(end);
  memo_.clear();
  if (first && last) {
    const std::int64_t span = last->getSExtValue() - first->getSExtValue();
    if (span <= 0) return;
    if (span <= step) return body(begin);
    entered = true;
  }
  const auto iterate = [&] {
    auto& context = module_.getContext();
    BasicBlock* before = b_.GetInsertBlock();
    auto* header = BasicBlock::Create(context, "loop", frame_.function);
    auto* latch = BasicBlock::Create(context, "next", frame_.function);
    auto* after = BasicBlock::Create(context, "done", frame_.function);
    b_.CreateBr(header);
    // The way back is there before the body is emitted: the builder simplifies, looks at both values of the phi and at
    // the ends of the blocks that they come from.
    auto* i = llvm::PHINode::Create(b_.getInt64Ty(), 2, "", header);
    b_.SetInsertPoint(latch);
    llvm::Value* next = llvm::BinaryOperator::CreateNSWAdd(i, i64(step), "", latch);
    b_.CreateCondBr(b_.CreateICmpSLT(next, end), header, after);
    i->addIncoming(begin, before);
    i->addIncoming(next, latch);
    b_.SetInsertPoint(header);
    memo_.clear();
    body(i);
    memo_.clear();
    b_.CreateBr(latch);
    b_.SetInsertPoint(after);
  };
  if (entered) return iterate();
  when(b_.CreateICmpSLT(begin, end), iterate, "enter");
}

void Emitter::emit_range(const loops::Var& var, llvm::Value* begin, llvm::Value* end, const Stmt& body) {
  loop(begin, end, 1, false, [&](llvm::Value* i) {
    vars_[var.get()] = {i};
    emit(body);
    settle_tiles();
  });
}

void Emitter::emit_for(const loops::For& s) {
  switch (s.kind) {
    case LoopKind::Unrolled: {
      const auto n = s.extent.int_value();
      check(n.has_value(), "codegen: an Unrolled loop of constant extent");
      for (std::int64_t i = 0; i < *n; ++i) {
        vars_[s.var.get()] = {i64(i), Shape::Uniform, 0, Congruence::exactly(i)};
        emit(s.body);
      }
      return;
    }
    case LoopKind::Vector:
      if (!in_vector_ && machine_.lanes > 1) return emit_vector(s);
      return emit_serial(s);
    case LoopKind::Block:
    case LoopKind::Parallel:
      if (machine_.gpu) return emit_hardware_loop(s);
      return emit_serial(s);
    case LoopKind::Thread: {
      if (machine_.gpu) return emit_hardware_loop(s);
      const bool outer = std::exchange(in_thread_loop_, true);
      emit_serial(s);
      in_thread_loop_ = outer;
      return;
    }
    case LoopKind::Serial:
      return emit_pieces(s);
  }
}

void Emitter::emit_serial(const loops::For& s, std::int64_t length, const PutAway& put_away) {
  llvm::Value* n = emit_scalar(s.extent);
  const auto step = [&](llvm::Value* i, Congruence known) {
    const auto* c = llvm::dyn_cast<ConstantInt>(i);
    vars_[s.var.get()] = {i, Shape::Uniform, 0, c ? Congruence::exactly(c->getSExtValue()) : known};
    emit(s.body);
  };
  const auto settled = [&](llvm::Value* i) {
    step(i, {});
    settle_tiles();
  };
  const std::int64_t unroll = tile_unroll(s.body, machine_.lanes);
  if (unroll == 1) return loop_in_parts(i64(0), n, 1, length, put_away, settled);
  llvm::Value* whole = b_.CreateAnd(n, i64(-unroll));
  loop(i64(0), whole, unroll, false, [&](llvm::Value* i) {
    for (std::int64_t u = 0; u < unroll; ++u) step(b_.CreateAdd(i, i64(u)), Congruence::of(unroll, u));
    settle_tiles();
  });
  loop(whole, n, 1, false, settled);
}

// Block and Thread loops of a GPU: the innermost of a nest is x, where neighbouring threads are neighbours in
// memory.
void Emitter::emit_hardware_loop(const loops::For& s) {
  using llvm::Intrinsic::ID;
  static constexpr ID kBlock[] = {llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_x,
                                  llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_y,
                                  llvm::Intrinsic::nvvm_read_ptx_sreg_ctaid_z};
  static constexpr ID kThread[] = {llvm::Intrinsic::nvvm_read_ptx_sreg_tid_x,
                                   llvm::Intrinsic::nvvm_read_ptx_sreg_tid_y,
                                   llvm::Intrinsic::nvvm_read_ptx_sreg_tid_z};
  const std::size_t axis = hardware_axis(s);
  llvm::Value* i =
      b_.CreateIntrinsic(b_.getInt32Ty(), (s.kind == LoopKind::Thread ? kThread : kBlock)[axis], {});
  i = b_.CreateZExt(i, b_.getInt64Ty());
  vars_[s.var.get()] = {i};
  // The launch has the largest extent of the nest's loops: the others leave the rest of it idle.
  llvm::Value* n = emit_scalar(s.extent);
  const auto* constant = llvm::dyn_cast<ConstantInt>(n);
  if (s.kind == LoopKind::Thread && constant && constant->getSExtValue() == frame_.block_dims[axis])
    return emit(s.body);
  when(
      b_.CreateICmpSLT(i, n),
      [&] {
        emit(s.body);
        settle_tiles();
      },
      "thread");
}

void Emitter::emit_while(const loops::While& s) {
  auto& context = module_.getContext();
  auto* header = BasicBlock::Create(context, "while", frame_.function);
  auto* body = BasicBlock::Create(context, "body", frame_.function);
  auto* after = BasicBlock::Create(context, "done", frame_.function);
  b_.CreateBr(header);
  b_.SetInsertPoint(header);
  memo_.clear();
  b_.CreateCondBr(emit_scalar(s.condition), body, after);
  b_.SetInsertPoint(body);
  emit(s.body);
  settle_tiles();
  b_.CreateBr(header);
  b_.SetInsertPoint(after);
  memo_.clear();
}

void Emitter::emit_if(const loops::If& s) {
  const Val condition = emit(s.condition);
  const auto branch = [&](const Stmt& body) {
    return [&] {
      if (body) emit(body);
      settle_tiles();
    };
  };
  if (condition.uniform()) {
    when(condition.v, branch(s.then), "then", s.otherwise ? branch(s.otherwise) : std::function<void()>());
    return;
  }
  const auto masked = [&](llvm::Value* lanes, const Stmt& body) {
    auto* outer = std::exchange(mask_, select_mask(mask_, lanes));
    const bool outer_any = std::exchange(mask_any_, true);
    when(any(mask_), branch(body), "lanes");
    mask_ = outer;
    mask_any_ = outer_any;
  };
  masked(condition.v, s.then);
  if (s.otherwise) masked(b_.CreateNot(condition.v), s.otherwise);
}

void Emitter::emit_alloc(const loops::Alloc& s) {
  const loops::BufferNode& buffer = *s.buffer;
  const bool in_register = buffer.space == loops::Space::Register;
  Memory m{nullptr, buffer.dtype, in_register && lanes_ > 1, !in_register && bits(buffer.dtype) < 8};
  const auto extent = buffer.extent.int_value();
  if (machine_.gpu && !in_register) {
    check(extent.has_value(), "codegen: a Shared buffer of constant extent");
    const std::int64_t size = deepseek::bytes(buffer.dtype, *extent);
    auto* t = llvm::ArrayType::get(b_.getInt8Ty(), static_cast<std::uint64_t>(size));
    constexpr unsigned kSharedSpace = 3;
    auto* g = new llvm::GlobalVariable(module_, t, false, llvm::GlobalValue::InternalLinkage,
                                       llvm::UndefValue::get(t), buffer.name, nullptr,
                                       llvm::GlobalValue::NotThreadLocal, kSharedSpace);
    g->setAlignment(llvm::Align(16));
    m.base = g;
  } else if (const auto it = frame_.plan->offset.find(s.buffer.get()); it != frame_.plan->offset.end()) {
    m.base = b_.CreatePtrAdd(frame_.scratch, emit_scalar(it->second));
  } else {
    check(extent.has_value(), "codegen: a Register buffer of constant extent");
    llvm::Type* element = memory_type(buffer.dtype);
    if (m.per_lane) element = vector_type(element);
    m.base =
        local(llvm::ArrayType::get(element, static_cast<std::uint64_t>(std::max<std::int64_t>(*extent, 1))),
              buffer.name);
  }
  memories_[s.buffer.get()] = m;
}

void Emitter::emit_assert(const loops::Assert& s) {
  if (!frame_.status) return;
  const Val ok = emit(s.condition);
  llvm::Value* failed = b_.CreateNot(ok.v);
  if (!ok.uniform())
    failed = any(select_mask(mask_, failed));
  else if (mask_ && !mask_any_)
    failed = b_.CreateAnd(failed, any(mask_));
  when(
      failed,
      [&] {
        b_.CreateAtomicCmpXchg(frame_.status, b_.getInt32(0), b_.getInt32(static_cast<std::uint32_t>(s.code)),
                               llvm::MaybeAlign(4), llvm::AtomicOrdering::Monotonic,
                               llvm::AtomicOrdering::Monotonic);
      },
      "failed");
}

void Emitter::emit_copy(const loops::CopyAsync& s) {
  const auto row = loops::loop_var("row", s.rows), col = loops::loop_var("col", s.cols);
  const auto at = [&](const loops::Expr& base, const loops::Expr& stride) {
    return base + loops::var(row) * stride + loops::var(col);
  };
  const Stmt copy = loops::stmt(loops::Store{
      s.dst, at(s.dst_base, s.dst_stride), loops::load(s.src, at(s.src_base, s.src_stride)), {}});
  emit(loops::stmt(loops::For{row, s.rows, LoopKind::Serial,
                              loops::stmt(loops::For{col, s.cols, LoopKind::Vector, copy})}));
}

}  // namespace deepseek::codegen
