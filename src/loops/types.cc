#include "loops/types.h"

#include <array>
#include <cmath>

#include "deepseek/error.h"

namespace deepseek::loops {
namespace {

constexpr std::array<const char*, static_cast<std::size_t>(Op::Reduce) + 1> kNames = {
    "const", "var",    "symbol",   "neg",    "abs",     "not",   "floor",   "ceil",  "trunc",
    "round", "sqrt",   "exp",      "expm1",  "log",     "log1p", "sin",     "cos",   "tan",
    "asin",  "acos",   "atan",     "sinh",   "cosh",    "tanh",  "sigmoid", "asinh", "acosh",
    "atanh", "erf",    "erfc",     "lgamma", "digamma", "isnan", "isinf",   "add",   "sub",
    "mul",   "div",    "floordiv", "rem",    "mod",     "min",   "max",     "pow",   "atan2",
    "ldexp", "and",    "or",       "xor",    "shl",     "shr",   "eq",      "ne",    "lt",
    "le",    "select", "fma",      "cast",   "bitcast", "load",  "reduce"};

bool computes(DType t) { return t == DType::Bool || ((is_integer(t) || is_float(t)) && bits(t) >= 8); }

// The types an operation takes, by name for the message.
const char* accepts(Op op, DType t) {
  const bool is_bool = t == DType::Bool;
  switch (op) {
    case Op::Select:
      return nullptr;
    case Op::Ldexp:
      return t == DType::F32 ? nullptr : "float32";
    case Op::Not:
    case Op::And:
    case Op::Or:
    case Op::Xor:
      return is_bool || (is_integer(t) && computes(t)) ? nullptr : "bool or integer";
    case Op::Shl:
    case Op::Shr:
      return is_integer(t) && computes(t) ? nullptr : "integer";
    case Op::Eq:
    case Op::Ne:
    case Op::Lt:
    case Op::Le:
    case Op::Min:
    case Op::Max:
      return computes(t) ? nullptr : "a computing type";
    case Op::Neg:
    case Op::Abs:
    case Op::Floor:
    case Op::Ceil:
    case Op::Trunc:
    case Op::Round:
    case Op::IsNan:
    case Op::IsInf:
    case Op::Add:
    case Op::Sub:
    case Op::Mul:
    case Op::Div:
    case Op::FloorDiv:
    case Op::Rem:
    case Op::Mod:
    case Op::Pow:
    case Op::Fma:
      return !is_bool && computes(t) ? nullptr : "integer or float";
    default:
      return is_float(t) && computes(t) ? nullptr : "float";
  }
}

bool is_literal(const Expr& e) { return e.is_const() && (e.type() == DType::I64 || e.type() == DType::F64); }

Expr adapted(const Expr& literal, DType t) {
  if (const auto* i = std::get_if<std::int64_t>(&literal->value)) return constant(t, *i);
  const double d = std::get<double>(literal->value);
  if (!is_float(t) && std::trunc(d) != d) bad_type("constant", std::string(name(t)), std::to_string(d));
  return constant(t, d);
}

}  // namespace

const char* name(Op op) { return kNames[static_cast<std::size_t>(op)]; }

void bad_type(const std::string& where, const std::string& expected, const std::string& got) {
  throw Error(Code::Internal, "loops: " + where, "", expected, got);
}

OpClass op_class(Op op) {
  if (op <= Op::Symbol) return OpClass::Leaf;
  if (op <= Op::Digamma) return OpClass::Unary;
  if (op <= Op::IsInf) return OpClass::Test;
  if (op <= Op::Shr) return OpClass::Binary;
  if (op <= Op::Le) return OpClass::Comparison;
  return OpClass::Other;
}

int arity(Op op) {
  switch (op_class(op)) {
    case OpClass::Leaf:
      return 0;
    case OpClass::Unary:
    case OpClass::Test:
      return 1;
    case OpClass::Binary:
    case OpClass::Comparison:
      return 2;
    case OpClass::Other:
      break;
  }
  return op == Op::Select || op == Op::Fma ? 3 : 1;
}

void adapt_literals(Op op, std::vector<Expr>& args) {
  const std::size_t first = op == Op::Select ? 1 : 0;
  const Expr* model = nullptr;
  for (std::size_t i = first; i < args.size(); ++i)
    if (!is_literal(args[i])) model = &args[i];
  if (!model) {
    for (std::size_t i = first; i < args.size(); ++i)  // of literals alone, a float wins
      if (!model || args[i].type() == DType::F64) model = &args[i];
  }
  if (!model) return;
  const DType t = model->type();
  for (std::size_t i = first; i < args.size(); ++i)
    if (args[i].type() != t && is_literal(args[i])) args[i] = adapted(args[i], t);
}

DType result_type(Op op, const std::vector<Expr>& args) {
  if (static_cast<int>(args.size()) != arity(op) || args.empty())
    bad_type(name(op), std::to_string(arity(op)) + " arguments", std::to_string(args.size()));
  for (const Expr& a : args)
    if (!a.get()) bad_type(name(op), "arguments", "an empty expression");
  std::size_t first = 0;
  if (op == Op::Select) {
    if (args[0].type() != DType::Bool)
      bad_type("select", "a bool condition", std::string(name(args[0].type())));
    first = 1;
  }
  const DType t = args[first].type();
  for (std::size_t i = first + 1; i < args.size(); ++i)
    if (args[i].type() != t)
      bad_type(name(op), "arguments of one type",
               std::string(name(t)) + " and " + std::string(name(args[i].type())) + " in " +
                   print(args[first]) + " and " + print(args[i]));
  if (const char* wanted = accepts(op, t))
    bad_type(name(op), wanted, std::string(name(t)) + " " + print(args[first]));
  const OpClass c = op_class(op);
  return c == OpClass::Test || c == OpClass::Comparison ? DType::Bool : t;
}

}  // namespace deepseek::loops
