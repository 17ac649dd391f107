// The loop functions one by one, and the tools they are written with. Arguments and results are F64 unless the
// name says 32.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>

#include "loops/ir.h"

namespace deepseek::loops::math {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

inline Expr fma(Expr a, Expr b, Expr c) { return make(Op::Fma, {std::move(a), std::move(b), std::move(c)}); }
inline Expr abs(Expr x) { return make(Op::Abs, {std::move(x)}); }
inline Expr sqrt(Expr x) { return make(Op::Sqrt, {std::move(x)}); }
inline Expr round(Expr x) { return make(Op::Round, {std::move(x)}); }
inline Expr trunc(Expr x) { return make(Op::Trunc, {std::move(x)}); }
inline Expr floor(Expr x) { return make(Op::Floor, {std::move(x)}); }
inline Expr is_nan(Expr x) { return make(Op::IsNan, {std::move(x)}); }
inline Expr is_inf(Expr x) { return make(Op::IsInf, {std::move(x)}); }

// The bits of a float as a signed integer of its width, and back.
inline Expr to_bits(Expr x) {
  return bitcast(x.type() == DType::F64 ? DType::I64 : DType::I32, std::move(x));
}
inline Expr from_bits(Expr i) {
  return bitcast(i.type() == DType::I64 ? DType::F64 : DType::F32, std::move(i));
}
inline Expr shift_left(Expr i, int n) { return make(Op::Shl, {std::move(i), Expr(n)}); }
inline Expr shift_right(Expr i, int n) { return make(Op::Shr, {std::move(i), Expr(n)}); }
inline Expr bit_and(Expr a, Expr b) { return make(Op::And, {std::move(a), std::move(b)}); }
inline Expr bit_or(Expr a, Expr b) { return make(Op::Or, {std::move(a), std::move(b)}); }
inline Expr bit_xor(Expr a, Expr b) { return make(Op::Xor, {std::move(a), std::move(b)}); }

inline Expr sign_bit(const Expr& x) {  // alone, as an integer
  const DType t = x.type() == DType::F64 ? DType::I64 : DType::I32;
  return bit_and(to_bits(x),
                 constant(t, t == DType::I64 ? std::numeric_limits<std::int64_t>::min()
                                             : std::int64_t{std::numeric_limits<std::int32_t>::min()}));
}
// magnitude >= 0 with the sign of s.
inline Expr with_sign(const Expr& magnitude, const Expr& s) {
  return from_bits(bit_or(to_bits(magnitude), sign_bit(s)));
}
// y, but a zero x itself, with its sign.
inline Expr keep_zero(const Expr& x, Expr y) { return select(x == 0, x, std::move(y)); }

// c[0] + c[1] x + ...
template <std::size_t N>
Expr polynomial(const Expr& x, const std::array<double, N>& c) {
  Expr sum = constant(x.type(), c[N - 1]);
  for (std::size_t i = N - 1; i-- > 0;) sum = fma(sum, x, constant(x.type(), c[i]));
  return sum;
}

// x is near an integer n, |n| < 2^50 (2^22 in F32): adding this leaves n in the low bits.
inline double magic(DType t) { return t == DType::F64 ? 0x1.8p52 : 0x1.8p23; }
// An integer (|i| < 2^50 or 2^22) of the float's width as that float.
inline Expr small_to_float(const Expr& i) {
  const DType t = i.type() == DType::I64 ? DType::F64 : DType::F32;
  const Expr m = constant(t, magic(t));
  return from_bits(i + to_bits(m)) - m;
}
// value * 2^n for |n| < 1100 (150 in F32), rounded once; n an integer of value's width.
Expr scale(const Expr& value, const Expr& n);

// Op::Ldexp in integers.
Expr ldexp32(const Expr& value, const Expr& n);

// exp(x + low) * 2^k, |low| small.
Expr exp64(const Expr& x, const Expr& low = {}, int k = 0);
Expr exp32(const Expr& x);  // with Op::Ldexp
Expr expm1(const Expr& x);  // F32 or F64
Expr log64(const Expr& x);
Expr log32(const Expr& x);
Expr log1p(const Expr& x);  // F32 or F64
Expr pow64(const Expr& x, const Expr& y);
Expr pow32(const Expr& x, const Expr& y);  // arguments and result F64, exact enough for F32
Expr sinh64(const Expr& x);
Expr cosh64(const Expr& x);
Expr tanh64(const Expr& x);
Expr tanh32(const Expr& x);
Expr sigmoid64(const Expr& x);
Expr sigmoid32(const Expr& x);
Expr asinh64(const Expr& x);
Expr acosh64(const Expr& x);
Expr atanh64(const Expr& x);

enum class Trigonometric : std::uint8_t { Sin, Cos, Tan };
Expr trigonometric64(Trigonometric f, const Expr& x);
Expr trigonometric32(Trigonometric f, const Expr& x);  // F64 values of float arguments
struct SinCos {
  Expr sin, cos;
};
SinCos sincos_pi(const Expr& x);  // of pi*x, |x| < 2^50
Expr asin64(const Expr& x);
Expr acos64(const Expr& x);
Expr atan64(const Expr& x);
Expr atan2_64(const Expr& y, const Expr& x);

Expr erf64(const Expr& x);
Expr erf32(const Expr& x);
Expr erfc64(const Expr& x);
Expr lgamma64(const Expr& x);
Expr digamma64(const Expr& x);

Expr rem(const Expr& a, const Expr& b);  // F32 or F64
Expr mod(const Expr& a, const Expr& b);
Expr floor_div(const Expr& a, const Expr& b);
Expr integer_pow(const Expr& a, const Expr& b);

}  // namespace deepseek::loops::math
