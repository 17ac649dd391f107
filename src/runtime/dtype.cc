#include "deepseek/dtype.h"

#include <array>
#include <string>

#include "deepseek/error.h"

namespace deepseek {
namespace {

enum class Kind : std::uint8_t { Bool, Signed, Unsigned, Float, Complex, String };

struct Info {
  DType type;
  std::string_view name;
  Kind kind;
  int bits;
};

// In the order of the enum.
constexpr std::array<Info, kDTypeCount> kInfo = {{
    {DType::Bool, "bool", Kind::Bool, 8},
    {DType::I8, "int8", Kind::Signed, 8},
    {DType::U8, "uint8", Kind::Unsigned, 8},
    {DType::I16, "int16", Kind::Signed, 16},
    {DType::U16, "uint16", Kind::Unsigned, 16},
    {DType::I32, "int32", Kind::Signed, 32},
    {DType::U32, "uint32", Kind::Unsigned, 32},
    {DType::I64, "int64", Kind::Signed, 64},
    {DType::U64, "uint64", Kind::Unsigned, 64},
    {DType::F16, "float16", Kind::Float, 16},
    {DType::BF16, "bfloat16", Kind::Float, 16},
    {DType::F32, "float32", Kind::Float, 32},
    {DType::F64, "float64", Kind::Float, 64},
    {DType::F8E4M3, "float8_e4m3", Kind::Float, 8},
    {DType::F8E5M2, "float8_e5m2", Kind::Float, 8},
    {DType::F8E4M3FNUZ, "float8_e4m3fnuz", Kind::Float, 8},
    {DType::F8E5M2FNUZ, "float8_e5m2fnuz", Kind::Float, 8},
    {DType::F8E8M0, "float8_e8m0", Kind::Float, 8},
    {DType::F4E2M1, "float4_e2m1", Kind::Float, 4},
    {DType::I4, "int4", Kind::Signed, 4},
    {DType::U4, "uint4", Kind::Unsigned, 4},
    {DType::I2, "int2", Kind::Signed, 2},
    {DType::U2, "uint2", Kind::Unsigned, 2},
    {DType::C64, "complex64", Kind::Complex, 64},
    {DType::C128, "complex128", Kind::Complex, 128},
    {DType::String, "string", Kind::String, 0},
}};

constexpr bool in_order() {
  for (int i = 0; i < kDTypeCount; ++i)
    if (static_cast<int>(kInfo[static_cast<std::size_t>(i)].type) != i) return false;
  return true;
}
static_assert(in_order());

const Info& info(DType t) { return kInfo[static_cast<std::size_t>(t)]; }

// The narrowest signed integer with more than `bits` bits; F64 when there is none.
DType signed_above(int bits) {
  for (DType t : {DType::I4, DType::I8, DType::I16, DType::I32, DType::I64})
    if (info(t).bits > bits) return t;
  return DType::F64;
}

DType promote_floats(DType a, DType b) {
  if (info(a).bits != info(b).bits) return info(a).bits > info(b).bits ? a : b;
  return info(a).bits == 16 ? DType::F32 : DType::F16;
}

}  // namespace

int bits(DType t) { return info(t).bits; }

std::int64_t bytes(DType t, std::int64_t count) {
  const int width = info(t).bits;
  return width >= 8 ? count * (width / 8) : (count * width + 7) / 8;
}

std::string_view name(DType t) { return info(t).name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (const Info& i : kInfo)
    if (i.name == name) return i.type;
  return std::nullopt;
}

bool is_float(DType t) { return info(t).kind == Kind::Float; }
bool is_integer(DType t) { return info(t).kind == Kind::Signed || info(t).kind == Kind::Unsigned; }
bool is_signed(DType t) { return info(t).kind == Kind::Signed || info(t).kind == Kind::Float; }
bool is_complex(DType t) { return info(t).kind == Kind::Complex; }

DType compute_type(DType t) {
  if (is_float(t)) return info(t).bits < 32 ? DType::F32 : t;
  return is_integer(t) && info(t).bits < 8 ? DType::I32 : t;
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (a == DType::String || b == DType::String)
    throw Error(Code::InvalidArgument, "", "", "two numeric dtypes",
                std::string(name(a)) + " and " + std::string(name(b)));
  if (a == DType::Bool) return b;
  if (b == DType::Bool) return a;
  if (is_complex(a) || is_complex(b)) {
    const bool wide = a == DType::C128 || b == DType::C128 || a == DType::F64 || b == DType::F64;
    return wide ? DType::C128 : DType::C64;
  }
  if (is_float(a)) return is_float(b) ? promote_floats(a, b) : a;
  if (is_float(b)) return b;
  if (info(a).kind == info(b).kind) return info(a).bits > info(b).bits ? a : b;
  const DType s = info(a).kind == Kind::Signed ? a : b;
  const DType u = info(a).kind == Kind::Signed ? b : a;
  return info(s).bits > info(u).bits ? s : signed_above(info(u).bits);
}

}  // namespace deepseek
