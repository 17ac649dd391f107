// Storage formats of floats narrower than 32 bits, decoded and encoded on the host, bit for bit as the loop
// language defines them: round to nearest, ties to even, straight from double (one rounding).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "deepseek/dtype.h"

namespace deepseek {

struct FloatFormat {
  int exponent_bits, mantissa_bits;
  bool has_infinity;  // IEEE: the top exponent holds infinities and NaNs
  bool has_nan;       // without infinity: the all-ones pattern alone is NaN (F8E4M3); none at all: F4E2M1
  bool has_minus_zero = true;  // false: its bits are the one NaN, and the bias is one more (F8FNUZ)
  bool has_sign = true;        // false: a power of two, all ones is NaN (F8E8M0)

  constexpr int bias() const { return (1 << (exponent_bits - 1)) - (has_minus_zero ? 1 : 0); }
};

// The format of F16, BF16, the F8 types and F4E2M1.
constexpr FloatFormat float_format(DType t) {
  switch (t) {
    case DType::F16:
      return {5, 10, true, true};
    case DType::BF16:
      return {8, 7, true, true};
    case DType::F8E5M2:
      return {5, 2, true, true};
    case DType::F8E4M3:
      return {4, 3, false, true};
    case DType::F8E4M3FNUZ:
      return {4, 3, false, false, false};
    case DType::F8E5M2FNUZ:
      return {5, 2, false, false, false};
    case DType::F8E8M0:
      return {8, 0, false, true, true, false};
    default:
      return {2, 1, false, false};
  }
}

inline double decode_float(std::uint32_t bits, FloatFormat f) {
  const std::uint32_t mantissa_mask = (1u << f.mantissa_bits) - 1,
                      exponent_mask = (1u << f.exponent_bits) - 1;
  const std::uint32_t mantissa = bits & mantissa_mask, exponent = (bits >> f.mantissa_bits) & exponent_mask;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  if (!f.has_sign)
    return exponent == exponent_mask ? nan : std::ldexp(1.0, static_cast<int>(exponent) - f.bias());
  if (!f.has_minus_zero && bits == 1u << (f.mantissa_bits + f.exponent_bits)) return nan;
  const double sign = (bits >> (f.mantissa_bits + f.exponent_bits)) & 1 ? -1.0 : 1.0;
  const int bias = f.bias();
  if (exponent == exponent_mask) {
    if (f.has_infinity && mantissa == 0) return sign * std::numeric_limits<double>::infinity();
    if (f.has_infinity || (f.has_nan && mantissa == mantissa_mask)) return std::copysign(nan, sign);
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - f.mantissa_bits);
  return sign * std::ldexp(mantissa + mantissa_mask + 1, static_cast<int>(exponent) - bias - f.mantissa_bits);
}

// To a power of two: nearest, ties up, at least the smallest; NaN of what is not positive or lies beyond the largest.
inline std::uint32_t encode_power_of_two(double x, FloatFormat f) {
  const int nan = (1 << f.exponent_bits) - 1;
  if (!(x > 0) || std::isinf(x)) return static_cast<std::uint32_t>(nan);
  const int below = std::ilogb(x);
  const int nearest = below + (x >= std::ldexp(1.5, below) ? 1 : 0);
  return static_cast<std::uint32_t>(std::clamp(nearest + f.bias(), 0, nan));
}

// Beyond the range: infinity where the format has it, else NaN, else (F4E2M1) the largest value. F4E2M1 has
// no NaN: it becomes 0.
inline std::uint32_t encode_float(double x, FloatFormat f) {
  if (!f.has_sign) return encode_power_of_two(x, f);
  const std::uint32_t mantissa_mask = (1u << f.mantissa_bits) - 1,
                      exponent_mask = (1u << f.exponent_bits) - 1;
  const std::uint32_t sign = std::signbit(x) ? 1u << (f.mantissa_bits + f.exponent_bits) : 0;
  const std::uint32_t all_ones = exponent_mask << f.mantissa_bits | mantissa_mask;
  const std::uint32_t infinity = exponent_mask << f.mantissa_bits;
  const std::uint32_t nan = f.has_infinity ? infinity | 1u << (f.mantissa_bits - 1) : all_ones;
  const std::uint32_t minus_zero = 1u << (f.mantissa_bits + f.exponent_bits);
  if (!f.has_minus_zero && !std::isfinite(x)) return minus_zero;
  if (std::isnan(x)) return f.has_nan ? sign | nan : 0;
  const std::uint32_t overflow = f.has_infinity ? infinity : all_ones;
  if (std::isinf(x)) return sign | overflow;
  const double magnitude = std::fabs(x);
  if (magnitude == 0) return f.has_minus_zero ? sign : 0;
  const int bias = f.bias();
  int exponent = std::ilogb(magnitude);
  if (exponent < 1 - bias) exponent = 1 - bias;
  // In units of the last place this is at most 2^(mantissa_bits+1): exact in a double, so one rounding.
  const double units = std::nearbyint(std::ldexp(magnitude, f.mantissa_bits - exponent));
  // Encodings are ordered as the values are: a mantissa that rounds up carries into the exponent by itself.
  const std::int64_t code =
      (static_cast<std::int64_t>(exponent + bias - 1) << f.mantissa_bits) + static_cast<std::int64_t>(units);
  const std::int64_t largest = f.has_infinity ? infinity - 1 : f.has_nan ? all_ones - 1 : all_ones;
  if (!f.has_minus_zero && (code == 0 || code > largest)) return code == 0 ? 0 : minus_zero;
  return sign | (code > largest ? overflow : static_cast<std::uint32_t>(code));
}

}  // namespace deepseek
