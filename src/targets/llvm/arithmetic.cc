// Arithmetic on scalars or vectors, with the loop language's defined results for division by zero, wide shifts
// and NaN.
#include <llvm/Analysis/VectorUtils.h>
#include <llvm/IR/Constants.h>
#include <llvm/IR/DerivedTypes.h>
#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/IntrinsicsX86.h>

#include <limits>
#include <numeric>

#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::Constant;
using llvm::ConstantFP;
using llvm::ConstantInt;
using loops::Op;
using loops::Reducer;

namespace {

bool narrow_float(DType t) { return is_float(t) && t != DType::F32 && t != DType::F64; }

// A constant, or a splat of one.
Constant* constant_of(llvm::Value* v) {
  auto* c = llvm::dyn_cast<Constant>(v);
  return c && c->getType()->isVectorTy() ? c->getSplatValue() : c;
}

bool known_not_nan(llvm::Value* v) {
  const auto* c = llvm::dyn_cast_or_null<ConstantFP>(constant_of(v));
  return c && !c->isNaN();
}

Constant* zero_of(llvm::Value* like) { return Constant::getNullValue(like->getType()); }
Constant* int_of(llvm::Value* like, std::int64_t v) {
  return ConstantInt::get(like->getType(), static_cast<std::uint64_t>(v), true);
}

}  // namespace

llvm::Value* Emitter::unary(Op op, DType t, llvm::Value* x) {
  if (narrow_float(t)) {
    llvm::Value* wide = widen(x, t);
    if (op == Op::IsNan || op == Op::IsInf) return unary(op, DType::F32, wide);
    return narrow(unary(op, DType::F32, wide), t);
  }
  const auto intrinsic = [&](llvm::Intrinsic::ID id) { return b_.CreateUnaryIntrinsic(id, x); };
  if (is_float(t)) {
    switch (op) {
      case Op::Neg:
        return b_.CreateFNeg(x);
      case Op::Abs:
        return intrinsic(llvm::Intrinsic::fabs);
      case Op::Floor:
        return intrinsic(llvm::Intrinsic::floor);
      case Op::Ceil:
        return intrinsic(llvm::Intrinsic::ceil);
      case Op::Trunc:
        return intrinsic(llvm::Intrinsic::trunc);
      case Op::Round:
        return intrinsic(llvm::Intrinsic::roundeven);
      case Op::Sqrt:
        return intrinsic(llvm::Intrinsic::sqrt);
      case Op::IsNan:
        return b_.CreateFCmpUNO(x, x);
      case Op::IsInf:
        return b_.CreateFCmpOEQ(intrinsic(llvm::Intrinsic::fabs), ConstantFP::getInfinity(x->getType()));
      default:
        break;
    }
  } else {
    switch (op) {
      case Op::Neg:
        return b_.CreateNeg(x);
      case Op::Abs:
        return is_signed(t) ? b_.CreateSelect(b_.CreateICmpSLT(x, zero_of(x)), b_.CreateNeg(x), x) : x;
      case Op::Not:
        return b_.CreateNot(x);
      case Op::Floor:
      case Op::Ceil:
      case Op::Trunc:
      case Op::Round:
        return x;
      case Op::IsNan:
      case Op::IsInf:
        return Constant::getNullValue(shaped(b_.getInt1Ty(), x));
      default:
        break;
    }
  }
  unsupported(std::string(loops::name(op)) + " of " + std::string(name(t)));
}

llvm::Value* Emitter::binary(Op op, DType t, llvm::Value* x, llvm::Value* y) {
  if (narrow_float(t)) return narrow(float_binary(op, DType::F32, widen(x, t), widen(y, t)), t);
  return is_float(t) ? float_binary(op, t, x, y) : integer_binary(op, t, x, y);
}

llvm::Value* Emitter::float_binary(Op op, DType t, llvm::Value* x, llvm::Value* y) {
  switch (op) {
    case Op::Add:
      return b_.CreateFAdd(x, y);
    case Op::Sub:
      return b_.CreateFSub(x, y);
    case Op::Mul:
      return b_.CreateFMul(x, y);
    case Op::Div:
      return b_.CreateFDiv(x, y);
    case Op::FloorDiv:
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::floor, b_.CreateFDiv(x, y));
    case Op::Min:
      return minmax(false, t, x, y);
    case Op::Max:
      return minmax(true, t, x, y);
    case Op::Ldexp:
      return ldexp(x, y);
    default:
      unsupported(std::string(loops::name(op)) + " of " + std::string(name(t)));
  }
}

llvm::Value* Emitter::integer_binary(Op op, DType t, llvm::Value* x, llvm::Value* y) {
  const bool is_signed = deepseek::is_signed(t);
  switch (op) {
    case Op::Add:
      return t == DType::Bool ? b_.CreateOr(x, y) : b_.CreateAdd(x, y);
    case Op::Sub:
      return b_.CreateSub(x, y);
    case Op::Mul:
      return t == DType::Bool ? b_.CreateAnd(x, y) : b_.CreateMul(x, y);
    case Op::And:
      return b_.CreateAnd(x, y);
    case Op::Or:
      return b_.CreateOr(x, y);
    case Op::Xor:
      return b_.CreateXor(x, y);
    case Op::Min:
    case Op::Max:
      return minmax(op == Op::Max, t, x, y);
    case Op::Div:
    case Op::FloorDiv:
    case Op::Rem:
    case Op::Mod:
      return divide(op, is_signed, x, y);
    case Op::Shl:
    case Op::Shr:
      return shift(op, is_signed, x, y);
    default:
      unsupported(std::string(loops::name(op)) + " of " + std::string(name(t)));
  }
}

// LLVM's division traps or is undefined for zero and for MIN / -1: those lanes divide by 1 instead.
llvm::Value* Emitter::divide(Op op, bool is_signed, llvm::Value* x, llvm::Value* y) {
  const auto* c = llvm::dyn_cast_or_null<ConstantInt>(constant_of(y));
  const bool quotient = op == Op::Div || op == Op::FloorDiv;
  if (c && c->isZero()) return zero_of(x);
  llvm::Value* divisor = y;
  llvm::Value* is_zero = nullptr;
  if (!c || c->isMinusOne()) {
    is_zero = b_.CreateICmpEQ(y, zero_of(y));
    llvm::Value* bad = is_zero;
    if (is_signed) bad = b_.CreateOr(bad, b_.CreateICmpEQ(y, int_of(y, -1)));
    divisor = b_.CreateSelect(bad, int_of(y, 1), y);
  }
  const auto by_minus_one = [&](llvm::Value* q) {
    return is_zero && is_signed ? b_.CreateSelect(b_.CreateICmpEQ(y, int_of(y, -1)), b_.CreateNeg(x), q) : q;
  };
  if (!is_signed) {
    llvm::Value* r = quotient ? b_.CreateUDiv(x, divisor) : b_.CreateURem(x, divisor);
    return is_zero ? b_.CreateSelect(is_zero, zero_of(x), r) : r;
  }
  const bool floors = op == Op::FloorDiv || op == Op::Mod;
  if (c && floors && c->getSExtValue() > 0 &&
      c->getValue().isPowerOf2())  // an arithmetic shift rounds down by itself
    return quotient ? b_.CreateAShr(x, int_of(x, c->getValue().logBase2()))
                    : b_.CreateAnd(x, int_of(x, c->getSExtValue() - 1));
  llvm::Value* r = quotient ? b_.CreateSDiv(x, divisor) : b_.CreateSRem(x, divisor);
  if (floors) {
    llvm::Value* rest = quotient ? b_.CreateSub(x, b_.CreateMul(r, divisor)) : r;
    llvm::Value* adjust = b_.CreateAnd(b_.CreateICmpNE(rest, zero_of(rest)),
                                       b_.CreateICmpSLT(b_.CreateXor(rest, divisor), zero_of(rest)));
    r = quotient ? b_.CreateAdd(r, b_.CreateSExt(adjust, r->getType()))
                 : b_.CreateSelect(adjust, b_.CreateAdd(r, divisor), r);
  }
  if (quotient) r = by_minus_one(r);
  return is_zero ? b_.CreateSelect(is_zero, zero_of(x), r) : r;
}

// The amount is taken as unsigned, so that negative amounts count as wide ones.
llvm::Value* Emitter::shift(Op op, bool is_signed, llvm::Value* x, llvm::Value* y) {
  const auto width = static_cast<std::int64_t>(x->getType()->getScalarSizeInBits());
  llvm::Value* wide = b_.CreateICmpUGE(y, int_of(y, width));
  if (op == Op::Shr && is_signed) return b_.CreateAShr(x, b_.CreateSelect(wide, int_of(y, width - 1), y));
  llvm::Value* amount = b_.CreateSelect(wide, zero_of(y), y);
  llvm::Value* r = op == Op::Shl ? b_.CreateShl(x, amount) : b_.CreateLShr(x, amount);
  return b_.CreateSelect(wide, zero_of(x), r);
}

llvm::Value* Emitter::compare(Op op, DType t, llvm::Value* x, llvm::Value* y) {
  if (is_float(t)) {
    x = widen(x, t);
    y = widen(y, t);
    switch (op) {
      case Op::Eq:
        return b_.CreateFCmpOEQ(x, y);
      case Op::Ne:
        return b_.CreateFCmpUNE(x, y);
      case Op::Lt:
        return b_.CreateFCmpOLT(x, y);
      default:
        return b_.CreateFCmpOLE(x, y);
    }
  }
  switch (op) {
    case Op::Eq:
      return b_.CreateICmpEQ(x, y);
    case Op::Ne:
      return b_.CreateICmpNE(x, y);
    case Op::Lt:
      return is_signed(t) ? b_.CreateICmpSLT(x, y) : b_.CreateICmpULT(x, y);
    default:
      return is_signed(t) ? b_.CreateICmpSLE(x, y) : b_.CreateICmpULE(x, y);
  }
}

// `select(x > y, x, y)` is one instruction elsewhere (x86) and gives y when either is NaN; so a NaN in x needs a second
// select unless x is a constant.
llvm::Value* Emitter::minmax(bool is_max, DType t, llvm::Value* x, llvm::Value* y) {
  if (!is_float(t)) {
    llvm::Value* less = compare(Op::Lt, t, x, y);
    return is_max ? b_.CreateSelect(less, y, x) : b_.CreateSelect(less, x, y);
  }
  if (machine_.nan_minmax)
    return b_.CreateBinaryIntrinsic(is_max ? llvm::Intrinsic::maximum : llvm::Intrinsic::minimum, x, y);
  if (known_not_nan(y)) std::swap(x, y);
  llvm::Value* better = is_max ? b_.CreateFCmpOGT(x, y) : b_.CreateFCmpOLT(x, y);
  llvm::Value* r = b_.CreateSelect(better, x, y);
  return known_not_nan(x) ? r : b_.CreateSelect(b_.CreateFCmpUNO(x, x), x, r);
}

// In registers of 16 lanes, in part or several.
llvm::Value* Emitter::ldexp(llvm::Value* x, llvm::Value* n) {
  constexpr int kLanes = 16, kRounding = 4;  // the current mode
  const auto* v = llvm::dyn_cast<llvm::FixedVectorType>(x->getType());
  if (!v) {
    const auto splat = [&](llvm::Value* scalar) { return b_.CreateVectorSplat(kLanes, scalar); };
    return b_.CreateExtractElement(ldexp(splat(x), splat(n)), static_cast<std::uint64_t>(0));
  }
  const int lanes = static_cast<int>(v->getNumElements());
  if (lanes == kLanes)
    return b_.CreateIntrinsic(llvm::Intrinsic::x86_avx512_mask_scalef_ps_512, {},
                              {x, n, zero_of(x), b_.getInt16(0xffff), b_.getInt32(kRounding)});
  const auto part = [&](llvm::Value* whole, int first, int count) {
    std::vector<int> mask;
    for (int i = 0; i < count; ++i) mask.push_back(first + i < lanes ? first + i : -1);
    return b_.CreateShuffleVector(whole, mask);
  };
  std::vector<llvm::Value*> parts;
  for (int i = 0; i < lanes; i += kLanes) parts.push_back(ldexp(part(x, i, kLanes), part(n, i, kLanes)));
  llvm::Value* whole = llvm::concatenateVectors(b_, parts);
  std::vector<int> mask(static_cast<std::size_t>(lanes));
  std::iota(mask.begin(), mask.end(), 0);
  return b_.CreateShuffleVector(whole, mask);
}

llvm::Value* Emitter::combine(Reducer r, DType t, llvm::Value* x, llvm::Value* y) {
  switch (r) {
    case Reducer::Sum:
      return binary(Op::Add, t, x, y);
    case Reducer::Prod:
      return binary(Op::Mul, t, x, y);
    case Reducer::Min:
      return binary(Op::Min, t, x, y);
    case Reducer::Max:
      return binary(Op::Max, t, x, y);
    case Reducer::And:
      return binary(Op::And, t, x, y);
    case Reducer::Or:
      return binary(Op::Or, t, x, y);
  }
  unsupported("a reducer");
}

llvm::Value* Emitter::identity(Reducer r, DType t) { return emit_constant(*loops::identity(r, t)).v; }

// Halves are combined until one lane is left; an odd lane joins the last one of the lower half.
llvm::Value* Emitter::reduce_lanes(Reducer r, DType t, llvm::Value* x) {
  const auto* v = llvm::dyn_cast<llvm::FixedVectorType>(x->getType());
  if (!v) return x;
  unsigned lanes = v->getNumElements();
  while (lanes > 1) {
    const unsigned half = lanes / 2;
    llvm::Value* odd =
        lanes % 2 != 0 ? b_.CreateExtractElement(x, static_cast<std::uint64_t>(lanes - 1)) : nullptr;
    std::vector<int> low, high;
    for (unsigned i = 0; i < half; ++i) {
      low.push_back(static_cast<int>(i));
      high.push_back(static_cast<int>(i + half));
    }
    x = combine(r, t, b_.CreateShuffleVector(x, low), b_.CreateShuffleVector(x, high));
    if (odd) {
      llvm::Value* last =
          combine(r, t, b_.CreateExtractElement(x, static_cast<std::uint64_t>(half - 1)), odd);
      x = b_.CreateInsertElement(x, last, static_cast<std::uint64_t>(half - 1));
    }
    lanes = half;
  }
  return b_.CreateExtractElement(x, static_cast<std::uint64_t>(0));
}

}  // namespace deepseek::codegen
