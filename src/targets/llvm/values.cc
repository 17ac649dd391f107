// Types, shapes of values, and small helpers of the emitter.
#include <llvm/IR/Constants.h>
#include <llvm/IR/DerivedTypes.h>

#include "deepseek/error.h"
#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::FixedVectorType;

void unsupported(const std::string& what) {
  throw Error(Code::Unsupported, "codegen", "", "a program that this target can compile", what);
}

llvm::Type* Emitter::type(DType t) const {
  auto& c = module_.getContext();
  switch (t) {
    case DType::Bool:
      return llvm::Type::getInt1Ty(c);
    case DType::F32:
      return llvm::Type::getFloatTy(c);
    case DType::F64:
      return llvm::Type::getDoubleTy(c);
    case DType::C64:
    case DType::C128:
    case DType::String:
      unsupported("elements of type " + std::string(name(t)));
    default:
      return llvm::Type::getIntNTy(c, static_cast<unsigned>(std::max(bits(t), 8)));
  }
}

llvm::Type* Emitter::memory_type(DType t) const {
  return t == DType::Bool ? llvm::Type::getInt8Ty(module_.getContext()) : type(t);
}

llvm::Type* Emitter::shaped(llvm::Type* scalar, const llvm::Value* like) const {
  if (const auto* v = llvm::dyn_cast<FixedVectorType>(like->getType()))
    return FixedVectorType::get(scalar, v->getNumElements());
  return scalar;
}

llvm::Type* Emitter::vector_type(llvm::Type* scalar) const {
  return lanes_ == 1 ? scalar : FixedVectorType::get(scalar, static_cast<unsigned>(lanes_));
}

llvm::Value* Emitter::iota(llvm::Type* scalar) {
  std::vector<llvm::Constant*> lanes;
  for (int i = 0; i < lanes_; ++i)
    lanes.push_back(llvm::ConstantInt::get(scalar, static_cast<std::uint64_t>(i)));
  return lanes_ == 1 ? lanes[0] : llvm::ConstantVector::get(lanes);
}

llvm::Value* Emitter::vec(const Val& x) {
  if (lanes_ == 1 || x.shape == Val::Shape::Varying) return x.v;
  llvm::Value* splat = b_.CreateVectorSplat(static_cast<unsigned>(lanes_), x.v);
  if (x.uniform()) return splat;
  llvm::Type* t = x.v->getType();
  llvm::Value* stride = llvm::ConstantInt::get(splat->getType(), static_cast<std::uint64_t>(x.stride));
  return b_.CreateAdd(splat, b_.CreateMul(iota(t), stride));
}

llvm::Value* Emitter::any(llvm::Value* mask) {
  if (!mask->getType()->isVectorTy()) return mask;
  return b_.CreateICmpNE(b_.CreateBitCast(mask, b_.getIntNTy(static_cast<unsigned>(lanes_))),
                         llvm::ConstantInt::get(b_.getIntNTy(static_cast<unsigned>(lanes_)), 0));
}

llvm::Value* Emitter::select_mask(llvm::Value* x, llvm::Value* y) {
  if (!x) return y;
  if (!y) return x;
  return b_.CreateAnd(x, y);
}

Val Emitter::apply(std::span<const Val> args,
                   const std::function<llvm::Value*(std::span<llvm::Value* const>)>& f) {
  bool uniform = true;
  for (const Val& a : args) uniform = uniform && a.uniform();
  std::vector<llvm::Value*> values;
  for (const Val& a : args) values.push_back(uniform ? a.v : vec(a));
  return {f(values), uniform ? Val::Shape::Uniform : Val::Shape::Varying};
}

llvm::AllocaInst* Emitter::local(llvm::Type* t, const llvm::Twine& name) {
  llvm::BasicBlock& entry = frame_.function->getEntryBlock();
  llvm::IRBuilder<> b(&entry, entry.getFirstInsertionPt());
  return b.CreateAlloca(t, nullptr, name);
}

void Emitter::with_lanes(int lanes, const std::function<void()>& f) {
  const auto saved_lanes = std::exchange(lanes_, lanes);
  auto* saved_mask = std::exchange(mask_, nullptr);
  const bool saved_any = std::exchange(mask_any_, true), saved_in = std::exchange(in_vector_, lanes > 1);
  memo_.clear();
  f();
  memo_.clear();
  lanes_ = saved_lanes;
  mask_ = saved_mask;
  mask_any_ = saved_any;
  in_vector_ = saved_in;
}

}  // namespace deepseek::codegen
