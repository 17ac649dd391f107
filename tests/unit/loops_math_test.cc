// The loop functions against long double (F64) and double (F32), in units in the last place, through the interpreter.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <random>

#include "loops/interpreter.h"
#include "loops/math.h"
#include "loops/semantics.h"
#include "unit/loops_run.h"

namespace deepseek::loops {
namespace {

using Real = long double;

bool only_arithmetic(const Expr& e) {
  bool plain = true;
  visit(e, [&](const Expr& x) {
    plain &= !(x.op() >= Op::Exp && x.op() <= Op::Digamma) && x.op() != Op::Pow && x.op() != Op::Atan2 &&
             x.op() != Op::Ldexp;
  });
  return plain;
}

template <class T>
constexpr DType kType = std::is_same_v<T, float>    ? DType::F32
                        : std::is_same_v<T, double> ? DType::F64
                                                    : DType::I64;

// op, expanded, of every element.
template <class T>
std::vector<T> run(Op op, std::vector<T> a, std::vector<T> b = {}) {
  const Expr n = symbol("N");
  const DType t = std::is_same_v<T, std::int32_t> ? DType::I32 : kType<T>;
  const Buffer x = make_buffer("x", t, Space::Global, n), z = make_buffer("z", t, Space::Global, n),
               y = make_buffer("y", t, Space::Global, n);
  const Var i = loop_var("i", n);
  std::vector<Expr> args = {load(x, var(i))};
  if (!b.empty()) args.push_back(load(z, var(i)));
  Program p{.name = "f",
            .params = {{x, Access::Read}, {z, Access::Read}, {y, Access::Write}},
            .symbols = {"N"},
            .body = stmt(For{i, n, LoopKind::Parallel, stmt(Store{y, var(i), make(op, args), {}})})};
  p = expand_math(p);
  visit_stmts(p.body,
              [](const Stmt& s) { visit_exprs(s, [](const Expr& e) { EXPECT_TRUE(only_arithmetic(e)); }); });
  verify(p);
  std::vector<T> out(a.size());
  EXPECT_EQ(deepseek::testing::run_kernel(*interpret(p), {a.data(), b.data(), out.data()},
                                          {static_cast<std::int64_t>(a.size())}),
            0);
  return out;
}

template <class T>
Real units(T got, Real wanted, Real least_magnitude = 0) {
  if (std::isnan(wanted)) return std::isnan(got) ? 0 : INFINITY;
  if (std::isnan(got)) return INFINITY;
  const Real largest = std::numeric_limits<T>::max();
  if (std::fabs(wanted) > largest * (1 + std::numeric_limits<T>::epsilon() / 4))
    return std::isinf(got) && std::signbit(got) == std::signbit(wanted) ? 0 : INFINITY;
  if (std::isinf(got))
    return std::fabs(wanted) > largest * (1 - std::numeric_limits<T>::epsilon()) ? 1 : INFINITY;
  if (wanted == 0) return got == 0 && std::signbit(got) == std::signbit(wanted) ? 0 : INFINITY;
  constexpr int digits = std::numeric_limits<T>::digits;
  const int e = std::max(std::ilogb(std::max(std::fabs(wanted), least_magnitude)),
                         std::numeric_limits<T>::min_exponent - 1);
  return std::fabs(static_cast<Real>(got) - wanted) / std::ldexp(1.0L, e - digits + 1);
}

// Half spread evenly over [a, b], half over the exponents of that range.
template <class T>
std::vector<T> samples(double a, double b, int n, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> even(a, b), unit(0, 1);
  std::vector<T> v;
  for (int i = 0; i < n; ++i) {
    const double most = std::max(std::fabs(a), std::fabs(b));
    const double wild = std::exp2(unit(random) * (std::log2(most) + 160) - 160);
    T x = static_cast<T>(i % 2 ? even(random) : a < 0 && unit(random) < 0.5 ? -wild : wild);
    if (x < static_cast<T>(a) || x > static_cast<T>(b)) x = static_cast<T>(even(random));
    v.push_back(x);
  }
  return v;
}

template <class T>
std::vector<T> specials() {
  using L = std::numeric_limits<T>;
  std::vector<T> v = {T(0),          L::denorm_min(),
                      L::min() / 3,  L::min(),
                      L::epsilon(),  T(0.5),
                      T(1),          T(1) + L::epsilon(),
                      T(1.5),        T(2),
                      T(3),          T(10),
                      T(89),         T(103),
                      T(710),        T(745),
                      T(1e6),        L::max(),
                      L::infinity(), L::quiet_NaN()};
  const std::size_t n = v.size();
  for (std::size_t i = 0; i < n; ++i) v.push_back(-v[i]);
  return v;
}

struct Case {
  Op op;
  Real (*reference)(Real);
  double bound32, bound64;  // ulp
  double low, high;
};

Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
Real lgamma_positive(Real x) {
  int sign = 0;
  return ::lgammal_r(x, &sign);
}
// As semantics::digamma, in long double.
Real digamma(Real x) {
  if (x == 0) return std::copysign(std::numeric_limits<Real>::infinity(), -x);
  if (x == -INFINITY || (x < 0 && std::floor(x) == x)) return NAN;
  constexpr Real pi = std::numbers::pi_v<Real>;
  if (x < 0) return digamma(1 - x) - pi / std::tan(pi * (x - std::round(x)));
  Real r = 0;
  while (x < 20) {
    r -= 1 / x;
    x += 1;
  }
  const Real s = 1 / (x * x);
  const Real series =
      s *
      (1 / 12.L -
       s * (1 / 120.L -
            s * (1 / 252.L - s * (1 / 240.L - s * (1 / 132.L - s * (691 / 32760.L -
                                                                    s * (1 / 12.L - s * 3617 / 8160.L)))))));
  return std::isinf(x) ? x : r + std::log(x) - 1 / (2 * x) - series;
}

const Case kCases[] = {
    {Op::Exp, std::exp, 1.0, 1.0, -746, 710},     {Op::Exp, std::exp, 1.0, 1.0, -104, 89},
    {Op::Expm1, std::expm1, 1.5, 2.0, -40, 89},   {Op::Expm1, std::expm1, 1.5, 2.0, -1, 1},
    {Op::Log, std::log, 1.0, 1.0, 0, 1e300},      {Op::Log, std::log, 1.0, 1.0, 0.5, 2},
    {Op::Log1p, std::log1p, 1.5, 2.0, -1, 3},     {Op::Log1p, std::log1p, 1.5, 2.0, 0, 1e30},
    {Op::Sin, std::sin, 0.6, 1.0, -100, 100},     {Op::Sin, std::sin, 0.6, 1.0, -1e13, 1e13},
    {Op::Sin, std::sin, 0.6, 1.0, -8e307, 8e307}, {Op::Cos, std::cos, 0.6, 1.0, -100, 100},
    {Op::Cos, std::cos, 0.6, 1.0, -1e13, 1e13},   {Op::Cos, std::cos, 0.6, 1.0, -8e307, 8e307},
    {Op::Tan, std::tan, 0.6, 2.0, -100, 100},     {Op::Tan, std::tan, 0.6, 2.0, -8e307, 8e307},
    {Op::Asin, std::asin, 0.6, 2.0, -1, 1},       {Op::Acos, std::acos, 0.6, 2.0, -1, 1},
    {Op::Atan, std::atan, 0.6, 2.0, -10, 10},     {Op::Atan, std::atan, 0.6, 2.0, -1e30, 1e30},
    {Op::Sinh, std::sinh, 0.6, 2.0, -711, 711},   {Op::Sinh, std::sinh, 0.6, 2.0, -2, 2},
    {Op::Cosh, std::cosh, 0.6, 2.0, -711, 711},   {Op::Cosh, std::cosh, 0.6, 2.0, -2, 2},
    {Op::Tanh, std::tanh, 4.5, 2.5, -10, 10},     {Op::Tanh, std::tanh, 4.5, 2.5, -1, 1},
    {Op::Sigmoid, sigmoid, 3.0, 2.0, -20, 20},    {Op::Sigmoid, sigmoid, 3.0, 2.0, -87, 87},
    {Op::Asinh, std::asinh, 0.6, 2.0, -10, 10},   {Op::Asinh, std::asinh, 0.6, 2.0, -1e30, 1e30},
    {Op::Acosh, std::acosh, 0.6, 2.0, 1, 3},      {Op::Acosh, std::acosh, 0.6, 2.0, 1, 1e30},
    {Op::Atanh, std::atanh, 0.6, 2.0, -1, 1},     {Op::Erf, std::erf, 4.5, 1.0, -6.5, 6.5},
    {Op::Erf, std::erf, 4.5, 1.0, -1, 1},         {Op::Erfc, std::erfc, 0.6, 3.5, -6.5, 27.3},
    {Op::Erfc, std::erfc, 0.6, 3.5, -1, 1},
};

constexpr int kSamples = 20000;

template <class T>
void compare(const Case& c, double bound) {
  double high = c.high;
  if constexpr (std::is_same_v<T, float>) high = std::min(high, 3e38);
  std::vector<T> x = samples<T>(c.low, high, kSamples);
  for (const T s : specials<T>()) {
    if (c.op == Op::Sigmoid && sigmoid(static_cast<Real>(s)) < std::numeric_limits<T>::min()) continue;
    x.push_back(s);
  }
  const std::vector<T> y = run(c.op, x);
  Real worst = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Real u = units(y[i], c.reference(static_cast<Real>(x[i])));
    if (u > worst) {
      worst = u;
      at = i;
    }
  }
  EXPECT_LE(worst, bound) << name(c.op) << " " << name(kType<T>) << " at " << std::hexfloat << x[at]
                          << " gives " << y[at] << ", wanted "
                          << static_cast<T>(c.reference(static_cast<Real>(x[at])));
  if (std::getenv("MATH_ULP"))
    printf("%s %s [%g, %g]: %.3Lf ulp\n", name(c.op), std::string(name(kType<T>)).c_str(), c.low, c.high,
           worst);
}

TEST(LoopsMath, F32) {
  for (const Case& c : kCases) compare<float>(c, c.bound32);
}
// x (1 + erf x) and x (1 + tanh x) are 0 for every large negative x.
TEST(LoopsMath, SaturatesExactly) {
  const std::vector<float> x = {-1e30F, -1508.38F, -10.0F, 10.0F, 2861.2336F, 1e30F};
  const std::vector<float> signs = {-1, -1, -1, 1, 1, 1};
  EXPECT_EQ(run(Op::Erf, x), signs);
  EXPECT_EQ(run(Op::Tanh, x), signs);
}

TEST(LoopsMath, F64) {
  for (const Case& c : kCases) compare<double>(c, c.bound64);
}

// Against double: in long double glibc's own reduction is off beside multiples of pi/2.
TEST(LoopsMath, HugeAnglesInF64) {
  std::vector<double> x = {0x1p44, 0x1p52, 0x1p53, std::numeric_limits<double>::max()};
  for (int e = 40; e < 1024; ++e)
    for (const double m : {1.0, 1.25, 0x1.fffffffffffffp0, 0x1.921fb54442d18p0})
      x.push_back(std::ldexp(-m, e));
  const std::vector<double> s = run(Op::Sin, x), c = run(Op::Cos, x), t = run(Op::Tan, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(units(s[i], Real{std::sin(x[i])}), 1) << x[i];
    EXPECT_LE(units(c[i], Real{std::cos(x[i])}), 1) << x[i];
    EXPECT_LE(units(t[i], Real{std::tan(x[i])}), 2) << x[i];
  }
}

// No double is nearer to a multiple of pi/2; to 2000 bits, by mpmath. (glibc is off by 8 units.)
TEST(LoopsMath, NearestAngleToARightOne) {
  EXPECT_LE(
      units(run(Op::Cos, std::vector<double>{0x1.6ac5b262ca1ffp849}).at(0), Real{-0x1.14ae72e6ba22fp-61}), 1);
}

TEST(LoopsMath, HugeAnglesInF32) {
  const std::vector<float> x = samples<float>(-3.4e38, 3.4e38, kSamples);
  const std::vector<float> s = run(Op::Sin, x), c = run(Op::Cos, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(units(s[i], std::sin(static_cast<Real>(x[i]))), 0.6) << x[i];
    EXPECT_LE(units(c[i], std::cos(static_cast<Real>(x[i]))), 0.6) << x[i];
  }
}

template <class T>
void compare_gamma(double bound) {
  for (const auto& [op, reference] :
       {std::pair(Op::LGamma, &lgamma_positive), std::pair(Op::Digamma, &digamma)}) {
    for (const auto& [low, high] : {std::pair(0.0, 12.0), std::pair(0.0, 1e30), std::pair(-8.0, 0.0)}) {
      std::vector<T> x = samples<T>(low, high, kSamples);
      for (const T s : specials<T>()) x.push_back(s);
      const std::vector<T> y = run(op, x);
      Real worst = 0;
      T at = 0, gave = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        // Below 0 the terms of the reflection cancel, and next to a pole the argument's own rounding shows.
        const Real least = x[i] >= 0 ? 1 : 64;
        const Real u = x[i] < -1e6 ? 0 : units(y[i], reference(static_cast<Real>(x[i])), least);
        if (u > worst) {
          worst = u;
          at = x[i];
          gave = y[i];
        }
      }
      EXPECT_LE(worst, bound) << name(op) << " at " << at << " gives " << gave;
      if (std::getenv("MATH_ULP"))
        printf("%s %s [%g, %g]: %.3Lf ulp\n", name(op), std::string(name(kType<T>)).c_str(), low, high,
               worst);
    }
  }
}
TEST(LoopsMath, GammaF32) { compare_gamma<float>(1); }
TEST(LoopsMath, GammaF64) { compare_gamma<double>(5); }

template <class T, class F>
void compare_pairs(Op op, const std::vector<T>& a, const std::vector<T>& b, F reference, double bound) {
  const std::vector<T> y = run(op, a, b);
  Real worst = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Real u = units(y[i], reference(a[i], b[i]));
    if (u > worst) {
      worst = u;
      at = i;
    }
  }
  EXPECT_LE(worst, bound) << name(op) << " " << name(kType<T>) << " of " << a[at] << ", " << b[at]
                          << " gives " << y[at] << ", wanted " << static_cast<T>(reference(a[at], b[at]));
  if (std::getenv("MATH_ULP"))
    printf("%s %s: %.3Lf ulp\n", name(op), std::string(name(kType<T>)).c_str(), worst);
}

template <class T>
std::pair<std::vector<T>, std::vector<T>> special_pairs() {
  std::vector<T> a, b;
  for (const T x : specials<T>())
    for (const T y : specials<T>()) {
      a.push_back(x);
      b.push_back(y);
    }
  return {a, b};
}

template <class T>
void compare_binary(double pow_bound, double atan_bound) {
  const auto pow = [](T x, T y) { return std::pow(static_cast<Real>(x), static_cast<Real>(y)); };
  const auto atan2 = [](T x, T y) { return std::atan2(static_cast<Real>(x), static_cast<Real>(y)); };
  const auto remainder = [](T x, T y) { return static_cast<Real>(std::fmod(x, y)); };
  const auto modulus = [](T x, T y) { return static_cast<Real>(semantics::mod(x, y)); };
  const auto quotient = [](T x, T y) { return static_cast<Real>(semantics::floor_div(x, y)); };
  auto [a, b] = special_pairs<T>();
  compare_pairs(Op::Pow, a, b, pow, pow_bound);
  compare_pairs(Op::Atan2, a, b, atan2, atan_bound);
  const double huge = std::is_same_v<T, float> ? 3e38 : 8e307;
  std::vector<T> c = a, d = b;
  for (const auto& [low, high] : {std::pair(-10.0, 10.0), std::pair(-huge, huge)}) {
    const auto e = samples<T>(low, high, kSamples, 3), f = samples<T>(low, high, kSamples, 4);
    c.insert(c.end(), e.begin(), e.end());
    d.insert(d.end(), f.begin(), f.end());
  }
  compare_pairs(Op::Rem, c, d, remainder, 0);
  compare_pairs(Op::Mod, c, d, modulus, 0);
  compare_pairs(Op::FloorDiv, c, d, quotient, 0);
  compare_pairs(Op::Atan2, c, d, atan2, atan_bound);
  compare_pairs(Op::Pow, samples<T>(0, 20, kSamples, 5), samples<T>(-200, 200, kSamples, 6), pow, pow_bound);
  compare_pairs(Op::Pow, samples<T>(0, 2, kSamples, 7), samples<T>(-1100, 1100, kSamples, 8), pow, pow_bound);
  std::vector<T> whole = samples<T>(-9, 9, kSamples, 9);
  for (T& w : whole) w = std::round(w);
  compare_pairs(Op::Pow, samples<T>(-20, 20, kSamples, 10), whole, pow, pow_bound);
}
TEST(LoopsMath, BinaryF32) { compare_binary<float>(0.6, 0.6); }
TEST(LoopsMath, BinaryF64) { compare_binary<double>(1.5, 1.5); }

TEST(LoopsMath, IntegerPowers) {
  std::vector<std::int32_t> a, b, wanted;
  for (const std::int32_t x : {0, 1, -1, 2, -3, 7, 46341, std::numeric_limits<std::int32_t>::min()})
    for (const std::int32_t n :
         {0, 1, 2, 3, 5, 31, 32, 33, 1000001, -1, -2, std::numeric_limits<std::int32_t>::min()}) {
      a.push_back(x);
      b.push_back(n);
      wanted.push_back(semantics::pow(x, n));
    }
  EXPECT_EQ(run(Op::Pow, a, b), wanted);
}

TEST(LoopsMath, Ldexp) {
  std::vector<float> a, b, wanted;
  for (const float x : {0.5f, -0.75f, 1.0f, 1.9999999f, std::numeric_limits<float>::quiet_NaN()})
    for (int n = -152; n <= 152; ++n) {
      a.push_back(x);
      b.push_back(static_cast<float>(n));
      wanted.push_back(std::ldexp(x, n));
    }
  const std::vector<float> got = run(Op::Ldexp, a, b);
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(got[i] == wanted[i] || (std::isnan(got[i]) && std::isnan(wanted[i]))) << a[i] << " " << b[i];
}

// Whatever the bits of a NaN say.
TEST(LoopsMath, NanStays) {
  std::vector<float> a;
  for (const std::uint32_t bits : {0x7fc00000U, 0x7fc00003U, 0x7fc12345U, 0x7f812345U, 0xffc00007U,
                                   0xffc12377U, 0x7fffffffU, 0xffffffffU})
    a.push_back(std::bit_cast<float>(bits));
  for (Op op = Op::Exp; op <= Op::Digamma; op = static_cast<Op>(static_cast<int>(op) + 1))
    for (const float y : run(op, a)) EXPECT_TRUE(std::isnan(y)) << name(op) << " " << y;
}

TEST(LoopsMath, ConstantPowersAndNarrowTypes) {
  const Expr x = var(make_var("x", DType::F32)), n = var(make_var("n", DType::I32)),
             h = var(make_var("h", DType::BF16));
  EXPECT_EQ(print(expand_math(make(Op::Pow, {x, 2.0}))), "x * x");
  EXPECT_EQ(print(expand_math(make(Op::Pow, {n, 5}))), "n * (n * n * (n * n))");
  EXPECT_EQ(print(expand_math(make(Op::Pow, {h, 2.0}))), "bfloat16(float32(h) * float32(h))");
  EXPECT_EQ(expand_math(make(Op::Exp, {h})).type(), DType::BF16);
  EXPECT_TRUE(only_arithmetic(expand_math(make(Op::Exp, {h}))));
  EXPECT_EQ(print(expand_math(make(Op::Mod, {n, 3}))), "n % 3:int32");  // an instruction already
}

}  // namespace
}  // namespace deepseek::loops
