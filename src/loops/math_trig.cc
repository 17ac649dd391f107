// Trigonometric functions and their inverses.
#include <vector>

#include "loops/math_functions.h"

namespace deepseek::loops::math {
namespace {

constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kHalfPi = 0x1.921fb54442d18p+0, kHalfPi2 = 0x1.1a62633145c07p-54,
                 kHalfPi3 = -0x1.f1976b7ed8fbcp-110;
constexpr std::array kSinTail = {-1.666666666666663073e-1, 8.333333333322118587e-3,
                                 -1.984126982958965604e-4, 2.755731362145469199e-6,
                                 -2.505074777648479387e-8, 1.589623104622231075e-10};
constexpr std::array kCosTail = {4.166666666666659292e-2, -1.38888888888730568e-3,
                                 2.48015872888518969e-5,  -2.755731417934431116e-7,
                                 2.087570084790264112e-9, -1.135853681734891572e-11};
constexpr std::array kAtanTail = {
    -3.333333333333332744e-1, 1.999999999999764065e-1, -1.428571428538477017e-1, 1.111111108799474218e-1,
    -9.090908138530140959e-2, 7.692282635306941186e-2, -6.666225098564167257e-2, 5.877006989956280754e-2,
    -5.218317419019425318e-2, 4.503226607188800942e-2, -3.346759493757928037e-2, 1.518879117714857505e-2};
constexpr std::array kAsinTail = {1.666666666666540179e-1, 7.500000000338782379e-2,  4.464285682681242537e-2,
                                  3.038195920154400389e-2, 2.23717564572353962e-2,   1.735972940852104259e-2,
                                  1.388498635806695215e-2, 1.217088223272362207e-2,  6.520606398213053437e-3,
                                  1.954880765760410283e-2, -1.625705647633175649e-2, 3.193513132926735269e-2};

Expr f64(double v) { return constant(DType::F64, v); }

// x = quadrant pi/2 + r + low, |r| <= pi/4.
struct Angle {
  Expr quadrant, r, low;
};

// |x| < 2^50, for F64's precision |x| < 2^44: x - n pi/2 with pi/2 in three doubles. The first fma is exact, since it
// leaves no more than 53 bits.
Angle reduce(const Expr& x) {
  const Expr m = f64(magic(DType::F64)), t = fma(x, f64(kTwoOverPi), m), n = t - m;
  const Expr a = fma(-n, f64(kHalfPi), x), w = n * kHalfPi2, w_low = fma(n, f64(kHalfPi2), -w), r = a - w;
  return {to_bits(t), r, fma(-n, f64(kHalfPi3), ((a - r) - w) - w_low)};
}

// A float x >= 2^50 in magnitude: x * 2/pi modulo 4, from 24 bits of 2/pi at a time; each product is exact, and the
// bits before the second piece make multiples of 8.
Angle reduce_huge32(const Expr& x) {
  constexpr double pieces[] = {0x6e4e44p-48,  0x1529fcp-72,  0x2757d1p-96, 0xf534ddp-120,
                               0xc0db62p-144, 0x95993cp-168, 0x439041p-192};
  Expr sum = f64(0);
  for (std::size_t i = std::size(pieces); i-- > 0;) {
    const Expr product = x * pieces[i];
    sum = sum + fma(round(product * 0.25), f64(-4), product);
  }
  const Expr m = f64(magic(DType::F64)), t = sum + m;
  return {to_bits(t), (sum - (t - m)) * kHalfPi, f64(0)};
}

// 2/pi in words of 32 bits, after two that are 0.
constexpr std::array<std::int64_t, 39> kTwoOverPiWords = {
    0,          0,          0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041,
    0xfe5163ab, 0xdebbc561, 0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c, 0xb129a73e,
    0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41, 0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b,
    0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f, 0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d,
    0x7527bac7, 0xebe5f17b, 0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046};
constexpr std::size_t kWords =
    8;  // 3 that meet the 84 bits of a shifted mantissa, then 160 bits after the point

// kTwoOverPiWords[i ..< i + kWords] for 0 <= i < 32, chosen bit by bit of i: a table in memory would be a symbol.
std::vector<Expr> words_from(const Expr& i) {
  std::vector<Expr> words;
  for (const std::int64_t word : kTwoOverPiWords) words.push_back(constant(DType::I64, word));
  for (std::size_t step = 16; step > 0; step /= 2) {
    const Expr further = bit_and(i, static_cast<std::int64_t>(step)) != 0;
    for (std::size_t k = 0; k + step < words.size(); ++k)
      words[k] = select(further, words[k + step], words[k]);
    words.resize(kWords + step - 1);
  }
  return words;
}

// A double x, 2^44 <= |x| < infinity: x = m 2^(32 i + s - 32) with a whole m < 2^53, so x * 2/pi modulo 4 is m 2^s times
// kWords words of 2/pi from i on, in integers (M. Payne and R. Hanek, Radian reduction for trigonometric functions, 1983).
Angle reduce_huge64(const Expr& x) {
  constexpr std::int64_t mask = 0xffffffff;
  const Expr bits = to_bits(abs(x)), place = shift_right(bits, 52) - (1023 + 20);
  const Expr mantissa = bit_or(bit_and(bits, (std::int64_t{1} << 52) - 1), std::int64_t{1} << 52);
  const Expr s = bit_and(place, 31), rest = make(Op::Sub, {constant(DType::I64, std::int64_t{32}), s});
  const std::array m = {bit_and(make(Op::Shl, {mantissa, s}), mask),
                        bit_and(make(Op::Shr, {mantissa, rest}), mask), make(Op::Shr, {mantissa, rest + 32})};
  const std::vector<Expr> words = words_from(shift_right(place, 5));
  // Columns of the product from 2^-160, for its carry alone, up to 2^0, of which 2 bits count.
  std::array<Expr, 6> digits;
  Expr carry = constant(DType::I64, std::int64_t{0});
  for (std::size_t column = digits.size(); column-- > 0;) {
    Expr sum = carry, above = constant(DType::I64, std::int64_t{0});
    for (std::size_t k = 0; k < m.size(); ++k) {
      const Expr product = m[k] * words[column + k];
      sum = sum + bit_and(product, mask);
      above = above + bit_and(shift_right(product, 32), mask);
    }
    digits[column] = bit_and(sum, mask);
    carry = above + shift_right(sum, 32);
  }
  // To the nearest whole number: what follows it is signed then.
  const Expr half = shift_right(digits[1], 31), n = digits[0] + half;
  const Expr top = small_to_float(digits[1] - shift_left(half, 32)),
             next = small_to_float(digits[2]) * 0x1p-32;
  const Expr tail = small_to_float(digits[3]) * 0x1p-64 + small_to_float(digits[4]) * 0x1p-96;
  const Expr sum = top + next, sum_low = (next - (sum - top)) + tail;
  const Expr f = sum + sum_low, f_low = sum_low - (f - sum);
  constexpr double unit = kHalfPi * 0x1p-32, unit_low = kHalfPi2 * 0x1p-32;
  const Expr r = f * unit, low = fma(f, f64(unit), -r) + (f_low * unit + f * unit_low),
             sign = with_sign(f64(1), x);
  return {select(x < 0, -n, n), r * sign, low * sign};
}

Angle select(const Expr& condition, const Angle& yes, const Angle& no) {
  return {select(condition, yes.quadrant, no.quadrant), select(condition, yes.r, no.r),
          select(condition, yes.low, no.low)};
}

SinCos kernel(const Angle& a) {
  const Expr z = a.r * a.r, half = z * 0.5;
  const Expr sin = a.r + fma(a.r * z, polynomial(z, kSinTail), a.low * (f64(1) - half));
  const Expr w = f64(1) - half;
  const Expr cos = w + (((f64(1) - w) - half) + fma(z * z, polynomial(z, kCosTail), -(a.r * a.low)));
  return {sin, cos};
}

Expr negate_if(const Expr& bit1, const Expr& x) {  // where bit 1 of an integer is set
  return from_bits(bit_xor(to_bits(x), shift_left(bit_and(bit1, 2), 62)));
}

SinCos turned(const Angle& a) {
  const SinCos k = kernel(a);
  const Expr swapped = bit_and(a.quadrant, 1) != 0;
  return {negate_if(a.quadrant, select(swapped, k.cos, k.sin)),
          negate_if(a.quadrant + 1, select(swapped, k.sin, k.cos))};
}

Expr trigonometric(Trigonometric f, const Expr& x, const Angle& a) {
  const SinCos v = turned(a);
  switch (f) {
    case Trigonometric::Sin:
      return keep_zero(x, v.sin);
    case Trigonometric::Cos:
      return v.cos;
    case Trigonometric::Tan:
      break;
  }
  return keep_zero(x, v.sin / v.cos);
}

// atan(top / bottom) in [0, pi/2], both >= 0.
Expr angle(const Expr& top, const Expr& bottom) {
  const Expr high = top > bottom * 2.414213562373095, middle = top > bottom * 0.4142135623730951;
  const Expr t = select(high, -bottom, select(middle, top - bottom, top)) /
                 select(high, top, select(middle, top + bottom, bottom));
  const Expr z = t * t;
  const Expr base = select(high, kHalfPi, select(middle, f64(kHalfPi / 2), 0.0));
  const Expr low = select(high, kHalfPi2, select(middle, f64(kHalfPi2 / 2), 0.0));
  return base + (t + fma(t * z, polynomial(z, kAtanTail), low));
}

// asin and acos share them: z = x^2 and s = |x| for |x| <= 1/2, else z = (1 - |x|)/2 and s = sqrt z, whose rounding
// error is `low`; asin(s) = s + s*tail + low.
struct Arc {
  Expr large, s, tail, low;
};
Arc arc(const Expr& x) {
  const Expr a = abs(x), large = a > 0.5;
  const Expr z = select(large, (f64(1) - a) * 0.5, a * a), s = select(large, sqrt(z), a);
  const Expr low = select(large && s > 0, fma(-s, s, z) / (s * 2), 0.0);
  return {large, s, z * polynomial(z, kAsinTail), low};
}

}  // namespace

Expr trigonometric64(Trigonometric f, const Expr& x) {
  const Expr far = abs(x) >= 0x1p44 && abs(x) < kInfinity;
  return trigonometric(f, x, select(far, reduce_huge64(x), reduce(x)));
}

Expr trigonometric32(Trigonometric f, const Expr& x) {
  return trigonometric(f, x, select(abs(x) >= 0x1p50, reduce_huge32(x), reduce(x)));
}

SinCos sincos_pi(const Expr& x) {
  const Expr m = f64(magic(DType::F64)), t = x * 2 + m;
  const Expr f = x - (t - m) * 0.5;  // exact, |f| <= 1/4
  constexpr double pi = kHalfPi * 2, pi_low = kHalfPi2 * 2;
  const Expr r = f * pi;
  return turned({to_bits(t), r, fma(f, f64(pi), -r) + f * pi_low});
}

Expr asin64(const Expr& x) {
  const Arc a = arc(x);
  const Expr y = fma(a.s, a.tail, a.low);
  return with_sign(select(a.large, f64(kHalfPi) - ((a.s + y) * 2 - kHalfPi2), a.s + y), x);
}

Expr acos64(const Expr& x) {
  const Arc a = arc(x);
  const Expr y = fma(a.s, a.tail, a.low), twice = (a.s + y) * 2;
  const Expr near = f64(kHalfPi) - (x - (f64(kHalfPi2) - x * a.tail));
  return select(a.large, select(x < 0, f64(kHalfPi * 2) - (twice - kHalfPi2 * 2), twice), near);
}

Expr atan64(const Expr& x) { return with_sign(angle(abs(x), f64(1)), x); }

Expr atan2_64(const Expr& y, const Expr& x) {
  const Expr both_infinite = is_inf(x) && is_inf(y);
  Expr top = select(both_infinite, 1.0, abs(y)), bottom = select(both_infinite, 1.0, abs(x));
  const Expr down = select(top > 0x1p1000 || bottom > 0x1p1000, f64(0x1p-30), 1.0);
  top = top * down;
  bottom = bottom * down;
  const Expr a = select(top == 0, 0.0, angle(top, bottom));
  const Expr turned = select(to_bits(x) < 0, f64(kHalfPi * 2) - (a - kHalfPi2 * 2), a);
  return select(is_nan(x) || is_nan(y), kNan, with_sign(turned, y));
}

}  // namespace deepseek::loops::math
