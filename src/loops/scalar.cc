#include "loops/scalar.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "deepseek/error.h"
#include "loops/convert.h"
#include "loops/semantics.h"

namespace deepseek::loops {
namespace semantics {

double lgamma(double x) {
  int sign = 0;
  return ::lgamma_r(x, &sign);
}

// Reflection to positive x, recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.18).
double digamma(double x) {
  if (std::isnan(x) || x == -std::numeric_limits<double>::infinity())
    return std::numeric_limits<double>::quiet_NaN();
  if (x == 0) return std::copysign(std::numeric_limits<double>::infinity(), -x);
  double result = 0;
  if (x < 0) {
    const double fraction = x - std::floor(x);
    if (fraction == 0) return std::numeric_limits<double>::quiet_NaN();
    result = -std::numbers::pi / std::tan(std::numbers::pi * fraction);
    x = 1 - x;
  }
  while (x < 10) {
    result -= 1 / x;
    x += 1;
  }
  const double s = 1 / (x * x);
  const double series =
      s * (1. / 12 -
           s * (1. / 120 - s * (1. / 252 - s * (1. / 240 - s * (1. / 132 - s * (691. / 32760 - s / 12))))));
  return result + std::log(x) - 0.5 / x - series;
}

}  // namespace semantics

namespace {

namespace sem = semantics;

template <class F>
auto with_integer(DType t, F f) {
  switch (t) {
    case DType::I8:
      return f(std::int8_t{});
    case DType::U8:
      return f(std::uint8_t{});
    case DType::I16:
      return f(std::int16_t{});
    case DType::U16:
      return f(std::uint16_t{});
    case DType::I32:
      return f(std::int32_t{});
    case DType::U32:
      return f(std::uint32_t{});
    case DType::I64:
      return f(std::int64_t{});
    case DType::U64:
      return f(std::uint64_t{});
    default:
      break;
  }
  throw Error(Code::Internal, "", "", "an integer of 8 to 64 bits", std::string(name(t)));
}

[[noreturn]] void no_meaning(Op op, DType t) {
  throw Error(Code::Internal, "", "", "an operation of " + std::string(name(t)), name(op));
}

template <class T>
Scalar integer_op(Op op, DType type, std::span<const Scalar> args) {
  const auto at = [&](std::size_t i) { return i < args.size() ? static_cast<T>(args[i].i) : T(0); };
  const T a = at(0), b = at(1), c = at(2);
  const auto value = [](T v) { return Scalar{static_cast<std::int64_t>(v), 0}; };
  const auto truth = [](bool v) { return Scalar{v, 0}; };
  switch (op) {
    case Op::Neg:
      return value(sem::neg(a));
    case Op::Abs:
      return value(sem::abs(a));
    case Op::Not:
      return value(static_cast<T>(~a));
    case Op::Add:
      return value(sem::add(a, b));
    case Op::Sub:
      return value(sem::sub(a, b));
    case Op::Mul:
      return value(sem::mul(a, b));
    case Op::Div:
      return value(sem::div(a, b));
    case Op::FloorDiv:
      return value(sem::floor_div(a, b));
    case Op::Rem:
      return value(sem::rem(a, b));
    case Op::Mod:
      return value(sem::mod(a, b));
    case Op::Min:
      return value(sem::min(a, b));
    case Op::Max:
      return value(sem::max(a, b));
    case Op::Pow:
      return value(sem::pow(a, b));
    case Op::And:
      return value(static_cast<T>(a & b));
    case Op::Or:
      return value(static_cast<T>(a | b));
    case Op::Xor:
      return value(static_cast<T>(a ^ b));
    case Op::Shl:
      return value(sem::shl(a, b));
    case Op::Shr:
      return value(sem::shr(a, b));
    case Op::Eq:
      return truth(a == b);
    case Op::Ne:
      return truth(a != b);
    case Op::Lt:
      return truth(a < b);
    case Op::Le:
      return truth(a <= b);
    case Op::Fma:
      return value(sem::add(sem::mul(a, b), c));
    case Op::Floor:
    case Op::Ceil:
    case Op::Trunc:
    case Op::Round:
      return value(a);
    case Op::IsNan:
    case Op::IsInf:
      return truth(false);
    default:
      no_meaning(op, type);
  }
}

Scalar bool_op(Op op, std::span<const Scalar> args) {
  const bool a = args[0].i != 0, b = args.size() > 1 && args[1].i != 0;
  switch (op) {
    case Op::Not:
      return {!a, 0};
    case Op::And:
    case Op::Min:
      return {a && b, 0};
    case Op::Or:
    case Op::Max:
      return {a || b, 0};
    case Op::Xor:
    case Op::Ne:
      return {a != b, 0};
    case Op::Eq:
      return {a == b, 0};
    case Op::Lt:
      return {!a && b, 0};
    case Op::Le:
      return {!a || b, 0};
    default:
      no_meaning(op, DType::Bool);
  }
}

// In double; the caller rounds. Correctly rounded to float then, or nearly so.
std::optional<double> transcendental(Op op, double a, double b) {
  switch (op) {
    case Op::Exp:
      return std::exp(a);
    case Op::Expm1:
      return std::expm1(a);
    case Op::Log:
      return std::log(a);
    case Op::Log1p:
      return std::log1p(a);
    case Op::Sin:
      return std::sin(a);
    case Op::Cos:
      return std::cos(a);
    case Op::Tan:
      return std::tan(a);
    case Op::Asin:
      return std::asin(a);
    case Op::Acos:
      return std::acos(a);
    case Op::Atan:
      return std::atan(a);
    case Op::Sinh:
      return std::sinh(a);
    case Op::Cosh:
      return std::cosh(a);
    case Op::Tanh:
      return std::tanh(a);
    case Op::Sigmoid:
      return sem::sigmoid(a);
    case Op::Asinh:
      return std::asinh(a);
    case Op::Acosh:
      return std::acosh(a);
    case Op::Atanh:
      return std::atanh(a);
    case Op::Erf:
      return std::erf(a);
    case Op::Erfc:
      return std::erfc(a);
    case Op::LGamma:
      return sem::lgamma(a);
    case Op::Digamma:
      return sem::digamma(a);
    case Op::Pow:
      return std::pow(a, b);
    case Op::Atan2:
      return std::atan2(a, b);
    case Op::Ldexp:
      return a * std::exp2(b);
    default:
      return std::nullopt;
  }
}

template <class T>
Scalar float_op(Op op, DType type, std::span<const Scalar> args) {
  const auto at = [&](std::size_t i) { return i < args.size() ? static_cast<T>(args[i].d) : T(0); };
  const T a = at(0), b = at(1), c = at(2);
  const auto value = [&](T v) { return Scalar{0, round_to(type, v)}; };
  const auto truth = [](bool v) { return Scalar{v, 0}; };
  switch (op) {
    case Op::Neg:
      return value(-a);
    case Op::Abs:
      return value(std::fabs(a));
    case Op::Floor:
      return value(std::floor(a));
    case Op::Ceil:
      return value(std::ceil(a));
    case Op::Trunc:
      return value(std::trunc(a));
    case Op::Round:
      return value(std::nearbyint(a));
    case Op::Sqrt:
      return value(std::sqrt(a));
    case Op::IsNan:
      return truth(std::isnan(a));
    case Op::IsInf:
      return truth(std::isinf(a));
    case Op::Add:
      return value(a + b);
    case Op::Sub:
      return value(a - b);
    case Op::Mul:
      return value(a * b);
    case Op::Div:
      return value(a / b);
    case Op::FloorDiv:
      return value(sem::floor_div(a, b));
    case Op::Rem:
      return value(sem::rem(a, b));
    case Op::Mod:
      return value(sem::mod(a, b));
    case Op::Min:
      return value(sem::min(a, b));
    case Op::Max:
      return value(sem::max(a, b));
    case Op::Eq:
      return truth(a == b);
    case Op::Ne:
      return truth(a != b);
    case Op::Lt:
      return truth(a < b);
    case Op::Le:
      return truth(a <= b);
    case Op::Fma:
      return value(std::fma(a, b, c));
    default:
      break;
  }
  if (const auto v = transcendental(op, a, b)) return value(static_cast<T>(*v));
  no_meaning(op, type);
}

std::uint64_t to_bits(DType t, Scalar s) {
  if (t == DType::F64) return std::bit_cast<std::uint64_t>(s.d);
  if (t == DType::F32) return std::bit_cast<std::uint32_t>(static_cast<float>(s.d));
  if (is_float(t)) return encode_narrow(t, static_cast<float>(s.d));
  return static_cast<std::uint64_t>(s.i);
}

Scalar from_bits(DType t, std::uint64_t b) {
  if (t == DType::F64) return {0, std::bit_cast<double>(b)};
  if (t == DType::F32) return {0, std::bit_cast<float>(static_cast<std::uint32_t>(b))};
  if (is_float(t)) return {0, decode_narrow(t, static_cast<std::uint32_t>(b & ((1ull << bits(t)) - 1)))};
  return {wrap_to(t, static_cast<std::int64_t>(b)), 0};
}

}  // namespace

Scalar scalar_of(const ExprNode& constant) {
  if (const auto* i = std::get_if<std::int64_t>(&constant.value)) return {*i, 0};
  return {0, std::get<double>(constant.value)};
}

Expr constant_of(DType t, Scalar s) { return is_float(t) ? constant(t, s.d) : constant(t, s.i); }

std::int64_t wrap_to(DType t, std::int64_t v) {
  if (t == DType::Bool) return v != 0;
  const int width = bits(t);
  if (width == 64) return v;
  if (is_signed(t)) return sign_extend(static_cast<std::uint64_t>(v), width);
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(v) & ((1ull << width) - 1));
}

std::int64_t integer_min(DType t) {
  return is_signed(t) && t != DType::Bool ? sign_extend(1ull << (bits(t) - 1), bits(t)) : 0;
}

std::int64_t integer_max(DType t) {
  if (t == DType::Bool) return 1;
  if (t == DType::U64) return -1;
  return static_cast<std::int64_t>((1ull << (bits(t) - (is_signed(t) ? 1 : 0))) - 1);
}

Scalar evaluate(Op op, DType arg, std::span<const Scalar> args) {
  if (op == Op::Select) return args[0].i ? args[1] : args[2];
  if (arg == DType::Bool) return bool_op(op, args);
  if (arg == DType::F64) return float_op<double>(op, arg, args);
  if (is_float(arg)) return float_op<float>(op, arg, args);
  return with_integer(arg, [&](auto zero) { return integer_op<decltype(zero)>(op, arg, args); });
}

Scalar convert(DType from, DType to, Scalar s) {
  if (is_float(from)) {
    if (is_float(to)) return {0, round_to(to, s.d)};
    if (to == DType::Bool) return {s.d != 0, 0};
    if (to == DType::U64) return {static_cast<std::int64_t>(semantics::to_integer<std::uint64_t>(s.d)), 0};
    return {semantics::to_integer<std::int64_t>(s.d, integer_min(to), integer_max(to)), 0};
  }
  if (!is_float(to)) return {wrap_to(to, s.i), 0};
  const bool wide = from == DType::U64;
  if (to == DType::F64)
    return {0, wide ? static_cast<double>(static_cast<std::uint64_t>(s.i)) : static_cast<double>(s.i)};
  const float f = wide ? static_cast<float>(static_cast<std::uint64_t>(s.i)) : static_cast<float>(s.i);
  return {0, round_to(to, f)};
}

std::optional<Scalar> reinterpret(DType from, DType to, Scalar s) {
  if (bits(from) != bits(to)) return std::nullopt;
  return from_bits(to, to_bits(from, s));
}

}  // namespace deepseek::loops
