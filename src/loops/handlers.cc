// Arithmetic, conversions and memory of the interpreter.
#include <bit>
#include <cmath>

#include "deepseek/error.h"
#include "loops/bytecode.h"
#include "loops/convert.h"
#include "loops/scalar.h"
#include "loops/semantics.h"

namespace deepseek::loops {
namespace {

namespace sem = semantics;

template <class T>
struct Tag {
  using type = T;
};

// Calls f with the register type of t.
template <class F>
auto with_type(DType t, F f) {
  switch (t) {
    case DType::Bool:
    case DType::U8:
      return f(Tag<std::uint8_t>());
    case DType::I8:
      return f(Tag<std::int8_t>());
    case DType::I16:
      return f(Tag<std::int16_t>());
    case DType::U16:
      return f(Tag<std::uint16_t>());
    case DType::I32:
    case DType::I4:
    case DType::U4:
    case DType::I2:
    case DType::U2:
      return f(Tag<std::int32_t>());
    case DType::U32:
      return f(Tag<std::uint32_t>());
    case DType::I64:
      return f(Tag<std::int64_t>());
    case DType::U64:
      return f(Tag<std::uint64_t>());
    case DType::F64:
      return f(Tag<double>());
    default:
      break;
  }
  if (is_float(t)) return f(Tag<float>());
  throw Error(Code::Internal, "interpreter", "", "a real type", std::string(name(t)));
}

template <class T, auto F>
const Instruction* unary(const Instruction* i, Register* r, Frame&) {
  r[i->to].set(F(r[i->a].get<T>()));
  return i + 1;
}
template <class T, auto F>
const Instruction* binary(const Instruction* i, Register* r, Frame&) {
  r[i->to].set(F(r[i->a].get<T>(), r[i->b].get<T>()));
  return i + 1;
}
template <class T>
const Instruction* select(const Instruction* i, Register* r, Frame&) {
  r[i->to] = r[i->a].get<std::uint8_t>() ? r[i->b] : r[i->c];
  return i + 1;
}
template <class T>
const Instruction* fma(const Instruction* i, Register* r, Frame&) {
  const T a = r[i->a].get<T>(), b = r[i->b].get<T>(), c = r[i->c].get<T>();
  if constexpr (std::is_floating_point_v<T>)
    r[i->to].set(std::fma(a, b, c));
  else
    r[i->to].set(sem::add(sem::mul(a, b), c));
  return i + 1;
}

std::uint8_t truth(bool b) { return b ? 1 : 0; }

// Transcendentals are computed in double and rounded.
template <class T, double (*F)(double)>
T through_double(T x) {
  return static_cast<T>(F(static_cast<double>(x)));
}
template <class T, double (*F)(double)>
Handler real() {
  if constexpr (std::is_floating_point_v<T>) return unary<T, through_double<T, F>>;
  return nullptr;
}

template <class T>
Handler bool_operation(Op op) {
  switch (op) {
    case Op::Not:
      return unary<T, [](T a) { return truth(!a); }>;
    case Op::And:
    case Op::Min:
      return binary<T, [](T a, T b) { return truth(a && b); }>;
    case Op::Or:
    case Op::Max:
      return binary<T, [](T a, T b) { return truth(a || b); }>;
    case Op::Xor:
    case Op::Ne:
      return binary<T, [](T a, T b) { return truth(a != b); }>;
    case Op::Eq:
      return binary<T, [](T a, T b) { return truth(a == b); }>;
    case Op::Lt:
      return binary<T, [](T a, T b) { return truth(a < b); }>;
    case Op::Le:
      return binary<T, [](T a, T b) { return truth(a <= b); }>;
    case Op::Select:
      return select<T>;
    default:
      return nullptr;
  }
}

template <class T>
Handler common_operation(Op op) {
  switch (op) {
    case Op::Neg:
      return unary<T, sem::neg<T>>;
    case Op::Abs:
      return unary<T, sem::abs<T>>;
    case Op::Add:
      return binary<T, sem::add<T>>;
    case Op::Sub:
      return binary<T, sem::sub<T>>;
    case Op::Mul:
      return binary<T, sem::mul<T>>;
    case Op::Div:
      return binary<T, sem::div<T>>;
    case Op::FloorDiv:
      return binary<T, sem::floor_div<T>>;
    case Op::Rem:
      return binary<T, sem::rem<T>>;
    case Op::Mod:
      return binary<T, sem::mod<T>>;
    case Op::Min:
      return binary<T, sem::min<T>>;
    case Op::Max:
      return binary<T, sem::max<T>>;
    case Op::Eq:
      return binary<T, [](T a, T b) { return truth(a == b); }>;
    case Op::Ne:
      return binary<T, [](T a, T b) { return truth(a != b); }>;
    case Op::Lt:
      return binary<T, [](T a, T b) { return truth(a < b); }>;
    case Op::Le:
      return binary<T, [](T a, T b) { return truth(a <= b); }>;
    case Op::Select:
      return select<T>;
    case Op::Fma:
      return fma<T>;
    default:
      return nullptr;
  }
}

template <class T>
Handler integer_operation(Op op) {
  switch (op) {
    case Op::Not:
      return unary<T, [](T a) { return static_cast<T>(~a); }>;
    case Op::And:
      return binary<T, [](T a, T b) { return static_cast<T>(a & b); }>;
    case Op::Or:
      return binary<T, [](T a, T b) { return static_cast<T>(a | b); }>;
    case Op::Xor:
      return binary<T, [](T a, T b) { return static_cast<T>(a ^ b); }>;
    case Op::Shl:
      return binary<T, sem::shl<T>>;
    case Op::Shr:
      return binary<T, sem::shr<T>>;
    case Op::Pow:
      return binary<T, sem::pow<T>>;
    case Op::Floor:
    case Op::Ceil:
    case Op::Trunc:
    case Op::Round:
      return unary<T, [](T a) { return a; }>;
    case Op::IsNan:
    case Op::IsInf:
      return unary<T, [](T) { return truth(false); }>;
    default:
      return nullptr;
  }
}

template <class T>
Handler float_operation(Op op) {
  switch (op) {
    case Op::Floor:
      return unary<T, [](T a) { return std::floor(a); }>;
    case Op::Ceil:
      return unary<T, [](T a) { return std::ceil(a); }>;
    case Op::Trunc:
      return unary<T, [](T a) { return std::trunc(a); }>;
    case Op::Round:
      return unary<T, [](T a) { return std::nearbyint(a); }>;
    case Op::Sqrt:
      return unary<T, [](T a) { return std::sqrt(a); }>;
    case Op::IsNan:
      return unary<T, [](T a) { return truth(std::isnan(a)); }>;
    case Op::IsInf:
      return unary<T, [](T a) { return truth(std::isinf(a)); }>;
    case Op::Exp:
      return real<T, std::exp>();
    case Op::Expm1:
      return real<T, std::expm1>();
    case Op::Log:
      return real<T, std::log>();
    case Op::Log1p:
      return real<T, std::log1p>();
    case Op::Sin:
      return real<T, std::sin>();
    case Op::Cos:
      return real<T, std::cos>();
    case Op::Tan:
      return real<T, std::tan>();
    case Op::Asin:
      return real<T, std::asin>();
    case Op::Acos:
      return real<T, std::acos>();
    case Op::Atan:
      return real<T, std::atan>();
    case Op::Sinh:
      return real<T, std::sinh>();
    case Op::Cosh:
      return real<T, std::cosh>();
    case Op::Tanh:
      return real<T, std::tanh>();
    case Op::Sigmoid:
      return real<T, sem::sigmoid>();
    case Op::Asinh:
      return real<T, std::asinh>();
    case Op::Acosh:
      return real<T, std::acosh>();
    case Op::Atanh:
      return real<T, std::atanh>();
    case Op::Erf:
      return real<T, std::erf>();
    case Op::Erfc:
      return real<T, std::erfc>();
    case Op::LGamma:
      return real<T, sem::lgamma>();
    case Op::Digamma:
      return real<T, sem::digamma>();
    case Op::Pow:
      return binary<T, [](T a, T b) {
        return static_cast<T>(std::pow(static_cast<double>(a), static_cast<double>(b)));
      }>;
    case Op::Atan2:
      return binary<T, [](T a, T b) {
        return static_cast<T>(std::atan2(static_cast<double>(a), static_cast<double>(b)));
      }>;
    case Op::Ldexp:
      return binary<T, [](T a, T b) {
        return static_cast<T>(static_cast<double>(a) * std::exp2(static_cast<double>(b)));
      }>;
    default:
      return nullptr;
  }
}

template <DType T>
const Instruction* round_narrow(const Instruction* i, Register* r, Frame&) {
  r[i->to].set(decode_narrow(T, encode_narrow(T, r[i->a].get<float>())));
  return i + 1;
}

template <class From, class To>
const Instruction* convert_number(const Instruction* i, Register* r, Frame&) {
  const From x = r[i->a].get<From>();
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>)
    r[i->to].set(sem::to_integer<To>(x));
  else
    r[i->to].set(static_cast<To>(x));
  return i + 1;
}
template <class From>
const Instruction* convert_to_bool(const Instruction* i, Register* r, Frame&) {
  r[i->to].set(truth(r[i->a].get<From>() != From(0)));
  return i + 1;
}
// Of every other pair: sub-byte integers saturate floats and wrap integers at their own width.
template <class From, DType To>
const Instruction* convert_to_small(const Instruction* i, Register* r, Frame&) {
  const From x = r[i->a].get<From>();
  if constexpr (std::is_floating_point_v<From>)
    r[i->to].set(sem::to_integer<std::int32_t>(x, static_cast<std::int32_t>(integer_min(To)),
                                               static_cast<std::int32_t>(integer_max(To))));
  else
    r[i->to].set(static_cast<std::int32_t>(wrap_to(To, static_cast<std::int64_t>(x))));
  return i + 1;
}

template <class From>
Handler convert_from(DType to) {
  switch (to) {
    case DType::Bool:
      return convert_to_bool<From>;
    case DType::I4:
      return convert_to_small<From, DType::I4>;
    case DType::U4:
      return convert_to_small<From, DType::U4>;
    case DType::I2:
      return convert_to_small<From, DType::I2>;
    case DType::U2:
      return convert_to_small<From, DType::U2>;
    default:
      break;
  }
  return with_type(to,
                   [](auto tag) -> Handler { return convert_number<From, typename decltype(tag)::type>; });
}

constexpr bool is_narrow_float(DType t) {
  switch (t) {
    case DType::F16:
    case DType::BF16:
    case DType::F8E4M3:
    case DType::F8E5M2:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2FNUZ:
    case DType::F8E8M0:
      return true;
    default:
      return false;
  }
}

// Types whose registers hold their bits; narrow floats go through encode and decode.
template <DType From, DType To>
const Instruction* reinterpret_narrow(const Instruction* i, Register* r, Frame&) {
  std::uint32_t bits = 0;
  if constexpr (is_narrow_float(From))
    bits = encode_narrow(From, r[i->a].get<float>());
  else
    bits = static_cast<std::uint32_t>(r[i->a].bits);
  if constexpr (is_narrow_float(To))
    r[i->to].set(decode_narrow(To, bits));
  else if constexpr (To == DType::I8 || To == DType::U8)
    r[i->to].set(static_cast<std::uint8_t>(bits));
  else
    r[i->to].set(static_cast<std::uint16_t>(bits));
  return i + 1;
}
const Instruction* copy_bits(const Instruction* i, Register* r, Frame&) {
  r[i->to] = r[i->a];
  return i + 1;
}

template <DType From>
Handler reinterpret_from(DType to) {
  switch (to) {
    case DType::F16:
      return reinterpret_narrow<From, DType::F16>;
    case DType::BF16:
      return reinterpret_narrow<From, DType::BF16>;
    case DType::F8E4M3:
      return reinterpret_narrow<From, DType::F8E4M3>;
    case DType::F8E5M2:
      return reinterpret_narrow<From, DType::F8E5M2>;
    case DType::F8E4M3FNUZ:
      return reinterpret_narrow<From, DType::F8E4M3FNUZ>;
    case DType::F8E5M2FNUZ:
      return reinterpret_narrow<From, DType::F8E5M2FNUZ>;
    case DType::F8E8M0:
      return reinterpret_narrow<From, DType::F8E8M0>;
    case DType::I8:
    case DType::U8:
      return reinterpret_narrow<From, DType::U8>;
    default:
      return reinterpret_narrow<From, DType::U16>;
  }
}

}  // namespace

namespace handlers {

Handler operation(Op op, DType t) {
  const Handler h =
      t == DType::Bool ? bool_operation<std::uint8_t>(op) : with_type(t, [op](auto tag) -> Handler {
        using T = typename decltype(tag)::type;
        if (const Handler common = common_operation<T>(op)) return common;
        if constexpr (std::is_floating_point_v<T>)
          return float_operation<T>(op);
        else
          return integer_operation<T>(op);
      });
  if (!h)
    throw Error(Code::Internal, "interpreter", "", std::string(name(op)) + " of a type that has it",
                std::string(name(t)));
  return h;
}

Handler round(DType t) {
  switch (t) {
    case DType::F16:
      return round_narrow<DType::F16>;
    case DType::BF16:
      return round_narrow<DType::BF16>;
    case DType::F8E4M3:
      return round_narrow<DType::F8E4M3>;
    case DType::F8E5M2:
      return round_narrow<DType::F8E5M2>;
    case DType::F8E4M3FNUZ:
      return round_narrow<DType::F8E4M3FNUZ>;
    case DType::F8E5M2FNUZ:
      return round_narrow<DType::F8E5M2FNUZ>;
    case DType::F8E8M0:
      return round_narrow<DType::F8E8M0>;
    case DType::F4E2M1:
      return round_narrow<DType::F4E2M1>;
    default:
      throw Error(Code::Internal, "interpreter", "", "a narrow float", std::string(name(t)));
  }
}

Handler convert(DType from, DType to) {
  return with_type(from, [to](auto tag) { return convert_from<typename decltype(tag)::type>(to); });
}

Handler reinterpret(DType from, DType to) {
  switch (from) {
    case DType::F16:
      return reinterpret_from<DType::F16>(to);
    case DType::BF16:
      return reinterpret_from<DType::BF16>(to);
    case DType::F8E4M3:
      return reinterpret_from<DType::F8E4M3>(to);
    case DType::F8E5M2:
      return reinterpret_from<DType::F8E5M2>(to);
    case DType::F8E4M3FNUZ:
      return reinterpret_from<DType::F8E4M3FNUZ>(to);
    case DType::F8E5M2FNUZ:
      return reinterpret_from<DType::F8E5M2FNUZ>(to);
    case DType::F8E8M0:
      return reinterpret_from<DType::F8E8M0>(to);
    default:
      break;
  }
  if (is_float(to) && bits(to) < 32) return reinterpret_from<DType::U16>(to);
  return copy_bits;
}

}  // namespace handlers
}  // namespace deepseek::loops
