// What each operation means on scalars, as plain functions: constant folding and the interpreter share them,
// and tests of targets compare with them. ir.h states the rules.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace deepseek::loops::semantics {

template <class T>
using Bits = std::make_unsigned_t<T>;

// Arithmetic below int's width happens in int: the casts bring it back.
template <class T>
T add(T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<Bits<T>>(static_cast<Bits<T>>(a) + static_cast<Bits<T>>(b)));
  else
    return a + b;
}
template <class T>
T sub(T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<Bits<T>>(static_cast<Bits<T>>(a) - static_cast<Bits<T>>(b)));
  else
    return a - b;
}
template <class T>
T mul(T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
  else
    return a * b;
}
template <class T>
T neg(T a) {
  if constexpr (std::is_integral_v<T>)
    return sub<T>(0, a);
  else
    return -a;
}
template <class T>
T abs(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return std::fabs(a);
  else
    return a < 0 ? neg(a) : a;
}

template <class T>
T div(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return a / b;
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return neg(a);
    return static_cast<T>(a / b);
  }
}
template <class T>
T rem(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmod(a, b);
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return 0;
    return static_cast<T>(a % b);
  }
}
// Python's %: the sign of the divisor; a zero result of floats takes the divisor's sign.
template <class T>
T mod(T a, T b) {
  T r = rem(a, b);
  if constexpr (std::is_floating_point_v<T>) {
    if (r == 0) return std::copysign(r, b);
    return (r < 0) != (b < 0) ? r + b : r;
  } else if constexpr (std::is_signed_v<T>) {
    return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
  } else {
    return r;
  }
}
// Floats as Python's //: computed from the exact remainder, a / b when b is 0.
template <class T>
T floor_div(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (b == 0) return a / b;
    const T m = mod(a, b);
    const T quotient = (a - m) / b;
    if (quotient == 0) return std::copysign(T(0), a / b);
    const T whole = std::floor(quotient);
    return quotient - whole > T(0.5) ? whole + 1 : whole;
  } else {
    const T q = div(a, b);
    if constexpr (std::is_signed_v<T>) {
      if (b == 0) return 0;
      const T r = rem(a, b);
      return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(q - 1) : q;
    }
    return q;
  }
}

template <class T>
T min(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a || b != b) return std::numeric_limits<T>::quiet_NaN();
    if (a == b) return std::signbit(a) ? a : b;
  }
  return a < b ? a : b;
}
template <class T>
T max(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a || b != b) return std::numeric_limits<T>::quiet_NaN();
    if (a == b) return std::signbit(a) ? b : a;
  }
  return a < b ? b : a;
}

// The amount counts as unsigned, so a negative one is wider than the type.
template <class T>
T shl(T a, T b) {
  constexpr auto width = static_cast<Bits<T>>(sizeof(T) * 8);
  const auto n = static_cast<Bits<T>>(b);
  return n >= width ? T(0) : static_cast<T>(static_cast<std::uint64_t>(a) << n);
}
template <class T>
T shr(T a, T b) {
  constexpr auto width = static_cast<Bits<T>>(sizeof(T) * 8);
  const auto n = static_cast<Bits<T>>(b);
  if (n >= width) return static_cast<T>(a < 0 ? -1 : 0);
  return static_cast<T>(a >> n);
}

// Integers: a to the power b, wrapping; a negative exponent gives the true power truncated (0 to it: 0).
template <class T>
T pow(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::pow(a, b);
  } else {
    if constexpr (std::is_signed_v<T>)
      if (b < 0) return a == 1 ? T(1) : a == T(-1) ? ((b & 1) ? T(-1) : T(1)) : T(0);
    T result = 1;
    for (Bits<T> n = static_cast<Bits<T>>(b); n != 0; n = static_cast<Bits<T>>(n >> 1)) {
      if (n & 1) result = mul(result, a);
      a = mul(a, a);
    }
    return result;
  }
}

// Float -> integer: truncates, saturates, NaN gives 0. lo and hi are the integer type's bounds.
template <class To, class From>
To to_integer(From x, To lo = std::numeric_limits<To>::min(), To hi = std::numeric_limits<To>::max()) {
  static_assert(std::is_floating_point_v<From>);
  if (x != x) return 0;
  const From t = std::trunc(x);
  if (t <= static_cast<From>(lo)) return lo;
  // hi + 1 is a power of two, so it is exact where hi need not be.
  const To half = hi / 2 + 1;
  if (t >= static_cast<From>(half) * 2) return hi;
  return static_cast<To>(t);
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double digamma(double x);
double lgamma(double x);  // reentrant

}  // namespace deepseek::loops::semantics
