// Element types of tensors, buffers and expressions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace deepseek {

// Sub-byte types (F4E2M1, I4, U4, I2, U2) are storage only: two or four to a byte, low bits first; every
// computation converts them first. BF16, F16 and all F8 compute in F32 and round after each op.
// The F8FNUZ types have neither infinity nor -0 (its bits are NaN); F8E8M0, the scale of MX formats, is a power of two
// without sign or zero: ONNX's FLOAT8E4M3FNUZ, FLOAT8E5M2FNUZ and FLOAT8E8M0.
// clang-format off
enum class DType : std::uint8_t {
  Bool, I8, U8, I16, U16, I32, U32, I64, U64,
  F16, BF16, F32, F64, F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ, F8E8M0, F4E2M1,
  I4, U4, I2, U2,
  C64, C128, String,
};
// clang-format on
inline constexpr int kDTypeCount = static_cast<int>(DType::String) + 1;

// Bits of storage of one element (Bool: 8). String: 0, it lives in host steps only.
int bits(DType t);
// Bytes of `count` elements, rounded up to whole bytes.
std::int64_t bytes(DType t, std::int64_t count);
// The name users and the text form see: "bool", "int8", "bfloat16", "float32", "float8_e4m3", ...
std::string_view name(DType t);
std::optional<DType> parse_dtype(std::string_view name);

bool is_float(DType t);    // F16 ... F4E2M1
bool is_integer(DType t);  // signed or unsigned, sub-byte included, not Bool
bool is_signed(DType t);   // signed integers and floats
bool is_complex(DType t);
// The type in which scalars of type t are computed: F32 for narrow floats, I32 for sub-byte integers, else t.
DType compute_type(DType t);
// The common type of two operands of an arithmetic op, NumPy's rule (int + float of any width: the float).
DType promote(DType a, DType b);

}  // namespace deepseek
