// Expressions: which shape a value has, and the index arithmetic that keeps it scalar.
#include <llvm/IR/Constants.h>
#include <llvm/IR/DerivedTypes.h>
#include <llvm/IR/Intrinsics.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

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

constexpr std::size_t kCostlyArm = 40;  // operations: take longer than a branch that is guessed wrong

bool has_operations(const Expr& e, std::size_t least) {
  std::unordered_set<const loops::ExprNode*> seen;
  const std::function<void(const Expr&)> count = [&](const Expr& x) {
    if (x->args.empty() || seen.size() > least || !seen.insert(x.get()).second) return;
    for (const Expr& a : x->args) count(a);
  };
  count(e);
  return seen.size() > least;
}

std::optional<std::int64_t> constant_int(const llvm::Value* v) {
  const auto* c = llvm::dyn_cast<ConstantInt>(v);
  return c && c->getBitWidth() <= 64 ? std::optional(c->getSExtValue()) : std::nullopt;
}

// Known to lie in [0, 2^31): 32-bit division is quicker, and exists for vectors by constants.
bool fits_31_bits(const Expr& e) {
  const loops::Range r = loops::range(e);
  return r.min && r.max && *r.min >= 0 && *r.max < (std::int64_t{1} << 31);
}

// uint8(round(x) + zero), which is how floats are quantised; zero is a whole number that floats hold.
struct Quantised {
  Expr x;
  double zero = 0;
};

std::optional<Quantised> quantised(const loops::ExprNode& e) {
  constexpr double kLargestZero = 1 << 16;
  Expr x = e.args[0];
  double zero = 0;
  if (e.type != DType::U8 || x.type() != DType::F32) return std::nullopt;
  if (x.op() == Op::Add && x->args[1].is_const()) {
    zero = std::get<double>(x->args[1]->value);
    x = x->args[0];
  }
  if (x.op() != Op::Round || zero != std::trunc(zero) || std::abs(zero) > kLargestZero) return std::nullopt;
  return Quantised{x->args[0], zero};
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
      return emit_choice(e);
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
      if (const auto q = machine_.gpu ? std::nullopt : quantised(*e)) {
        // What lies within the bounds is rounded when it becomes an integer. NaN becomes 0 as well.
        constexpr double kLargestByte = 255;
        const std::array rounded{emit(q->x)};
        return apply(rounded, [&](auto v) {
          llvm::Type *floats = v[0]->getType(), *words = shaped(b_.getInt32Ty(), v[0]);
          llvm::Value *low = llvm::ConstantFP::get(floats, -q->zero),
                      *high = llvm::ConstantFP::get(floats, kLargestByte - q->zero);
          llvm::Value* x = b_.CreateSelect(b_.CreateFCmpOGT(v[0], low), v[0], low);
          x = b_.CreateSelect(b_.CreateFCmpOLT(x, high), x, high);
          x = b_.CreateIntrinsic(llvm::Intrinsic::lrint, {words, floats}, {x});
          x = b_.CreateAdd(x, ConstantInt::getSigned(words, static_cast<std::int64_t>(q->zero)));
          return b_.CreateTrunc(x, shaped(b_.getInt8Ty(), x));
        });
      }
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

Val Emitter::emit_select(const Val& c, const Val& x, const Val& y) {
  if (c.uniform() && !(x.uniform() && y.uniform()))
    return {b_.CreateSelect(c.v, vec(x), vec(y)), Shape::Varying};
  const std::array args{c, x, y};
  return apply(args, [&](auto v) { return b_.CreateSelect(v[0], v[1], v[2]); });
}

// Selects of the statement by one condition, which are to share a branch. Beside a constant, or the argument itself, an arm
// is what most lanes want: those are special values.
std::vector<Expr> Emitter::choices_by(const Expr& condition, std::size_t arm) const {
  const auto is_choice = [&](const Expr& x) {
    return x.op() == Op::Select && x->args[0].get() == condition.get();
  };
  std::vector<Expr> found;
  for (const Expr& root : roots_)
    loops::visit(root, [&](const Expr& x) {
      if (!is_choice(x) || memo_.contains(x.get()) || choosing_.contains(x.get())) return;
      Expr other = x->args[3 - arm];
      while (other.op() == Op::Cast) other = other->args[0];
      bool alone = !other->args.empty() && other.op() != Op::Load;
      for (const std::size_t i : {1, 2})
        loops::visit(x->args[i], [&](const Expr& inside) { alone = alone && !is_choice(inside); });
      if (alone) found.push_back(x);
    });
  return found;
}

// Whether the arms need so many operations, which nothing else does, that a branch around them costs less.
bool Emitter::are_costly(std::span<const Expr> choices, std::size_t arm) const {
  std::unordered_set<const loops::ExprNode*> seen, chosen;
  for (const Expr& x : choices) chosen.insert(x.get());
  std::size_t cost = 0;
  const std::function<void(const Expr&, bool)> count = [&](const Expr& x, bool counts) {
    if (x->args.empty() || memo_.contains(x.get()) || !seen.insert(x.get()).second) return;
    cost += counts ? 1 : 0;
    for (std::size_t i = 0; i < x->args.size(); ++i)
      if (i != arm || !chosen.contains(x.get())) count(x->args[i], counts);
  };
  for (const Expr& root : roots_) count(root, false);
  for (const Expr& x : choices) count(x->args[arm], true);
  return cost > kCostlyArm;
}

Val Emitter::emit_choice(const Expr& e) {
  const Val condition = emit(e->args[0]);
  if (lanes_ > 1 && !condition.uniform()) {
    for (const std::size_t arm : {1, 2}) {
      if (!has_operations(e->args[arm], kCostlyArm)) continue;
      const std::vector<Expr> choices = choices_by(e->args[0], arm);
      const bool found =
          std::any_of(choices.begin(), choices.end(), [&](const Expr& x) { return x.get() == e.get(); });
      if (!found || !are_costly(choices, arm)) continue;
      emit_where_wanted(condition.v, choices, arm);
      return memo_.at(e.get()).second;
    }
  }
  const Val yes = emit(e->args[1]), no = emit(e->args[2]);
  return emit_select(condition, yes, no);
}

void Emitter::emit_where_wanted(llvm::Value* lanes, std::span<const Expr> choices, std::size_t arm) {
  std::vector<llvm::Value*> cheap, results;
  for (const Expr& x : choices) choosing_.insert(x.get());
  for (const Expr& x : choices) cheap.push_back(vec(emit(x->args[3 - arm])));
  if (arm == 2) lanes = b_.CreateNot(lanes);
  auto& context = module_.getContext();
  auto* inside = llvm::BasicBlock::Create(context, "wanted", frame_.function);
  auto* after = llvm::BasicBlock::Create(context, "chosen", frame_.function);
  llvm::Value* wanted = any(select_mask(mask_, lanes));
  llvm::BasicBlock* before = b_.GetInsertBlock();
  b_.CreateCondBr(wanted, inside, after);
  b_.SetInsertPoint(inside);
  auto known = memo_;  // holds after the branch as well
  for (std::size_t i = 0; i < choices.size(); ++i)
    results.push_back(b_.CreateSelect(lanes, vec(emit(choices[i]->args[arm])), cheap[i]));
  llvm::BasicBlock* end = b_.GetInsertBlock();
  b_.CreateBr(after);
  b_.SetInsertPoint(after);
  memo_ = std::move(known);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    llvm::PHINode* phi = b_.CreatePHI(cheap[i]->getType(), 2);
    phi->addIncoming(cheap[i], before);
    phi->addIncoming(results[i], end);
    memo_.emplace(choices[i].get(), std::pair(choices[i], Val{phi, Shape::Varying}));
    choosing_.erase(choices[i].get());
  }
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
