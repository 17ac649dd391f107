// Casts, and narrow floats by integer arithmetic: LLVM would call libgcc for them.
#include <llvm/IR/Constants.h>
#include <llvm/IR/DerivedTypes.h>
#include <llvm/IR/Intrinsics.h>

#include <cmath>

#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::Constant;
using llvm::ConstantFP;
using llvm::ConstantInt;

namespace {

bool narrow_float(DType t) { return is_float(t) && t != DType::F32 && t != DType::F64; }

// Floats of 8 bits and fewer: sign, exponent, mantissa.
struct Small {
  int mantissa;
  int bias;
  std::uint32_t largest;   // bits of the largest finite number
  std::uint32_t overflow;  // bits for anything beyond
  std::uint32_t nan;
  std::uint32_t sign;
  bool minus_zero = true;
};

Small small_format(DType t) {
  if (t == DType::F8E4M3) return {3, 7, 0x7e, 0x7f, 0x7f, 0x80};
  if (t == DType::F8E5M2) return {2, 15, 0x7b, 0x7c, 0x7e, 0x80};
  if (t == DType::F8E4M3FNUZ) return {3, 8, 0x7f, 0x80, 0x80, 0x80, false};
  if (t == DType::F8E5M2FNUZ) return {2, 16, 0x7f, 0x80, 0x80, 0x80, false};
  return {1, 1, 0x7, 0x7, 0x7, 0x8};  // F4E2M1 saturates and has no NaN
}

constexpr std::uint32_t kF32Mantissa = 23, kF32Bias = 127;

}  // namespace

llvm::Value* Emitter::widen(llvm::Value* x, DType t) {
  if (!narrow_float(t)) return x;
  llvm::Type* i32 = shaped(b_.getInt32Ty(), x);
  llvm::Type* i16 = shaped(b_.getInt16Ty(), x);
  llvm::Type* f32 = shaped(b_.getFloatTy(), x);
  const auto c16 = [&](std::uint64_t v) { return ConstantInt::get(i16, v); };
  const auto from_half = [&](llvm::Value* bits) {
    return b_.CreateFPExt(b_.CreateBitCast(bits, shaped(b_.getHalfTy(), x)), f32);
  };
  if (t == DType::BF16)
    return b_.CreateBitCast(b_.CreateShl(b_.CreateZExt(x, i32), ConstantInt::get(i32, 16)), f32);
  if (t == DType::F16) return from_half(x);
  if (t == DType::F8E8M0) return power_of_two(x);
  llvm::Value* h = b_.CreateZExt(x, i16);
  if (t == DType::F8E5M2) return from_half(b_.CreateShl(h, c16(8)));
  // The exponent and mantissa of a half at the same place, the bias set right by a multiplication.
  const Small f = small_format(t);
  const int half_mantissa = 10, half_bias = 15;
  llvm::Value* magnitude = b_.CreateAnd(h, c16(f.sign - 1));
  llvm::Value* sign = b_.CreateAnd(b_.CreateShl(h, c16(t == DType::F4E2M1 ? 12 : 8)), c16(0x8000));
  const auto from_magnitude = [&](llvm::Value* m, int bias) {
    llvm::Value* bits =
        b_.CreateOr(sign, b_.CreateShl(m, c16(static_cast<unsigned>(half_mantissa - f.mantissa))));
    return b_.CreateFMul(from_half(bits), ConstantFP::get(f32, std::ldexp(1.0, half_bias - bias)));
  };
  llvm::Value* r = from_magnitude(magnitude, f.bias);
  if (t == DType::F8E5M2FNUZ) {
    // Its largest exponent is a half's infinity: one less, with a bias of one less.
    const unsigned step = 1U << f.mantissa;
    r = b_.CreateSelect(b_.CreateICmpUGE(magnitude, c16(2 * step)),
                        from_magnitude(b_.CreateSub(magnitude, c16(step)), f.bias - 1), r);
  }
  if (t == DType::F4E2M1) return r;
  return b_.CreateSelect(b_.CreateICmpEQ(f.minus_zero ? magnitude : h, c16(f.nan)), ConstantFP::getNaN(f32),
                         r);
}

// F8E8M0 is the exponent of an F32, whose 0 is half of the smallest normal number.
llvm::Value* Emitter::power_of_two(llvm::Value* x) {
  llvm::Type* i32 = shaped(b_.getInt32Ty(), x);
  const auto c = [&](std::uint64_t v) { return ConstantInt::get(i32, v); };
  llvm::Value* e = b_.CreateZExt(x, i32);
  llvm::Value* r = b_.CreateShl(e, c(kF32Mantissa));
  r = b_.CreateSelect(b_.CreateICmpEQ(e, c(0)), c(0x400000), r);
  r = b_.CreateSelect(b_.CreateICmpEQ(e, c(255)), c(0x7fc00000), r);
  return b_.CreateBitCast(r, shaped(b_.getFloatTy(), x));
}

llvm::Value* Emitter::round_to_power_of_two(llvm::Value* x) {
  llvm::Type* i32 = shaped(b_.getInt32Ty(), x);
  const auto c = [&](std::uint64_t v) { return ConstantInt::get(i32, v); };
  const std::uint64_t half = 0x400000, infinity = 0x7f800000, nan = 255;
  llvm::Value* u = b_.CreateBitCast(x, i32);
  llvm::Value* r = b_.CreateLShr(b_.CreateAdd(u, c(half)), c(kF32Mantissa));
  r = b_.CreateSelect(b_.CreateICmpULT(u, c(half + half / 2)), c(0), r);
  // What is 0, negative, infinite or NaN; 1.5 * 2^127 and more is 255 by itself.
  r = b_.CreateSelect(b_.CreateICmpUGE(b_.CreateSub(u, c(1)), c(infinity - 1)), c(nan), r);
  return b_.CreateTrunc(r, shaped(b_.getInt8Ty(), x));
}

llvm::Value* Emitter::narrow(llvm::Value* x, DType t) {
  llvm::Type* i32 = shaped(b_.getInt32Ty(), x);
  llvm::Type* i16 = shaped(b_.getInt16Ty(), x);
  const auto c = [&](std::uint64_t v) { return ConstantInt::get(i32, v); };
  if (t == DType::F16) return b_.CreateBitCast(b_.CreateFPTrunc(x, shaped(b_.getHalfTy(), x)), i16);
  if (t == DType::F8E8M0) return round_to_power_of_two(x);
  if (t != DType::BF16) return round_small(x, t);
  llvm::Value* u = b_.CreateBitCast(x, i32);
  llvm::Value* top = b_.CreateLShr(u, c(16));
  llvm::Value* rounded =
      b_.CreateLShr(b_.CreateAdd(u, b_.CreateAdd(b_.CreateAnd(top, c(1)), c(0x7fff))), c(16));
  llvm::Value* quiet = b_.CreateOr(top, c(0x40));
  return b_.CreateTrunc(b_.CreateSelect(b_.CreateFCmpUNO(x, x), quiet, rounded), i16);
}

llvm::Value* Emitter::round_small(llvm::Value* x, DType t) {
  const Small f = small_format(t);
  llvm::Type* i32 = shaped(b_.getInt32Ty(), x);
  llvm::Type* f32 = shaped(b_.getFloatTy(), x);
  const auto c = [&](std::uint64_t v) { return ConstantInt::get(i32, v); };
  llvm::Value* u = b_.CreateBitCast(x, i32);
  llvm::Value* a = b_.CreateAnd(u, c(0x7fffffff));
  const unsigned drop = kF32Mantissa - static_cast<unsigned>(f.mantissa);
  const auto rebias = static_cast<std::uint64_t>(static_cast<int>(kF32Bias) - f.bias) << kF32Mantissa;
  // Normal results: round the mantissa to nearest even, then move the exponent.
  llvm::Value* lsb = b_.CreateAnd(b_.CreateLShr(a, c(drop)), c(1));
  llvm::Value* normal = b_.CreateAdd(b_.CreateAdd(a, lsb), c((1u << (drop - 1)) - 1));
  normal = b_.CreateLShr(b_.CreateSub(normal, c(rebias)), c(drop));
  // Subnormal results: adding a power of two rounds them to its last place.
  const auto magic = (kF32Bias + static_cast<std::uint64_t>(1 - f.bias + static_cast<int>(drop)))
                     << kF32Mantissa;
  llvm::Value* shifted = b_.CreateFAdd(b_.CreateBitCast(a, f32), b_.CreateBitCast(c(magic), f32));
  llvm::Value* subnormal = b_.CreateSub(b_.CreateBitCast(shifted, i32), c(magic));
  const auto least_normal = static_cast<std::uint64_t>(static_cast<int>(kF32Bias) + 1 - f.bias)
                            << kF32Mantissa;
  llvm::Value* r = b_.CreateSelect(b_.CreateICmpULT(a, c(least_normal)), subnormal, normal);
  const std::uint64_t infinity = 0x7f800000;
  llvm::Value* beyond = b_.CreateOr(b_.CreateICmpUGE(a, c(infinity)), b_.CreateICmpUGT(r, c(f.largest)));
  r = b_.CreateSelect(beyond, c(f.overflow), r);
  const unsigned sign_shift = t == DType::F4E2M1 ? 28 : 24;
  llvm::Value* sign = b_.CreateAnd(b_.CreateLShr(u, c(sign_shift)), c(f.sign));
  if (!f.minus_zero) sign = b_.CreateSelect(b_.CreateICmpEQ(r, c(0)), c(0), sign);
  r = b_.CreateOr(r, sign);
  r = b_.CreateSelect(b_.CreateICmpUGT(a, c(infinity)), c(f.nan), r);
  return b_.CreateTrunc(r, shaped(b_.getInt8Ty(), x));
}

llvm::Value* Emitter::convert(llvm::Value* x, DType from, DType to) {
  if (from == to) return x;
  llvm::Type* target = shaped(type(to), x);
  if (narrow_float(from)) return convert(widen(x, from), DType::F32, to);
  if (to == DType::Bool)
    return is_float(from) ? b_.CreateFCmpUNE(x, Constant::getNullValue(x->getType()))
                          : b_.CreateICmpNE(x, Constant::getNullValue(x->getType()));
  const bool from_signed = from != DType::Bool && is_signed(from);
  if (narrow_float(to)) return narrow(convert(x, from, DType::F32), to);
  if (is_float(to)) {
    if (is_float(from)) return b_.CreateFPCast(x, target);
    return from_signed ? b_.CreateSIToFP(x, target) : b_.CreateUIToFP(x, target);
  }
  if (!is_float(from)) {
    llvm::Value* r = b_.CreateIntCast(x, target, from_signed);
    if (bits(to) >= 8) return r;
    Constant* unused = ConstantInt::get(target, static_cast<std::uint64_t>(8 - bits(to)));
    r = b_.CreateShl(r, unused);
    return is_signed(to) ? b_.CreateAShr(r, unused) : b_.CreateLShr(r, unused);
  }
  if (bits(to) <= 16) {
    // Limited first: LLVM has no vectors for saturating conversions to less than 32 bits.
    const double size = std::ldexp(1.0, bits(to));
    llvm::Type* t = x->getType();
    Constant *zero = Constant::getNullValue(t), *low = ConstantFP::get(t, is_signed(to) ? -size / 2 : 0),
             *high = ConstantFP::get(t, is_signed(to) ? size / 2 - 1 : size - 1);
    llvm::Value* r = is_signed(to) ? b_.CreateSelect(b_.CreateFCmpORD(x, x), x, zero) : x;
    r = b_.CreateSelect(b_.CreateFCmpOGT(r, low), r, low);  // NaN: low
    r = b_.CreateSelect(b_.CreateFCmpOGT(r, high), high, r);
    return b_.CreateIntCast(b_.CreateFPToSI(r, shaped(b_.getInt32Ty(), x)), target, true);
  }
  llvm::Type* width = shaped(b_.getIntNTy(static_cast<unsigned>(bits(to))), x);
  llvm::Value* r = b_.CreateIntrinsic(
      is_signed(to) ? llvm::Intrinsic::fptosi_sat : llvm::Intrinsic::fptoui_sat, {width, x->getType()}, {x});
  return b_.CreateIntCast(r, target, is_signed(to));
}

llvm::Value* Emitter::to_memory(llvm::Value* x, DType t) {
  return t == DType::Bool ? b_.CreateZExt(x, shaped(b_.getInt8Ty(), x)) : x;
}

llvm::Value* Emitter::from_memory(llvm::Value* x, DType t) {
  return t == DType::Bool ? b_.CreateICmpNE(x, Constant::getNullValue(x->getType())) : x;
}

}  // namespace deepseek::codegen
