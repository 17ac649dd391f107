// Exponential, logarithm, power and the hyperbolic functions.
#include <numbers>

#include "loops/math_functions.h"

namespace deepseek::loops::math {
namespace {

constexpr double kLog2E = std::numbers::log2e;
// ln 2 in two parts: for fma (all bits), and with 20 zero bits at the end of the first, for exact products.
constexpr double kLn2 = std::numbers::ln2, kLn2Rest = 0x1.abc9e3b39803fp-56;
constexpr double kLn2Short = 0x1.62e42fefp0 / 2, kLn2ShortRest = 0x1.473de6af278edp-34;
constexpr double kLn2F32 = 0x1.62e43p0 / 2, kLn2RestF32 = -0x1.05c61p-29;
constexpr double kLn2ShortF32 = 0x1.62e4p0 / 2, kLn2ShortRestF32 = 0x1.7f7d1cp-20;

constexpr std::array kExpTail = {5.000000000000010805e-1, 1.666666666666640814e-1, 4.166666666652832205e-2,
                                 8.333333333496688275e-3, 1.388888894418394996e-3, 1.984126950310499539e-4,
                                 2.480149246277561057e-5, 2.75575882321974212e-6,  2.763049474230148035e-7,
                                 2.499987385388505539e-8};
constexpr std::array kExpTailF32 = {4.999999338e-1, 1.666651964e-1, 4.166839987e-2, 8.368836482e-3,
                                    1.381433852e-3};
constexpr std::array kLogTail = {6.666666666666734359e-1, 3.999999999941486392e-1, 2.857142874238398994e-1,
                                 2.222219856977432522e-1, 1.818356469347193674e-1, 1.531403647086267052e-1,
                                 1.479613566620066911e-1};
constexpr std::array kLogTailF32 = {3.333333172e-1, -2.500082092e-1, 2.000122591e-1, -1.662336001e-1,
                                    1.420178173e-1, -1.316018435e-1, 1.276141042e-1, -7.63427639e-2};
constexpr std::array kPowTail = {4.000000000000225549e-1, 2.857142857009961157e-1, 2.222222251995588497e-1,
                                 1.818178436091497558e-1, 1.538675776208098354e-1, 1.325680453518542799e-1,
                                 1.319647908094660909e-1};
constexpr std::array kTanhTop = {9.999999929e-1,  1.308308331e-1,  3.102920253e-3,  1.114343818e-5,
                                 -2.018084419e-8, 5.256385978e-11, -8.432758169e-14};
constexpr std::array kTanhBottom = {1.0, 4.641641019e-1, 2.449105515e-2, 2.544634847e-4};

// x = n ln 2 + r, |r| <= ln 2 / 2.
struct Reduced {
  Expr n, integer, r;
};
Reduced reduce_exp(const Expr& x) {
  const bool wide = x.type() == DType::F64;
  const Expr m = constant(x.type(), magic(x.type()));
  const Expr t = fma(x, constant(x.type(), kLog2E), m), n = t - m;
  Expr r = fma(n, constant(x.type(), wide ? -kLn2 : -kLn2F32), x);
  r = fma(n, constant(x.type(), wide ? -kLn2Rest : -kLn2RestF32), r);
  return {n, to_bits(t) - to_bits(m), r};
}

// exp(r) - 1.
Expr exp_minus_one(const Expr& r) {
  const Expr square = r * r;
  if (r.type() == DType::F64) return fma(square, polynomial(r, kExpTail), r);
  const auto c = [&](std::size_t i) { return constant(r.type(), kExpTailF32[i]); };
  // In pairs: a chain of multiply-adds waits for each before.
  const Expr low = fma(r, c(1), c(0)), high = fma(square, c(4), fma(r, c(3), c(2)));
  return fma(square, fma(square, high, low), r);
}

// x = 2^exponent m with m in [sqrt 1/2, sqrt 2); x > 0 and finite. `bias`: added to the exponent.
struct Split {
  Expr exponent;  // integer
  Expr m;
};
Split split(const Expr& x) {
  const bool wide = x.type() == DType::F64;
  const Expr i = to_bits(x), root = to_bits(constant(x.type(), 0x1.6a09e667f3bcdp-1));
  const Expr e = shift_right(i - root, wide ? 52 : 23);
  return {e, from_bits(i - shift_left(e, wide ? 52 : 23))};
}

// x times 2^54 (2^25) when subnormal; `shift` is what to take from the exponent.
struct Normal {
  Expr x, shift;
};
Normal normalize(const Expr& x) {
  const bool wide = x.type() == DType::F64;
  const Expr tiny = x < (wide ? 0x1p-1022 : 0x1p-126);
  const int shift = wide ? 54 : 25;
  return {select(tiny, x * (wide ? 0x1p54 : 0x1p25), x),
          select(tiny, constant(x.type(), static_cast<double>(shift)), zero(x.type()))};
}

// The values of log that no arithmetic gives, around `regular`, with x + offset its argument.
Expr log_special(const Expr& x, double pole, const Expr& regular) {
  const Expr special = select(x == pole, -kInfinity, select(x < pole, kNan, x));
  return select(x < kInfinity && x > pole, regular, special);
}

// log(1 + f) + e ln 2.
Expr log_parts(const Expr& f, const Expr& e) {
  const Expr half_square = f * f * 0.5;
  if (f.type() == DType::F64) {
    const Expr s = f / (f + 2), z = s * s;
    const Expr tail = fma(s, half_square + z * polynomial(z, kLogTail), e * kLn2ShortRest);
    return fma(e, kLn2Short, f - (half_square - tail));
  }
  const Expr tail = fma(f * f * f, polynomial(f, kLogTailF32), e * kLn2ShortRestF32);
  return fma(e, kLn2ShortF32, f + (tail - half_square));
}

struct Double {  // high + low
  Expr high, low;
};

// log x to about 2^-66, for finite x > 0.
Double log_exact(const Expr& x) {
  const Normal n = normalize(x);
  const Split parts = split(n.x);
  const Expr e = small_to_float(parts.exponent) - n.shift, f = parts.m - 1, d = f + 2;
  const Expr s = f / d, s_low = (fma(-s, d, f) - s * (f - (d - 2))) / d;
  const Expr z = s * s, z_low = fma(s, s, -z) + s * s_low * 2;
  constexpr double two_thirds = 0x1.5555555555555p-1, rest = 0x1.5555555555555p-55;
  const Expr zq = z * polynomial(z, kPowTail);
  const Expr t = zq + two_thirds, t_low = (constant(DType::F64, two_thirds) - t) + zq + rest;
  const Expr w = z * t, w_low = fma(z, t, -w) + fma(z, t_low, z_low * t);
  const Expr u = s * w, u_low = fma(s, w, -u) + fma(s, w_low, s_low * w);
  const Expr a = e * kLn2Short, b = s * 2;
  const Expr ab = a + b, ab_low = b - (ab - a);
  const Expr abu = ab + u, abu_low = u - (abu - ab);
  const Expr low = (ab_low + abu_low) + (fma(s_low, 2, u_low) + e * kLn2ShortRest);
  const Expr high = abu + low;
  return {high, low - (high - abu)};
}

// The sign and the special values of pow around `magnitude` = |x|^y.
Expr pow_signed(const Expr& x, const Expr& y, const Expr& magnitude) {
  const Expr half = y * 0.5;
  const Expr whole = trunc(y) == y, odd = whole && trunc(half) != half;
  Expr result = select(odd, with_sign(magnitude, x), magnitude);
  result = select(x < 0 && x > -kInfinity && !whole, kNan, result);
  const Expr x_or_y_nan = is_nan(x) || is_nan(y);
  result = select(x_or_y_nan, kNan, result);
  result = select(x == -1 && is_inf(y), 1.0, result);
  return select(y == 0 || x == 1, 1.0, result);
}

}  // namespace

Expr scale(const Expr& value, const Expr& n) {
  const bool wide = value.type() == DType::F64;
  const int bits = wide ? 52 : 23;
  const Expr bias = to_bits(one(value.type()));
  const Expr half = shift_right(n, 1);
  return value * from_bits(shift_left(half, bits) + bias) * from_bits(shift_left(n - half, bits) + bias);
}

Expr exp64(const Expr& x, const Expr& low, int k) {
  Reduced parts = reduce_exp(x);
  if (low) parts.r = parts.r + low;
  const Expr y = scale(exp_minus_one(parts.r) + 1, parts.integer + k);
  return select(x > 720, kInfinity, select(x < -760, 0.0, y));
}

// 2^n is multiplied in two halves, neither of which leaves the range; NaN stays, whatever they are.
Expr ldexp32(const Expr& value, const Expr& n) {
  const Expr m = constant(DType::F32, magic(DType::F32));
  const bool was_shifted = n.op() == Op::Sub && same(n->args[1], m);  // as reduce_exp does
  const Expr shifted = to_bits(was_shifted ? n->args[0] : n + m);
  const Expr whole = shift_left(shifted, 23), half = shift_left(shift_right(shifted, 1), 23);
  const Expr bias = to_bits(one(DType::F32));
  return value * from_bits(half + bias) * from_bits(whole - half + bias);
}

// Beyond the bounds results are 0 or infinite already; NaN is within them. What scores are masked with is so far below that
// nothing is left: it becomes 0 before it is scaled, since results that get too small take processors as long as many others.
Expr exp32(const Expr& x) {
  constexpr double kNothingLeft = -103.98;
  const Reduced parts = reduce_exp(min(max(x, -105.0), 90.0));
  const Expr value = exp_minus_one(parts.r) + 1;
  return make(Op::Ldexp, {select(x < kNothingLeft, zero(x.type()), value), parts.n});
}

// 2^n (exp r - 1) + 2^n - 1, with half of 2^n, which does not overflow.
Expr expm1(const Expr& x) {
  const bool wide = x.type() == DType::F64;
  const Reduced parts = reduce_exp(x);
  const Expr half = from_bits(shift_left(parts.integer - 1, wide ? 52 : 23) + to_bits(one(x.type())));
  const Expr y = fma(half, exp_minus_one(parts.r), half - 0.5) * 2;
  return keep_zero(x, select(x > (wide ? 710.0 : 89.0), kInfinity, select(x < -40, -1.0, y)));
}

Expr log64(const Expr& x) {
  const Normal n = normalize(x);
  const Split parts = split(n.x);
  return log_special(x, 0, log_parts(parts.m - 1, small_to_float(parts.exponent) - n.shift));
}

Expr log32(const Expr& x) {
  const Normal n = normalize(x);
  const Split parts = split(n.x);
  return log_special(x, 0, log_parts(parts.m - 1, small_to_float(parts.exponent) - n.shift));
}

// u = 1 + x loses c; f gets it back.
Expr log1p(const Expr& x) {
  const bool wide = x.type() == DType::F64;
  const Expr u = x + 1, t = u - x;
  const Expr c = (one(x.type()) - t) + (x - (u - t));
  const Split parts = split(u);
  const Expr down = from_bits(to_bits(one(x.type())) - shift_left(parts.exponent, wide ? 52 : 23));
  const Expr f =
      fma(c, select(x > 0x1p60, zero(x.type()), down), parts.m - 1);  // there `down` leaves the range
  return keep_zero(x, log_special(x, -1, log_parts(f, small_to_float(parts.exponent))));
}

Expr pow64(const Expr& x, const Expr& y) {
  const Expr a = abs(x);
  const Double l = log_exact(a);
  // Where |x| is 0 or infinite, its logarithm is +-infinite.
  const Expr regular = a > 0 && a < kInfinity;
  const Expr high = select(regular, l.high, select(a == 0, -kInfinity, kInfinity));
  const Expr product = y * high;
  const Expr low = fma(y, l.high, -product) + y * l.low;
  return pow_signed(x, y, exp64(product, select(regular, low, 0.0)));
}

Expr pow32(const Expr& x, const Expr& y) { return pow_signed(x, y, exp64(y * log64(abs(x)))); }

// With t = exp|x| - 1: sinh = (t + t/(t+1)) / 2.
Expr sinh64(const Expr& x) {
  const Expr a = abs(x), t = expm1(a);
  return with_sign(select(a < 22, (t + t / (t + 1)) * 0.5, exp64(a, {}, -1)), x);
}

Expr cosh64(const Expr& x) {
  const Expr h = exp64(abs(x), {}, -1);
  return h + constant(DType::F64, 0.25) / h;
}

Expr tanh64(const Expr& x) {
  const Expr a = abs(x), t = expm1(a * 2);
  return with_sign(select(a > 22, 1.0, t / (t + 2)), x);
}

// Rational in x^2; beyond 9.1, where that is no less than 1, 1 exactly: x (1 + tanh x) is 0 for large negative x.
Expr tanh32(const Expr& x) {
  const Expr c = min(max(x, -9.1), 9.1), z = c * c;
  return min(max(c * polynomial(z, kTanhTop) / polynomial(z, kTanhBottom), -1.0), 1.0);
}

Expr sigmoid64(const Expr& x) { return one(x.type()) / (exp64(-x) + 1); }

// 1 / (1 + exp(-x)) with exp(-x) = 2p * 2^(n - 1), which becomes infinite where it should. Beyond the bounds the result
// is 0 or 1 already; NaN is within them.
Expr sigmoid32(const Expr& x) {
  const auto c = [&](double v) { return constant(x.type(), v); };
  const Expr bounded = min(max(x, -89.0), 80.0), m = c(magic(x.type()));
  const Expr t = fma(bounded, c(-kLog2E), m), n = t - m;
  // -x = n ln 2 - r
  const Expr r = fma(n, c(kLn2RestF32), fma(n, c(kLn2F32), bounded)), square = r * r;
  const auto tail = [&](std::size_t i) { return c((i % 2 == 0 ? 2 : -2) * kExpTailF32[i]); };
  const Expr low = fma(r, tail(1), tail(0)), high = fma(square, tail(4), fma(r, tail(3), tail(2)));
  const Expr twice = fma(square, fma(square, high, low), fma(r, c(-2), c(2)));
  const Expr power = from_bits(shift_left(to_bits(t), 23) + to_bits(c(0.5)));
  return one(x.type()) / fma(twice, power, one(x.type()));
}

Expr asinh64(const Expr& x) {
  const Expr a = abs(x), square = a * a;
  const Expr small = log1p(a + square / (sqrt(square + 1) + 1));
  return with_sign(select(a > 0x1p28, log64(a) + kLn2, small), x);
}

Expr acosh64(const Expr& x) {
  const Expr t = x - 1;
  const Expr near = select(x < 1, kNan, log1p(t + sqrt(fma(t, t, t * 2))));
  return select(x > 0x1p28, log64(x) + kLn2, near);
}

Expr atanh64(const Expr& x) {
  const Expr a = abs(x), twice = a * 2;
  const Expr small = fma(twice, a / (constant(DType::F64, 1.0) - a), twice),
             large = twice / (constant(DType::F64, 1.0) - a);
  return with_sign(log1p(select(a < 0.5, small, large)) * 0.5, x);
}

}  // namespace deepseek::loops::math
