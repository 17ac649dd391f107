// Error function, gamma function and remainders.
#include <numbers>

#include "loops/math_functions.h"

namespace deepseek::loops::math {
namespace {

constexpr std::array kErf = {1.283791670955125737e-1,  -3.76126389031837453e-1,  1.128379167095465847e-1,
                             -2.686617064501153274e-2, 5.223977623853951733e-3,  -8.548326898859935246e-4,
                             1.205532677104926277e-4,  -1.492544595319333183e-5, 1.645760814375646216e-6,
                             -1.629979449529886323e-7, 1.418551387481620665e-8,  -8.827004279996323671e-10};
constexpr std::array kErfTop = {1.128379146,    1.904290283e-1, 5.275145876e-2,
                                3.766506415e-3, 2.848906816e-4, 2.049767195e-6};
constexpr std::array kErfBottom = {1.0,           5.020960674e-1, 1.141182162e-1, 1.497101721e-2,
                                   1.16272787e-3, 3.808878618e-5};
constexpr std::array kErfc = {1.253008058269729649,     -1.35621106124581661e-1,  -4.756229435344945911e-2,
                              1.296451587028310153e-1,  -1.192736634154187514e-1, 6.830802734100084405e-2,
                              -2.377051491468378997e-2, 2.529391873341563246e-3,  1.888690283862672795e-3,
                              -7.798328680050890944e-4, -1.051589714578586993e-4, 1.251029713573924738e-4,
                              4.943977205279556259e-6,  -2.011362390414732708e-5, -7.090289372380648748e-7,
                              3.499127218190456571e-6,  3.014383547737534195e-7,  -6.420364656683138838e-7,
                              -6.453313539316595518e-8, 1.017660810108243873e-7,  -8.76281757906013441e-9};
constexpr std::array kLGammaTop = {2.285260944763920531,    3.391462107535424228e+1, 1.101646382335202593e+2,
                                   1.217163731995367541e+2, 5.289762327107060301e+1, 9.325442955290726095,
                                   6.239488521295662757e-1, 1.242693870353317767e-2, 1.954360736596795183e-5,
                                   -5.258488383895372678e-8};
constexpr std::array kLGammaBottom = {1.0,
                                      2.67160049727351443e+1,
                                      1.345984565099745674e+2,
                                      2.205561673068715166e+2,
                                      1.446080368398891817e+2,
                                      4.074591223018263601e+1,
                                      4.886368408834445633,
                                      2.253042539905555238e-1,
                                      2.92771350443668249e-3};
// Of Stirling's series, in 1/x^2, and of digamma's.
constexpr std::array kStirling = {1. / 12,   -1. / 360,      1. / 1260, -1. / 1680,
                                  1. / 1188, -691. / 360360, 1. / 156,  -3617. / 122400};
constexpr std::array kDigammaSeries = {1. / 12,  -1. / 120,     1. / 252, -1. / 240,
                                       1. / 132, -691. / 32760, 1. / 12};
constexpr double kDigammaRoot = 0x1.762d86356be3fp+0, kDigammaRootLow = 0x1.b86a722197829p-54;
constexpr std::array kDigammaTop = {
    2.281030022401671461e+8, 7.839094118106150815e+8, 8.282477551651879165e+8,
    3.78287377643536885e+8,  8.241777069849152324e+7, 8.570962450059968902e+6,
    3.943471885156368928e+5, 6.651255618481169451e+3, 2.526369393621188332e+1};
constexpr std::array kDigammaBottom = {1.0,
                                       3.334026693942086356e+8,
                                       7.252390038665379463e+8,
                                       5.564900516657331968e+8,
                                       1.956562427912494278e+8,
                                       3.370078967178575925e+7,
                                       2.795916458760962297e+6,
                                       1.02028985226642766e+5,
                                       1.326442772127954459e+3,
                                       3.516445047411681605};

Expr f64(double v) { return constant(DType::F64, v); }

constexpr double kSmallErf = 0.84;

// |x| <= 0.85.
Expr erf_small(const Expr& x) { return fma(x, polynomial(x * x, kErf), x); }

// a >= 0.7: exp(-a^2) p(t) / (1 + 2a), t = (a-3)/(a+3); a^2 with its rounding error.
Expr erfc_large(const Expr& a) {
  const Expr c = select(a > 30, 30.0, a), square = c * c, low = fma(c, c, -square);
  return exp64(-square, -low) * polynomial((c - 3) / (c + 3), kErfc) / (c * 2 + 1);
}

// y > 0.
Expr lgamma_positive(const Expr& y) {
  const Expr tiny = y < 0.5, small = y < 1.5;
  const Expr z = select(tiny, y + 2, select(small, y + 1, select(y < 8, y, 8.0)));
  const Expr near = (z - 1) * (z - 2) * polynomial(z, kLGammaTop) / polynomial(z, kLGammaBottom);
  const Expr far = select(y < 8, 8.0, y), inverse = f64(1) / far;
  const Expr log = log64(select(tiny, y * (y + 1), select(y < 8, y, far)));
  constexpr double half_log_2pi_minus_half = 0x1.acfe390c97d69p-2;
  const Expr series = fma(inverse, polynomial(inverse * inverse, kStirling), f64(half_log_2pi_minus_half));
  const Expr stirling = fma(far - 0.5, log - 1, series);
  return select(y < 8, select(small, near - log, near), stirling);
}

// y >= 0 (of -0: +inf).
Expr digamma_positive(const Expr& y) {
  const Expr small = y < 1;
  const Expr z = select(small, y + 1, select(y < 9, y, 9.0));
  const Expr near =
      ((z - kDigammaRoot) - kDigammaRootLow) * polynomial(z, kDigammaTop) / polynomial(z, kDigammaBottom);
  const Expr far = select(y < 9, 9.0, y), inverse = f64(1) / far, square = inverse * inverse;
  const Expr series = log64(far) - fma(inverse, f64(0.5), square * polynomial(square, kDigammaSeries));
  return select(y < 9, select(small, near - f64(1) / y, near), series);
}

// x = m 2^exponent for finite x > 0, m whole, 2^52 <= m < 2^53.
struct Whole {
  Expr m, exponent;
};
Whole whole(const Expr& x) {
  const Expr tiny = x < 0x1p-1022, bits = to_bits(select(tiny, x * 0x1p54, x));
  const Expr mantissa = bit_and(bits, (std::int64_t{1} << 52) - 1);
  return {from_bits(bit_or(mantissa, std::int64_t{1023 + 52} << 52)),
          shift_right(bits, 52) - select(tiny, std::int64_t{1075 + 54}, std::int64_t{1075})};
}

// Whole numbers modulo d, 2^52 <= d < 2^53, each the nearest to 0: |r| <= d/2.
class Residues {
 public:
  explicit Residues(const Expr& d) : d_(d), inverse_(f64(1) / d) {}

  // Of |x| <= d.
  Expr nearest(const Expr& x) const { return select(abs(x) * 2 > d_, x - with_sign(d_, x), x); }

  // Exactly: the quotient is less than 2^51, so no more than one off, and what it leaves has 53 bits.
  Expr product(const Expr& a, const Expr& b) const {
    const Expr high = a * b, low = fma(a, b, -high), quotient = round(high * inverse_);
    return nearest(nearest(fma(-quotient, d_, high)) + low);
  }

 private:
  Expr d_, inverse_;
};

}  // namespace

Expr erf64(const Expr& x) {
  const Expr a = abs(x);
  return with_sign(select(a < kSmallErf, erf_small(a), f64(1) - erfc_large(a)), x);
}

// Rational in x^2; beyond 3.93, where that is no less than 1, 1 exactly: x (1 + erf x) is 0 for large negative x.
Expr erf32(const Expr& x) {
  const Expr c = min(max(x, -3.93), 3.93), z = c * c;
  return min(max(c * polynomial(z, kErfTop) / polynomial(z, kErfBottom), -1.0), 1.0);
}

Expr erfc64(const Expr& x) {
  const Expr a = abs(x), large = erfc_large(a);
  return select(a < kSmallErf, f64(1) - erf_small(x), select(x < 0, f64(2) - large, large));
}

// Below 0: log(pi / |sin pi x|) - lgamma(1 - x).
Expr lgamma64(const Expr& x) {
  const Expr negative = x < 0;
  const Expr positive = lgamma_positive(select(negative, f64(1) - x, abs(x)));
  constexpr double inverse_pi = std::numbers::inv_pi;
  const Expr sine = select(x > -0x1p-60, abs(x), abs(sincos_pi(x).sin) * inverse_pi);
  const Expr reflected = -log64(sine) - positive;
  // From 2^50 down every number is an integer, or so near to one that the result overflows its meaning.
  const Expr pole = x <= -0x1p50 || x == 0;
  return select(pole, kInfinity, select(is_nan(x), x, select(negative, reflected, positive)));
}

// Below 0: digamma(1 - x) - pi / tan(pi x).
Expr digamma64(const Expr& x) {
  const Expr negative = x < 0;
  const Expr positive = digamma_positive(select(negative, f64(1) - x, x));
  const SinCos v = sincos_pi(x);
  constexpr double pi = std::numbers::pi;
  const Expr reflected = positive - v.cos * pi / v.sin;
  const Expr pole = negative && (trunc(x) == x || x <= -0x1p50);
  return select(pole, kNan, select(negative, reflected, positive));
}

Expr rem(const Expr& a, const Expr& b) {
  const bool wide = a.type() == DType::F64;
  const Expr x = abs(cast(DType::F64, a)), d = abs(cast(DType::F64, b));
  const Whole top = whole(x), divisor = whole(d);
  // x = 2^k top.m in units of divisor's, k >= 0 where x >= d. 2^k from the upper bits of k, one at a time.
  const Residues residues(divisor.m);
  const Expr k = top.exponent - divisor.exponent;
  const int squarings = wide ? 6 : 3;  // of 2^(k >> squarings) <= 2^34
  Expr power = from_bits(shift_left(shift_right(k, squarings) + 1023, 52));
  for (int bit = squarings; bit-- > 0;) {
    power = residues.product(power, power);
    power = select(bit_and(k, std::int64_t{1} << bit) != 0, residues.nearest(power * 2), power);
  }
  const Expr nearest = residues.product(power, residues.nearest(residues.nearest(top.m)));
  const Expr rest = select(nearest < 0, nearest + divisor.m, nearest) * 0x1p-52;
  // A quotient of less than 53 bits is one too large at most, and what it leaves is exact.
  const Expr quotient = x / d, left = fma(-trunc(quotient), d, x), near = select(left < 0, left + d, left);
  const Expr far = quotient >= 0x1p52;
  const Expr invalid = is_nan(x) || is_nan(d) || is_inf(x) || d == 0;
  const Expr r =
      select(invalid, kNan, select(far, scale(rest, divisor.exponent + 52), select(x < d, x, near)));
  return with_sign(cast(a.type(), r), a);
}

Expr mod(const Expr& a, const Expr& b) {
  const Expr r = rem(a, b);
  const Expr other = (r < 0) != (b < 0);
  return select(r == 0, with_sign(zero(a.type()), b), select(other, r + b, r));
}

Expr floor_div(const Expr& a, const Expr& b) {
  const Expr exact = a / b, q = (a - math::mod(a, b)) / b, whole = floor(q);
  const Expr rounded = select(q - whole > 0.5, whole + 1, whole);
  return select(b == 0, exact, select(q == 0, with_sign(zero(a.type()), exact), rounded));
}

Expr integer_pow(const Expr& a, const Expr& b) {
  const DType t = a.type();
  if (const auto n = b.int_value(); n && *n >= 0) {
    Expr result = one(t), power = a;
    for (auto left = static_cast<std::uint64_t>(*n); left != 0; left >>= 1) {
      if (left & 1) result = result * power;
      if (left > 1) power = power * power;
    }
    return result;
  }
  Expr result = one(t), power = a;
  const int width = bits(t);
  for (int i = 0; i < width; ++i) {
    const Expr bit = bit_and(make(Op::Shr, {b, constant(t, std::int64_t{i})}), one(t)) != 0;
    result = select(bit, result * power, result);
    if (i + 1 < width) power = power * power;
  }
  if (!is_signed(t)) return result;
  const Expr odd = bit_and(b, one(t)) != 0;
  const Expr inverse =
      select(a == 1, one(t), select(a == -1, select(odd, constant(t, std::int64_t{-1}), one(t)), zero(t)));
  return select(b < 0, inverse, result);
}

}  // namespace deepseek::loops::math
