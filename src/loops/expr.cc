#include <cmath>
#include <limits>

#include "deepseek/error.h"
#include "loops/convert.h"
#include "loops/ir.h"
#include "loops/scalar.h"
#include "loops/simplify.h"
#include "loops/types.h"

namespace deepseek::loops {
namespace {

Expr fresh(ExprNode n) { return Expr(std::make_shared<const ExprNode>(std::move(n))); }

Expr fold(Op op, DType type, const std::vector<Expr>& args) {
  std::vector<Scalar> values;
  for (const Expr& a : args) {
    if (!a.is_const()) return {};
    values.push_back(scalar_of(*a));
  }
  return constant_of(type, evaluate(op, args.back().type(), values));
}

}  // namespace

Expr::Expr(std::int64_t literal) : Expr(constant(DType::I64, literal)) {}
Expr::Expr(double literal) : Expr(constant(DType::F64, literal)) {}

DType Expr::type() const { return node_->type; }
Op Expr::op() const { return node_->op; }

std::optional<std::int64_t> Expr::int_value() const {
  if (!node_ || node_->op != Op::Const) return std::nullopt;
  const auto* i = std::get_if<std::int64_t>(&node_->value);
  return i ? std::optional(*i) : std::nullopt;
}

const char* name(Reducer r) {
  switch (r) {
    case Reducer::Sum:
      return "sum";
    case Reducer::Prod:
      return "prod";
    case Reducer::Min:
      return "min";
    case Reducer::Max:
      return "max";
    case Reducer::And:
      return "and";
    case Reducer::Or:
      return "or";
  }
  return "?";
}

Expr node(Op op, DType type, std::vector<Expr> args) {
  return fresh({.op = op, .type = type, .args = std::move(args)});
}

Expr constant(DType t, std::int64_t v) {
  if (is_float(t)) {
    // 64-bit integers round once on their way to F32.
    const double d = t == DType::F64 ? static_cast<double>(v) : round_to(t, static_cast<float>(v));
    return fresh({.op = Op::Const, .type = t, .value = d});
  }
  return fresh({.op = Op::Const, .type = t, .value = wrap_to(t, v)});
}

Expr constant(DType t, double v) {
  if (is_float(t)) return fresh({.op = Op::Const, .type = t, .value = round_to(t, v)});
  return fresh({.op = Op::Const, .type = t, .value = convert(DType::F64, t, {0, v}).i});
}

Expr zero(DType t) { return constant(t, std::int64_t{0}); }
Expr one(DType t) { return constant(t, std::int64_t{1}); }

Expr lowest(DType t) {
  if (t == DType::F8E8M0) return constant(t, 0x1p-127);
  if (const auto largest = finite_largest(t)) return constant(t, -*largest);
  if (is_float(t)) return constant(t, -std::numeric_limits<double>::infinity());
  return constant(t, integer_min(t));
}

Expr highest(DType t) {
  if (const auto largest = finite_largest(t)) return constant(t, *largest);
  if (is_float(t)) return constant(t, std::numeric_limits<double>::infinity());
  return constant(t, integer_max(t));
}

Expr identity(Reducer r, DType t) {
  switch (r) {
    case Reducer::Sum:
      return zero(t);
    case Reducer::Prod:
      return one(t);
    case Reducer::Min:
      return highest(t);
    case Reducer::Max:
      return lowest(t);
    case Reducer::And:
      return t == DType::Bool ? one(t) : constant(t, std::int64_t{-1});
    case Reducer::Or:
      return zero(t);
  }
  throw Error(Code::Internal, "", "", "a reducer", "another value");
}

Expr var(const Var& v) { return fresh({.op = Op::Var, .type = v->dtype, .var = v}); }
Expr symbol(std::string name) {
  return fresh({.op = Op::Symbol, .type = DType::I64, .symbol = std::move(name)});
}

Expr make(Op op, std::vector<Expr> args) {
  for (const Expr& a : args)
    if (!a.get()) bad_type(name(op), "arguments", "an empty expression");
  adapt_literals(op, args);
  const DType type = result_type(op, args);
  if (Expr folded = fold(op, type, args)) return folded;
  if (Expr simpler = simplified(op, type, args)) return simpler;
  return node(op, type, std::move(args));
}

Expr cast(DType t, Expr x) {
  if (x.type() == t) return x;
  if (is_complex(t) || t == DType::String || is_complex(x.type()) || x.type() == DType::String)
    bad_type("cast", "real types", std::string(name(x.type())) + " to " + std::string(name(t)));
  if (x.is_const()) return constant_of(t, convert(x.type(), t, scalar_of(*x)));
  const bool back = x.op() == Op::Cast && x->args[0].type() == t;  // to what it was widened from
  if (back && (t == DType::BF16 || t == DType::F16) && x.type() == DType::F32) return x->args[0];
  return node(Op::Cast, t, {std::move(x)});
}

Expr bitcast(DType t, Expr x) {
  if (x.type() == t) return x;
  if (bits(t) != bits(x.type()) || t == DType::Bool || x.type() == DType::Bool)
    bad_type("bitcast", "types of one width", std::string(name(x.type())) + " to " + std::string(name(t)));
  if (x.is_const())
    if (const auto s = reinterpret(x.type(), t, scalar_of(*x))) return constant_of(t, *s);
  if (x.op() == Op::Bitcast && x->args[0].type() == t) return x->args[0];
  return node(Op::Bitcast, t, {std::move(x)});
}

Expr load(const Buffer& b, Expr index) {
  if (index.type() != DType::I64)
    bad_type("load " + b->name, "an int64 index", std::string(name(index.type())));
  return fresh({.op = Op::Load, .type = b->dtype, .args = {std::move(index)}, .buffer = b});
}

Expr load(const Buffer& b, Expr index, Expr predicate, Expr otherwise) {
  if (index.type() != DType::I64)
    bad_type("load " + b->name, "an int64 index", std::string(name(index.type())));
  if (predicate.type() != DType::Bool)
    bad_type("load " + b->name, "a bool predicate", std::string(name(predicate.type())));
  if (otherwise.is_const() && otherwise.type() != b->dtype)
    otherwise = constant_of(b->dtype, convert(otherwise.type(), b->dtype, scalar_of(*otherwise)));
  if (otherwise.type() != b->dtype)
    bad_type("load " + b->name, "`otherwise` of " + std::string(name(b->dtype)),
             std::string(name(otherwise.type())));
  if (const auto p = predicate.int_value()) return *p ? load(b, std::move(index)) : otherwise;
  return fresh({.op = Op::Load,
                .type = b->dtype,
                .args = {std::move(index), std::move(predicate), std::move(otherwise)},
                .buffer = b});
}

Expr reduce(Reducer r, std::vector<Axis> axes, Expr body) {
  const DType t = combine(r, body, body).type();  // checks that the reducer takes the type
  if (axes.empty()) return body;
  for (const Axis& a : axes)
    if (a.var->dtype != DType::I64 || a.extent.type() != DType::I64)
      bad_type("reduce", "int64 axes", std::string(name(a.var->dtype)));
  return fresh({.op = Op::Reduce,
                .type = t,
                .args = {std::move(body)},
                .reduction = std::make_shared<const Reduction>(Reduction{r, std::move(axes)})});
}

Expr combine(Reducer r, Expr a, Expr b) {
  constexpr Op ops[] = {Op::Add, Op::Mul, Op::Min, Op::Max, Op::And, Op::Or};
  return make(ops[static_cast<int>(r)], {std::move(a), std::move(b)});
}

Expr operator+(Expr a, Expr b) { return make(Op::Add, {std::move(a), std::move(b)}); }
Expr operator-(Expr a, Expr b) { return make(Op::Sub, {std::move(a), std::move(b)}); }
Expr operator*(Expr a, Expr b) { return make(Op::Mul, {std::move(a), std::move(b)}); }
Expr operator/(Expr a, Expr b) { return make(Op::Div, {std::move(a), std::move(b)}); }
Expr operator-(Expr a) { return make(Op::Neg, {std::move(a)}); }
Expr operator&&(Expr a, Expr b) { return make(Op::And, {std::move(a), std::move(b)}); }
Expr operator||(Expr a, Expr b) { return make(Op::Or, {std::move(a), std::move(b)}); }
Expr operator!(Expr a) { return make(Op::Not, {std::move(a)}); }
Expr operator==(Expr a, Expr b) { return make(Op::Eq, {std::move(a), std::move(b)}); }
Expr operator!=(Expr a, Expr b) { return make(Op::Ne, {std::move(a), std::move(b)}); }
Expr operator<(Expr a, Expr b) { return make(Op::Lt, {std::move(a), std::move(b)}); }
Expr operator<=(Expr a, Expr b) { return make(Op::Le, {std::move(a), std::move(b)}); }
Expr operator>(Expr a, Expr b) { return make(Op::Lt, {std::move(b), std::move(a)}); }
Expr operator>=(Expr a, Expr b) { return make(Op::Le, {std::move(b), std::move(a)}); }
Expr floordiv(Expr a, Expr b) { return make(Op::FloorDiv, {std::move(a), std::move(b)}); }
Expr mod(Expr a, Expr b) { return make(Op::Mod, {std::move(a), std::move(b)}); }
Expr min(Expr a, Expr b) { return make(Op::Min, {std::move(a), std::move(b)}); }
Expr max(Expr a, Expr b) { return make(Op::Max, {std::move(a), std::move(b)}); }
Expr select(Expr condition, Expr yes, Expr no) {
  return make(Op::Select, {std::move(condition), std::move(yes), std::move(no)});
}

Var make_var(std::string name, DType t) {
  return std::make_shared<const VarNode>(VarNode{.name = std::move(name), .dtype = t});
}

Var loop_var(std::string name, const Expr& extent) {
  VarNode v{.name = std::move(name), .dtype = DType::I64, .min = 0};
  if (const auto n = range(extent).max) v.max = *n - 1;
  if (!extent.is_const()) v.extent = extent;
  return std::make_shared<const VarNode>(std::move(v));
}

Buffer make_buffer(std::string name, DType t, Space space, Expr extent) {
  if (extent.type() != DType::I64)
    bad_type("buffer " + name, "an int64 extent", std::string(loops::name(Op::Const)));
  return std::make_shared<const BufferNode>(BufferNode{std::move(name), t, space, std::move(extent)});
}

}  // namespace deepseek::loops
