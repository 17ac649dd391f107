// Loads, stores and accumulation.
#include <llvm/IR/Constants.h>
#include <llvm/IR/DerivedTypes.h>

#include <bit>

#include "deepseek/error.h"
#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::Align;
using llvm::Constant;
using llvm::ConstantInt;
using Shape = Val::Shape;

namespace {

Align align_of(DType t) { return Align(static_cast<std::uint64_t>(std::max(bits(t), 8) / 8)); }

constexpr std::int64_t kMaxShuffledStride = 4, kLeastStreamed = 16, kAhead = 2048;  // bytes

}  // namespace

Memory& Emitter::memory(const loops::Buffer& buffer) {
  const auto it = memories_.find(buffer.get());
  check(it != memories_.end(), "codegen: a buffer outside its scope");
  return it->second;
}

llvm::Value* Emitter::address(const Memory& m, llvm::Value* index) {
  return b_.CreateGEP(memory_type(m.dtype), m.base, index);
}

// A load from the result is safe whatever the condition: where it is false, a vector of zeros is read.
llvm::Value* Emitter::guarded(llvm::Value* pointer, llvm::Value* condition) {
  if (const auto* c = llvm::dyn_cast<ConstantInt>(condition); c && c->isOne()) return pointer;
  if (!zeros_) {
    constexpr const char* kName = ".zeros";
    zeros_ = module_.getGlobalVariable(kName, true);
    if (!zeros_) {
      auto* t = llvm::ArrayType::get(
          b_.getInt8Ty(), std::uint64_t{8} * 4 * static_cast<std::uint64_t>(std::max(machine_.lanes, 4)));
      zeros_ = new llvm::GlobalVariable(module_, t, true, llvm::GlobalValue::PrivateLinkage,
                                        Constant::getNullValue(t), kName);
      zeros_->setAlignment(Align(64));
    }
  }
  return b_.CreateSelect(condition, pointer, zeros_);
}

void Emitter::prefetch(llvm::Value* line, bool near) {
  constexpr int kRead = 0, kFirstCache = 3, kSecondCache = 2, kData = 1;
  b_.CreateIntrinsic(
      llvm::Intrinsic::prefetch, {line->getType()},
      {line, b_.getInt32(kRead), b_.getInt32(near ? kFirstCache : kSecondCache), b_.getInt32(kData)});
}

Val Emitter::emit_load(const loops::ExprNode& e) {
  const Memory m = memory(e.buffer);
  const Val index = emit(e.args[0]);
  if (e.args.size() == 1) return load(m, index, nullptr, nullptr);
  const Val predicate = emit(e.args[1]), otherwise = emit(e.args[2]);
  if (const auto* c = llvm::dyn_cast<ConstantInt>(predicate.v))
    return c->isOne() ? load(m, index, nullptr, nullptr) : otherwise;
  return load(m, index, &predicate, &otherwise);
}

Val Emitter::load(const Memory& m, const Val& index, const Val* predicate, const Val* otherwise) {
  if (m.packed) return load_packed(m, index, predicate, otherwise);
  llvm::Type* element = memory_type(m.dtype);
  const bool varying_predicate = predicate && !predicate->uniform();
  const auto finish = [&](llvm::Value* v, Shape shape) {
    const Val x{from_memory(v, m.dtype), shape};
    return predicate ? emit_select(*predicate, x, *otherwise) : x;
  };
  if (index.uniform()) {
    // One address for all lanes; it must not be touched when no lane wants it.
    llvm::Value* wanted = predicate && !varying_predicate ? predicate->v : nullptr;
    if (varying_predicate)
      wanted = any(select_mask(mask_, predicate->v));
    else if (mask_ && !mask_any_)
      wanted = select_mask(wanted, any(mask_));
    llvm::Type* t = m.per_lane ? vector_type(element) : element;
    llvm::Value* pointer = m.per_lane ? b_.CreateGEP(t, m.base, index.v) : address(m, index.v);
    const Shape shape = m.per_lane ? Shape::Varying : Shape::Uniform;
    if (wanted && machine_.gpu) {
      llvm::BasicBlock* before = b_.GetInsertBlock();
      llvm::Value* loaded = nullptr;
      llvm::BasicBlock* inside = nullptr;
      const auto saved = memo_;
      when(
          wanted,
          [&] {
            loaded = b_.CreateAlignedLoad(t, pointer, align_of(m.dtype));
            inside = b_.GetInsertBlock();
          },
          "load");
      memo_ = saved;
      llvm::PHINode* phi = b_.CreatePHI(t, 2);
      phi->addIncoming(Constant::getNullValue(t), before);
      phi->addIncoming(loaded, inside);
      return finish(phi, shape);
    }
    if (wanted) pointer = guarded(pointer, wanted);
    return finish(b_.CreateAlignedLoad(t, pointer, align_of(m.dtype)), shape);
  }
  llvm::Type* t = vector_type(element);
  llvm::Value* mask = select_mask(mask_, varying_predicate ? predicate->v : nullptr);
  if (index.contiguous() && !m.per_lane) {
    llvm::Value* pointer = address(m, index.v);
    if (!mask) {
      if (m.scan) prefetch(b_.CreateConstGEP1_64(b_.getInt8Ty(), pointer, kAhead), true);
      if (predicate) pointer = guarded(pointer, predicate->v);
      return finish(b_.CreateAlignedLoad(t, pointer, align_of(m.dtype)), Shape::Varying);
    }
    if (predicate && !varying_predicate)
      mask = b_.CreateAnd(mask, b_.CreateVectorSplat(static_cast<unsigned>(lanes_), predicate->v));
    return finish(b_.CreateMaskedLoad(t, pointer, align_of(m.dtype), mask, Constant::getNullValue(t)),
                  Shape::Varying);
  }
  if (index.shape == Shape::Linear && !m.per_lane && !mask && !predicate)
    if (const Val r = load_strided(m, index); r.v) return r;
  llvm::Value* indices = vec(index);
  if (m.per_lane) {
    llvm::Value* width = ConstantInt::get(indices->getType(), static_cast<std::uint64_t>(lanes_));
    indices = b_.CreateAdd(b_.CreateMul(indices, width), iota(b_.getInt64Ty()));
  }
  if (predicate && !varying_predicate)
    mask = select_mask(mask, b_.CreateVectorSplat(static_cast<unsigned>(lanes_), predicate->v));
  llvm::Value* pointers = b_.CreateGEP(element, m.base, indices);
  return finish(b_.CreateMaskedGather(t, pointers, align_of(m.dtype), mask, Constant::getNullValue(t)),
                Shape::Varying);
}

// Small strides and reversal: whole vectors and shuffles, which beat a gather. The last vector ends at the last
// element wanted, so nothing beyond it is touched.
Val Emitter::load_strided(const Memory& m, const Val& index) {
  llvm::Type* t = vector_type(memory_type(m.dtype));
  const auto window = [&](std::int64_t offset) {
    return b_.CreateAlignedLoad(t, address(m, b_.CreateAdd(index.v, i64(offset))), align_of(m.dtype));
  };
  std::vector<int> pick(static_cast<std::size_t>(lanes_));
  if (index.stride == -1) {
    for (int l = 0; l < lanes_; ++l) pick[static_cast<std::size_t>(l)] = lanes_ - 1 - l;
    return {from_memory(b_.CreateShuffleVector(window(1 - lanes_), pick), m.dtype), Shape::Varying};
  }
  if (index.stride < 2 || index.stride > kMaxShuffledStride) return {};
  const auto s = static_cast<int>(index.stride);
  const int last = s * (lanes_ - 1) + 1 - lanes_;  // where the last window begins
  llvm::Value* r = window(0);
  for (int w = 1; w < s; ++w) {
    const int begin = std::min(w * lanes_, last);
    for (int l = 0; l < lanes_; ++l) {
      const int at = l * s;
      const bool here = at >= w * lanes_ && at < (w + 1) * lanes_;
      // Lanes found by earlier windows sit in place already, except that window 0 still is as it was loaded.
      pick[static_cast<std::size_t>(l)] = here ? lanes_ + at - begin : at < lanes_ && w == 1 ? at : l;
    }
    r = b_.CreateShuffleVector(r, window(begin), pick);
  }
  return {from_memory(r, m.dtype), Shape::Varying};
}

// Several elements to a byte, low bits first.
Val Emitter::load_packed(const Memory& m, const Val& index, const Val* predicate, const Val* otherwise) {
  const auto width = static_cast<std::uint64_t>(bits(m.dtype));
  const auto per_byte = 8 / width;
  Memory bytes = m;
  bytes.dtype = DType::U8;
  bytes.packed = false;
  const std::array args{index};
  const Val byte_index = apply(args, [&](auto v) {
    return b_.CreateAShr(
        v[0], ConstantInt::get(v[0]->getType(), static_cast<unsigned>(std::countr_zero(per_byte))));
  });
  const Val zero{b_.getInt8(0)};
  const Val byte = load(bytes, byte_index, predicate, predicate ? &zero : nullptr);
  const std::array parts{byte, index};
  const Val x = apply(parts, [&](auto v) -> llvm::Value* {
    llvm::Type* t = v[0]->getType();
    llvm::Value* place = b_.CreateAnd(b_.CreateTrunc(v[1], t), ConstantInt::get(t, per_byte - 1));
    llvm::Value* shift = b_.CreateMul(place, ConstantInt::get(t, width));
    Constant* unused = ConstantInt::get(t, 8 - width);
    llvm::Value* high = b_.CreateShl(b_.CreateLShr(v[0], shift), unused);
    return is_signed(m.dtype) && !is_float(m.dtype) ? b_.CreateAShr(high, unused)
                                                    : b_.CreateLShr(high, unused);
  });
  return predicate ? emit_select(*predicate, x, *otherwise) : x;
}

void Emitter::store_packed(const Memory& m, llvm::Value* index, llvm::Value* value) {
  const auto width = static_cast<std::uint64_t>(bits(m.dtype));
  const auto per_byte = 8 / width;
  llvm::Value* pointer = b_.CreateGEP(
      b_.getInt8Ty(), m.base, b_.CreateAShr(index, static_cast<std::uint64_t>(std::countr_zero(per_byte))));
  llvm::Value* place = b_.CreateAnd(b_.CreateTrunc(index, b_.getInt8Ty()), per_byte - 1);
  llvm::Value* shift = b_.CreateMul(place, b_.getInt8(static_cast<std::uint8_t>(width)));
  llvm::Value* field = b_.CreateShl(b_.getInt8(static_cast<std::uint8_t>((1u << width) - 1)), shift);
  llvm::Value* old = b_.CreateAlignedLoad(b_.getInt8Ty(), pointer, Align(1));
  llvm::Value* bits = b_.CreateAnd(b_.CreateShl(value, shift), field);
  b_.CreateAlignedStore(b_.CreateOr(b_.CreateAnd(old, b_.CreateNot(field)), bits), pointer, Align(1));
}

bool Emitter::may_stream(const Memory& m, const Val& index) const {
  const Congruence place = index.known.modulo(lanes_);
  return m.stream && lanes_ * bits(m.dtype) / 8 >= kLeastStreamed && place.residue == 0 &&
         (place.modulus == 0 || place.modulus == lanes_);
}

void Emitter::store(const Memory& m, const Val& index, const Val& value, llvm::Value* mask, bool mask_any) {
  const Align align = align_of(m.dtype);
  if (m.packed) {
    if (lanes_ == 1) return store_packed(m, index.v, value.v);
    llvm::Value *indices = vec(index), *values = vec(value);
    return each_active_lane(mask, [&](llvm::Value* lane) {
      store_packed(m, b_.CreateExtractElement(indices, lane), b_.CreateExtractElement(values, lane));
    });
  }
  llvm::Type* element = memory_type(m.dtype);
  if (m.per_lane && index.uniform()) {
    llvm::Type* t = vector_type(element);
    llvm::Value* pointer = b_.CreateGEP(t, m.base, index.v);
    llvm::Value* x = to_memory(vec(value), m.dtype);
    const auto blend = [&] { return b_.CreateSelect(mask, x, b_.CreateAlignedLoad(t, pointer, align)); };
    if (!mask) {
      b_.CreateAlignedStore(x, pointer, align);
    } else if (llvm::isa<ConstantInt>(index.v) || mask_any) {
      b_.CreateAlignedStore(blend(), pointer, align);
    } else {
      when(any(mask), [&] { b_.CreateAlignedStore(blend(), pointer, align); }, "store");
    }
    return;
  }
  if (index.uniform() && (lanes_ == 1 || value.uniform())) {
    const auto put = [&] { b_.CreateAlignedStore(to_memory(value.v, m.dtype), address(m, index.v), align); };
    if (!mask || mask_any) return put();
    return when(any(mask), put, "store");
  }
  llvm::Value* x = to_memory(vec(value), m.dtype);
  if (index.contiguous() && !m.per_lane) {
    llvm::Value* pointer = address(m, index.v);
    if (mask)
      b_.CreateMaskedStore(x, pointer, align, mask);
    else if (may_stream(m, index))
      b_.CreateAlignedStore(x, pointer, Align(align.value() * static_cast<std::uint64_t>(lanes_)))
          ->setMetadata(llvm::LLVMContext::MD_nontemporal,
                        llvm::MDNode::get(b_.getContext(), llvm::ConstantAsMetadata::get(b_.getInt32(1))));
    else
      b_.CreateAlignedStore(x, pointer, align);
    return;
  }
  llvm::Value* indices = vec(index);
  if (m.per_lane) {
    llvm::Value* width = ConstantInt::get(indices->getType(), static_cast<std::uint64_t>(lanes_));
    indices = b_.CreateAdd(b_.CreateMul(indices, width), iota(b_.getInt64Ty()));
  }
  b_.CreateMaskedScatter(x, b_.CreateGEP(element, m.base, indices), align, mask);
}

void Emitter::emit_store(const loops::Store& s) {
  const Memory m = memory(s.buffer);
  const auto put = [&](llvm::Value* mask, bool mask_any) {
    const Val value = emit(s.value);
    store(m, emit(s.index), value, mask, mask_any);
  };
  if (s.predicate.get() == nullptr) return put(mask_, mask_any_);
  const Val predicate = emit(s.predicate);
  if (predicate.uniform()) return when(predicate.v, [&] { put(mask_, mask_any_); }, "store");
  auto* outer = mask_;
  const bool outer_any = mask_any_;
  mask_ = select_mask(mask_, predicate.v);  // value and index are wanted only there
  mask_any_ = false;
  put(mask_, false);
  mask_ = outer;
  mask_any_ = outer_any;
}

void Emitter::each_active_lane(llvm::Value* mask, const std::function<void(llvm::Value*)>& f) {
  loop(i64(0), i64(lanes_), 1, true, [&](llvm::Value* lane) {
    if (!mask) return f(lane);
    when(b_.CreateExtractElement(mask, lane), [&] { f(lane); }, "lane");
  });
}

void Emitter::update(const Memory& m, llvm::Value* index, loops::Reducer r, llvm::Value* value) {
  llvm::Value* pointer = address(m, index);
  llvm::Value* old = b_.CreateAlignedLoad(memory_type(m.dtype), pointer, align_of(m.dtype));
  llvm::Value* sum = combine(r, m.dtype, from_memory(old, m.dtype), value);
  b_.CreateAlignedStore(to_memory(sum, m.dtype), pointer, align_of(m.dtype));
}

void Emitter::emit_accumulate(const loops::Stmt& stmt) {
  const auto& s = *loops::as<loops::Accumulate>(stmt);
  const Memory m = memory(s.buffer);
  if (m.packed) unsupported("accumulation into " + std::string(name(m.dtype)));
  const auto add = [&] {
    if (accumulate_in_register(stmt, mask_)) return;
    const Val value = emit(s.value), index = emit(s.index);
    if (lanes_ == 1) return update(m, index.v, s.reducer, value.v);
    if (index.uniform() && !m.per_lane) {
      llvm::Value* x = vec(value);
      if (mask_)
        x = b_.CreateSelect(
            mask_, x, b_.CreateVectorSplat(static_cast<unsigned>(lanes_), identity(s.reducer, m.dtype)));
      x = reduce_lanes(s.reducer, m.dtype, x);
      if (!mask_ || mask_any_) return update(m, index.v, s.reducer, x);
      return when(any(mask_), [&] { update(m, index.v, s.reducer, x); }, "accumulate");
    }
    if (index.shape == Shape::Varying && !m.per_lane) {  // lanes may meet in one element
      llvm::Value *indices = vec(index), *values = vec(value);
      return each_active_lane(mask_, [&](llvm::Value* lane) {
        update(m, b_.CreateExtractElement(indices, lane), s.reducer, b_.CreateExtractElement(values, lane));
      });
    }
    llvm::Value* old = vec(load(m, index, nullptr, nullptr));
    store(m, index, {combine(s.reducer, m.dtype, old, vec(value)), Shape::Varying}, mask_, mask_any_);
  };
  if (s.predicate.get() == nullptr) return add();
  const Val predicate = emit(s.predicate);
  if (predicate.uniform()) return when(predicate.v, add, "accumulate");
  auto* outer = mask_;
  const bool outer_any = mask_any_;
  mask_ = select_mask(mask_, predicate.v);
  mask_any_ = false;
  add();
  mask_ = outer;
  mask_any_ = outer_any;
}

}  // namespace deepseek::codegen
