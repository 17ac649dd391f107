// Narrow floats as bits, and their conversion from and to float. Rounding is to nearest even.
//   BF16    1-8-7, F16 1-5-10, F8E5M2 1-5-2: as IEEE 754, beyond the range infinity
//   F8E4M3  1-4-3, no infinity: beyond 448 NaN (bits 0x7f); ONNX's FLOAT8E4M3FN, not saturating
//   F8E4M3FNUZ, F8E5M2FNUZ  one more in the bias; beyond 240 and 57344 NaN, whose bits are those of -0, which they lack
//   F8E8M0  2^(bits - 127), 255 is NaN: nearest, ties up; 2^-127 below that; what is not positive or is 1.5 * 2^127
//           and more becomes NaN
//   F4E2M1  1-2-1, neither infinity nor NaN: beyond 6 it is 6; NaN becomes -0
// A cast from another type to a narrow float goes through F32.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "deepseek/dtype.h"

namespace deepseek::loops {

std::uint32_t encode_narrow(DType t, float x);  // t: BF16, F16, any F8, F4E2M1
float decode_narrow(DType t, std::uint32_t bits);
// The largest number of a type without infinity, nothing of the others.
std::optional<double> finite_largest(DType t);
// x rounded to what t can hold; F32 and F64 allowed too.
double round_to(DType t, double x);

inline float bf16_to_float(std::uint16_t b) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16);
}
inline std::uint16_t float_to_bf16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  if (x != x) return static_cast<std::uint16_t>((u >> 16) | 0x40);
  return static_cast<std::uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float f16_to_float(std::uint16_t h);
std::uint16_t float_to_f16(float x);

// Element `index` of a packed array of a sub-byte type, low bits first; `bits` is 2 or 4.
inline std::uint32_t read_packed(const std::byte* data, std::int64_t index, int bits) {
  const std::int64_t bit = index * bits;
  return (std::to_integer<std::uint32_t>(data[bit >> 3]) >> (bit & 7)) & ((1u << bits) - 1);
}
inline void write_packed(std::byte* data, std::int64_t index, int bits, std::uint32_t value) {
  const std::int64_t bit = index * bits;
  const std::uint32_t mask = ((1u << bits) - 1) << (bit & 7);
  auto& b = data[bit >> 3];
  b = static_cast<std::byte>((std::to_integer<std::uint32_t>(b) & ~mask) | ((value << (bit & 7)) & mask));
}
// The low `bits` bits of v as a two's complement number.
inline std::int64_t sign_extend(std::uint64_t v, int bits) {
  const int s = 64 - bits;
  return static_cast<std::int64_t>(v << s) >> s;
}

}  // namespace deepseek::loops
