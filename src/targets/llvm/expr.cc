// Expressions: which shape a value has, and the index arithmetic that keeps it scalar.
#include <llvm/IR/Constants.h>
#include <llvm/IR/DerivedTypes.h>
#include <llvm/IR/Intrinsics.h>

#include <array>
#include <numeric>

#include "deepseek/error.h"
#include "loops/convert.h"
#include "loops/simplify.h"
#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::ConstantFP;
using llvm::ConstantInt;
using loops::Expr;
using loops::Op;
using Shape = Val::Shape;

namespace {

std::optional<std::int64_t> constant_int(const llvm::Value* v) {
  const auto* c = llvm::dyn_cast<ConstantInt>(v);
  return c && c->getBitWidth() <= 64 ? std::optional(c->getSExtValue()) : std::nullopt;
}

// Known to lie in [0, 2^31): 32-bit division is quicker, and exists for vectors by constants.
bool fits_31_bits(const Expr& e) {
  const loops::Range r = loops::range(e);
  return r.min && r.max && *r.min >= 0 && *r.max < (std::int64_t{1} << 31);
}

}  // namespace

llvm::Value* Emitter::emit_scalar(const Expr& e) {
  const Val v = emit(e);
  check(v.uniform(), "codegen: a value that must agree in all lanes");
  return v.v;
}

Val Emitter::emit(const Expr& e) {
  if (const auto it = memo_.find(e.get()); it != memo_.end()) return it->second.second;
  const Val v = emit_new(e);
  memo_.emplace(e.get(), std::pair(e, v));
  return v;
}

Val Emitter::emit_constant(const loops::ExprNode& e) {
  llvm::Type* t = type(e.type);
  if (const auto* i = std::get_if<std::int64_t>(&e.value))
    return {ConstantInt::get(t, static_cast<std::uint64_t>(*i), true), Shape::Uniform, 0,
            Congruence::exactly(*i)};
  const double d = std::get<double>(e.value);
  if (t->isIntegerTy()) return {ConstantInt::get(t, loops::encode_narrow(e.type, static_cast<float>(d)))};
  return {ConstantFP::get(t, d)};
}

Val Emitter::emit_new(const Expr& e) {
  const auto arg = [&](std::size_t i) { return emit(e->args[i]); };
  switch (e->op) {
    case Op::Const:
      return emit_constant(*e);
    case Op::Var: {
      const auto it = vars_.find(e->var.get());
      check(it != vars_.end(), "codegen: a variable outside its scope");
      return it->second;
    }
    case Op::Symbol: {
      const auto it = symbols_.find(e->symbol);
      check(it != symbols_.end(), "codegen: an unknown symbol");
      return {it->second};
    }
    case Op::Load:
      return emit_load(*e);
    case Op::Select:
      return emit_select(e->type, arg(0), arg(1), arg(2));
    case Op::Fma: {
      const std::array args{arg(0), arg(1), arg(2)};
      return apply(args, [&](auto v) -> llvm::Value* {
        if (!is_float(e->type)) return b_.CreateAdd(b_.CreateMul(v[0], v[1]), v[2]);
        std::array<llvm::Value*, 3> w{widen(v[0], e->type), widen(v[1], e->type), widen(v[2], e->type)};
        llvm::Value* r = b_.CreateIntrinsic(llvm::Intrinsic::fma, {w[0]->getType()}, w);
        return e->type == DType::F32 || e->type == DType::F64 ? r : narrow(r, e->type);
      });
    }
    case Op::Cast: {
      const DType from = e->args[0].type();
      const std::array args{arg(0)};
      if (from == e->type) return args[0];
      return apply(args, [&](auto v) {
        // Lane numbers as floats: half the width, and an instruction on every machine.
        if (is_float(e->type) && from == DType::I64 && fits_31_bits(e->args[0]))
          return convert(b_.CreateTrunc(v[0], shaped(b_.getInt32Ty(), v[0])), DType::I32, e->type);
        return convert(v[0], from, e->type);
      });
    }
    case Op::Bitcast: {
      const std::array args{arg(0)};
      return apply(args, [&](auto v) { return b_.CreateBitCast(v[0], shaped(type(e->type), v[0])); });
    }
    case Op::Reduce:
      throw Error(Code::Internal, "codegen", "", "a program without Reduce", "one");
    default:
      break;
  }
  if (e->args.size() == 1) return emit_unary(e->op, e->args[0].type(), arg(0));
  const Val x = arg(0), y = arg(1);
  return emit_binary(e, x, y);
}

Val Emitter::emit_unary(Op op, DType t, const Val& x) {
  if (op == Op::Neg && x.shape == Shape::Linear)
    return {b_.CreateNeg(x.v), Shape::Linear, -x.stride, Congruence::exactly(0) - x.known};
  const std::array args{x};
  return apply(args, [&](auto v) { return unary(op, t, v[0]); });
}

Val Emitter::emit_select(DType t, const Val& c, const Val& x, const Val& y) {
  (void)t;
  if (c.uniform() && !(x.uniform() && y.uniform()))
    return {b_.CreateSelect(c.v, vec(x), vec(y)), Shape::Varying};
  const std::array args{c, x, y};
  return apply(args, [&](auto v) { return b_.CreateSelect(v[0], v[1], v[2]); });
}

Val Emitter::emit_binary(const Expr& e, const Val& x, const Val& y) {
  const DType t = e->args[0].type();
  const Op op = e->op;
  if (op == Op::Eq || op == Op::Ne || op == Op::Lt || op == Op::Le) return emit_compare(op, t, x, y);
  if (t == DType::I64)
    if (const Val r = linear_binary(e, x, y); r.v) return r;
  const bool small = t == DType::I64 && (op == Op::FloorDiv || op == Op::Mod) && fits_31_bits(e->args[0]) &&
                     fits_31_bits(e->args[1]);
  const std::array args{x, y};
  return apply(args, [&](auto v) -> llvm::Value* {
    if (small) {
      llvm::Type* i32 = shaped(b_.getInt32Ty(), v[0]);
      llvm::Value* q = divide(op, false, b_.CreateTrunc(v[0], i32), b_.CreateTrunc(v[1], i32));
      return b_.CreateZExt(q, v[0]->getType());
    }
    if ((op == Op::FloorDiv || op == Op::Mod) && t == DType::I64 && loops::always_nonnegative(e->args[0]) &&
        loops::always_positive(e->args[1]))
      return op == Op::FloorDiv ? b_.CreateUDiv(v[0], v[1]) : b_.CreateURem(v[0], v[1]);
    return binary(op, t, v[0], v[1]);
  });
}

Val Emitter::linear_binary(const Expr& e, const Val& x, const Val& y) {
  if (x.shape == Shape::Varying || y.shape == Shape::Varying) return {};
  const bool uniform = x.uniform() && y.uniform();
  const auto make = [](llvm::Value* v, std::int64_t stride, Congruence known) {
    return Val{v, stride == 0 ? Shape::Uniform : Shape::Linear, stride, known};
  };
  switch (e->op) {
    case Op::Add:
      return make(b_.CreateAdd(x.v, y.v), x.stride + y.stride, x.known + y.known);
    case Op::Sub:
      return make(b_.CreateSub(x.v, y.v), x.stride - y.stride, x.known - y.known);
    case Op::Mul: {
      if (uniform) return make(b_.CreateMul(x.v, y.v), 0, x.known * y.known);
      if (const auto c = constant_int(y.v); c && y.uniform())
        return make(b_.CreateMul(x.v, y.v), x.stride * *c, x.known * y.known);
      if (const auto c = constant_int(x.v); c && x.uniform())
        return make(b_.CreateMul(x.v, y.v), y.stride * *c, x.known * y.known);
      return {};
    }
    case Op::FloorDiv:
    case Op::Mod:
      return linear_divide(e->op, x, y);
    default:
      return {};
  }
}

// x // c and x % c for a constant c. The lanes of x lie at known + l*stride modulo g.
Val Emitter::linear_divide(Op op, const Val& x, const Val& y) {
  const auto c = constant_int(y.v);
  if (!y.uniform() || !c || *c <= 0) return {};
  const auto [g, first] = x.known.modulo(*c);
  const std::int64_t last = first + x.stride * (lanes_ - 1);
  const bool quotient = op == Op::FloorDiv, whole_strides = x.stride % *c == 0;
  // Each lane must be a whole number of divisors further, or all must lie between two multiples of g.
  if (!whole_strides && (x.stride < 0 || last >= g)) return {};
  const std::int64_t stride = quotient ? x.stride / *c : whole_strides ? 0 : x.stride;
  llvm::Value* v = nullptr;
  if (!quotient && g == *c)
    v = i64(first);
  else if (quotient && g == *c)  // exact: what neighbours share becomes one division
    v = divide(op, true, b_.CreateSub(x.v, i64(first)), y.v);
  else if (x.uniform())
    return {};
  else
    v = divide(op, true, x.v, y.v);
  return {v, stride == 0 ? Shape::Uniform : Shape::Linear, stride,
          quotient ? Congruence{} : Congruence::of(g, first)};
}

Val Emitter::emit_compare(Op op, DType t, const Val& x, const Val& y) {
  if (t == DType::I64 && lanes_ > 1)
    if (const Val r = linear_compare(op, x, y); r.v) return r;
  const std::array args{x, y};
  return apply(args, [&](auto v) { return compare(op, t, v[0], v[1]); });
}

// base + lane < bound as lane < bound - base, the right side clamped to where it matters: one comparison of
// 32-bit lanes.
Val Emitter::linear_compare(Op op, const Val& x, const Val& y) {
  const bool left = x.contiguous() && y.uniform(), right = y.contiguous() && x.uniform();
  if (!left && !right) return {};
  const Val& index = left ? x : y;
  const Val& bound = left ? y : x;
  llvm::Value* distance = b_.CreateBinaryIntrinsic(llvm::Intrinsic::ssub_sat, bound.v, index.v);
  distance = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, distance, i64(-1));
  distance = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, distance, i64(lanes_));
  llvm::Value* limit =
      b_.CreateVectorSplat(static_cast<unsigned>(lanes_), b_.CreateTrunc(distance, b_.getInt32Ty()));
  llvm::Value* lane = iota(b_.getInt32Ty());
  switch (op) {
    case Op::Eq:
      return {b_.CreateICmpEQ(lane, limit), Shape::Varying};
    case Op::Ne:
      return {b_.CreateICmpNE(lane, limit), Shape::Varying};
    case Op::Lt:
      return {left ? b_.CreateICmpSLT(lane, limit) : b_.CreateICmpSGT(lane, limit), Shape::Varying};
    default:
      return {left ? b_.CreateICmpSLE(lane, limit) : b_.CreateICmpSGE(lane, limit), Shape::Varying};
  }
}

}  // namespace deepseek::codegen
