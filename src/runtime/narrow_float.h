// Storage formats of floats narrower than 32 bits, decoded and encoded on the host, bit for bit as the loop
// language defines them: round to nearest, ties to even, straight from double (one rounding).
#pragma once

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
};

// The format of F16, BF16, F8E4M3, F8E5M2 and F4E2M1.
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
    default:
      return {2, 1, false, false};
  }
}

inline double decode_float(std::uint32_t bits, FloatFormat f) {
  const std::uint32_t mantissa_mask = (1u << f.mantissa_bits) - 1,
                      exponent_mask = (1u << f.exponent_bits) - 1;
  const std::uint32_t mantissa = bits & mantissa_mask, exponent = (bits >> f.mantissa_bits) & exponent_mask;
  const double sign = (bits >> (f.mantissa_bits + f.exponent_bits)) & 1 ? -1.0 : 1.0;
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  if (exponent == exponent_mask) {
    if (f.has_infinity && mantissa == 0) return sign * std::numeric_limits<double>::infinity();
    if (f.has_infinity || (f.has_nan && mantissa == mantissa_mask))
      return std::copysign(std::numeric_limits<double>::quiet_NaN(), sign);
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - f.mantissa_bits);
  return sign * std::ldexp(mantissa + mantissa_mask + 1, static_cast<int>(exponent) - bias - f.mantissa_bits);
}

// Beyond the range: infinity where the format has it, else NaN, else (F4E2M1) the largest value. F4E2M1 has
// no NaN: it becomes 0.
inline std::uint32_t encode_float(double x, FloatFormat f) {
  const std::uint32_t mantissa_mask = (1u << f.mantissa_bits) - 1,
                      exponent_mask = (1u << f.exponent_bits) - 1;
  const std::uint32_t sign = std::signbit(x) ? 1u << (f.mantissa_bits + f.exponent_bits) : 0;
  const std::uint32_t all_ones = exponent_mask << f.mantissa_bits | mantissa_mask;
  const std::uint32_t infinity = exponent_mask << f.mantissa_bits;
  const std::uint32_t nan = f.has_infinity ? infinity | 1u << (f.mantissa_bits - 1) : all_ones;
  if (std::isnan(x)) return f.has_nan ? sign | nan : 0;
  const std::uint32_t overflow = f.has_infinity ? infinity : all_ones;
  if (std::isinf(x)) return sign | overflow;
  const double magnitude = std::fabs(x);
  if (magnitude == 0) return sign;
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  int exponent = std::ilogb(magnitude);
  if (exponent < 1 - bias) exponent = 1 - bias;
  // In units of the last place this is at most 2^(mantissa_bits+1): exact in a double, so one rounding.
  const double units = std::nearbyint(std::ldexp(magnitude, f.mantissa_bits - exponent));
  // Encodings are ordered as the values are: a mantissa that rounds up carries into the exponent by itself.
  const std::int64_t code =
      (static_cast<std::int64_t>(exponent + bias - 1) << f.mantissa_bits) + static_cast<std::int64_t>(units);
  const std::int64_t largest = f.has_infinity ? infinity - 1 : f.has_nan ? all_ones - 1 : all_ones;
  return sign | (code > largest ? overflow : static_cast<std::uint32_t>(code));
}

}  // namespace deepseek
