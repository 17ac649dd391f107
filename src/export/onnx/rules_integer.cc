// Division, powers, bits and shifts: where integers have rules of their own.
#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

namespace {

bool never_zero(Value v) {
  if (!v.node->is_constant()) return false;
  for (std::int64_t i = 0; i < v.node->data.numel(); ++i)
    if (v.node->data.at(i) == 0) return false;
  return true;
}

// f(a, b) of integers where b is not 0; `by_zero` elsewhere (ONNX leaves it undefined).
template <class F>
std::string divided(Writer& w, const Node& n, const std::string& by_zero, F f) {
  const std::string a = w.in(n, 0), b = w.in(n, 1);
  const DType t = n.in(1).dtype();
  if (never_zero(n.in(1))) return f(a, b);
  const std::string none = w.add("Equal", {b, w.scalar(0, t)});
  return w.add("Where", {none, by_zero, f(a, w.add("Where", {none, w.scalar(1, t), b}))});
}

Names division(Writer& w, const Node& n) {
  const DType t = n.in(0).dtype();
  if (is_float(t)) return {w.add("Div", w.all(n))};
  return {divided(w, n, w.scalar(0, t),
                  [&](const std::string& a, const std::string& b) { return w.add("Div", {a, b}); })};
}

Names floor_division(Writer& w, const Node& n) {
  const DType t = n.in(0).dtype();
  if (is_float(t)) return {w.add("Floor", {w.add("Div", w.all(n))})};
  return {divided(w, n, w.scalar(0, t), [&](const std::string& a, const std::string& b) {
    return w.add("Div", {w.add("Sub", {a, w.add("Mod", {a, b})}), b});
  })};
}

// The remainder with the sign of a (fmod), or with that of b.
Names remainder(Writer& w, const Node& n, bool of_dividend) {
  const DType t = n.in(0).dtype();
  const auto fmod = [&](const std::string& a, const std::string& b) {
    return w.add("Mod", {a, b}, {{"fmod", std::int64_t{1}}});
  };
  if (is_float(t)) {
    const std::string b = w.in(n, 1), zero = w.scalar(0, t), r = fmod(w.in(n, 0), b);
    if (of_dividend) return {r};
    const std::string turned = w.add("Less", {w.add("Mul", {w.add("Sign", {r}), w.add("Sign", {b})}), zero});
    return {w.add("Where", {turned, w.add("Add", {r, b}), r})};
  }
  return {divided(w, n, w.scalar(0, t), [&](const std::string& a, const std::string& b) {
    return of_dividend ? fmod(a, b) : w.add("Mod", {a, b});
  })};
}

Names power(Writer& w, const Node& n) {
  const DType t = n.in(0).dtype();
  if (is_float(t) || t == DType::I32 || t == DType::I64) return {w.add("Pow", w.all(n))};
  return {w.cast(w.add("Pow", {w.cast(w.in(n, 0), DType::I64), w.cast(w.in(n, 1), DType::I64)}), t)};
}

DType unsigned_of(DType t) {
  switch (t) {
    case DType::I8:
      return DType::U8;
    case DType::I16:
      return DType::U16;
    case DType::I32:
      return DType::U32;
    case DType::I64:
      return DType::U64;
    default:
      return t;
  }
}

// BitShift takes unsigned integers; signed ones shift as those of their bits.
Names shift(Writer& w, const Node& n, bool left) {
  const DType t = n.in(0).dtype(), u = unsigned_of(t);
  const std::string wide = w.add("GreaterOrEqual", {w.in(n, 1), w.scalar(bits(t), t)});
  const auto shifted = [&](const std::string& x) {
    const std::string zero = w.scalar(0, u);
    const std::string by = u == t ? w.in(n, 1) : w.cast(w.in(n, 1), u);
    const std::string y = w.add("BitShift", {u == t ? x : w.cast(x, u), w.add("Where", {wide, zero, by})},
                                {{"direction", std::string(left ? "LEFT" : "RIGHT")}});
    const std::string all = w.add("Where", {wide, zero, y});
    return u == t ? all : w.cast(all, t);
  };
  const std::string x = w.in(n, 0);
  if (left || u == t) return {shifted(x)};
  const std::string below = w.add("Less", {x, w.scalar(0, t)}), turned = w.add("BitwiseNot", {x});
  const std::string moved = shifted(w.add("Where", {below, turned, x}));
  return {w.add("Where", {below, w.add("BitwiseNot", {moved}), moved})};
}

void add_bits(Rules& r, std::string_view op, std::string_view integers, std::string_view bools) {
  r.add(op, [integers, bools](Writer& w, const Node& n) {
    return Names{w.add(n.in(0).dtype() == DType::Bool ? bools : integers, w.all(n))};
  });
}

}  // namespace

void add_integer_rules(Rules& r) {
  r.add("div", division);
  r.add("floor_div", floor_division);
  r.add("mod", [](Writer& w, const Node& n) { return remainder(w, n, false); });
  r.add("rem", [](Writer& w, const Node& n) { return remainder(w, n, true); });
  r.add("pow", power);
  r.add("shift_left", [](Writer& w, const Node& n) { return shift(w, n, true); });
  r.add("shift_right", [](Writer& w, const Node& n) { return shift(w, n, false); });
  add_bits(r, "bit_and", "BitwiseAnd", "And");
  add_bits(r, "bit_or", "BitwiseOr", "Or");
  add_bits(r, "bit_xor", "BitwiseXor", "Xor");
  add_bits(r, "bit_not", "BitwiseNot", "Not");
}

}  // namespace deepseek::onnx_export
