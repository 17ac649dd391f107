#include "loops/convert.h"

#include <algorithm>
#include <limits>

#include "deepseek/error.h"

namespace deepseek::loops {
namespace {

enum class Beyond : std::uint8_t { Infinity, Nan, NanAtMinusZero, Saturate };

struct Format {
  int exponent_bits, mantissa_bits;
  Beyond beyond;
  std::uint32_t largest;  // bits of the largest finite number
  int bias() const { return (1 << (exponent_bits - 1)) - (beyond == Beyond::NanAtMinusZero ? 0 : 1); }
  int min_exponent() const { return 1 - bias(); }
  std::uint32_t sign() const { return 1u << (exponent_bits + mantissa_bits); }
};

const Format& format(DType t) {
  static constexpr Format bf16{8, 7, Beyond::Infinity, 0x7f7f};
  static constexpr Format f16{5, 10, Beyond::Infinity, 0x7bff};
  static constexpr Format f8e5m2{5, 2, Beyond::Infinity, 0x7b};
  static constexpr Format f8e4m3{4, 3, Beyond::Nan, 0x7e};
  static constexpr Format f8e4m3fnuz{4, 3, Beyond::NanAtMinusZero, 0x7f};
  static constexpr Format f8e5m2fnuz{5, 2, Beyond::NanAtMinusZero, 0x7f};
  static constexpr Format f4e2m1{2, 1, Beyond::Saturate, 0x7};
  switch (t) {
    case DType::BF16:
      return bf16;
    case DType::F16:
      return f16;
    case DType::F8E5M2:
      return f8e5m2;
    case DType::F8E4M3:
      return f8e4m3;
    case DType::F8E4M3FNUZ:
      return f8e4m3fnuz;
    case DType::F8E5M2FNUZ:
      return f8e5m2fnuz;
    case DType::F4E2M1:
      return f4e2m1;
    default:
      break;
  }
  throw Error(Code::Internal, "", "", "a narrow float", std::string(name(t)));
}

std::uint32_t quiet_nan(const Format& f) {
  switch (f.beyond) {
    case Beyond::Infinity:
      return f.largest + 1 + (1u << (f.mantissa_bits - 1));
    case Beyond::Nan:
      return f.largest + 1;
    case Beyond::NanAtMinusZero:
    case Beyond::Saturate:
      break;
  }
  return f.sign();
}

std::uint32_t encode(const Format& f, float x) {
  if (std::isnan(x)) return quiet_nan(f);
  const std::uint32_t sign = std::signbit(x) ? f.sign() : 0;
  const std::uint32_t overflow = f.beyond == Beyond::Saturate ? f.largest : f.largest + 1;
  if (std::isinf(x)) return sign | overflow;
  const double a = std::fabs(static_cast<double>(x));
  const int e = std::max(std::ilogb(a), f.min_exponent());
  const double units = std::nearbyint(std::ldexp(a, f.mantissa_bits - e));  // with the hidden bit when normal
  const auto magnitude = (static_cast<std::uint64_t>(e - f.min_exponent()) << f.mantissa_bits) +
                         static_cast<std::uint64_t>(units);
  if (magnitude == 0) return f.beyond == Beyond::NanAtMinusZero ? 0 : sign;
  return sign | (magnitude > f.largest ? overflow : static_cast<std::uint32_t>(magnitude));
}

std::uint32_t encode_exponent(float x) {
  constexpr std::uint32_t infinity = 0x7f800000, half = 0x400000, nan = 255;
  const auto u = std::bit_cast<std::uint32_t>(x);
  if (u == 0 || u >= infinity) return nan;
  return u < half + half / 2 ? 0 : std::min((u + half) >> 23, nan);
}

float decode_exponent(std::uint32_t bits) {
  return bits == 255 ? std::numeric_limits<float>::quiet_NaN()
                     : std::ldexp(1.0F, static_cast<int>(bits) - 127);
}

float decode(const Format& f, std::uint32_t bits) {
  if (f.beyond == Beyond::NanAtMinusZero && bits == f.sign()) return std::numeric_limits<float>::quiet_NaN();
  const bool negative = (bits & f.sign()) != 0;
  const std::uint32_t magnitude = bits & (f.sign() - 1);
  const std::uint32_t mantissa = magnitude & ((1u << f.mantissa_bits) - 1);
  const int exponent = static_cast<int>(magnitude >> f.mantissa_bits);
  double value = 0;
  if (magnitude > f.largest)
    value = f.beyond == Beyond::Infinity && mantissa == 0 ? std::numeric_limits<double>::infinity()
                                                          : std::numeric_limits<double>::quiet_NaN();
  else if (exponent == 0)
    value = std::ldexp(static_cast<double>(mantissa), f.min_exponent() - f.mantissa_bits);
  else
    value = std::ldexp(static_cast<double>(mantissa + (1u << f.mantissa_bits)),
                       exponent - f.bias() - f.mantissa_bits);
  return static_cast<float>(negative ? -value : value);
}

}  // namespace

std::uint32_t encode_narrow(DType t, float x) {
  if (t == DType::BF16) return float_to_bf16(x);
  if (t == DType::F16) return float_to_f16(x);
  if (t == DType::F8E8M0) return encode_exponent(x);
  return encode(format(t), x);
}

float decode_narrow(DType t, std::uint32_t bits) {
  if (t == DType::BF16) return bf16_to_float(static_cast<std::uint16_t>(bits));
  if (t == DType::F16) return f16_to_float(static_cast<std::uint16_t>(bits));
  if (t == DType::F8E8M0) return decode_exponent(bits);
  return decode(format(t), bits);
}

std::optional<double> finite_largest(DType t) {
  switch (t) {
    case DType::F8E4M3:
      return 448;
    case DType::F8E4M3FNUZ:
      return 240;
    case DType::F8E5M2FNUZ:
      return 57344;
    case DType::F8E8M0:
      return 0x1p127;
    case DType::F4E2M1:
      return 6;
    default:
      return std::nullopt;
  }
}

double round_to(DType t, double x) {
  if (t == DType::F64) return x;
  const auto f = static_cast<float>(x);
  return t == DType::F32 ? f : decode_narrow(t, encode_narrow(t, f));
}

// Subnormal halves come out of a float addition, whose rounding is the one wanted.
std::uint16_t float_to_f16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (a >= 0x477ff000) return static_cast<std::uint16_t>(sign | 0x7c00);  // rounds to 65536 or more
  if (a < 0x38800000) {                                                   // below 2^-14
    const float shifted = std::bit_cast<float>(a) + 0.5f;                 // unit in the last place: 2^-24
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000));
  }
  return static_cast<std::uint16_t>(sign | ((a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13));
}

float f16_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16, a = h & 0x7fff;
  if (a >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (a & 0x3ff) << 13);
  if (a >= 0x400) return std::bit_cast<float>(sign | ((a << 13) + 0x38000000));
  const float magnitude = static_cast<float>(a) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

}  // namespace deepseek::loops
