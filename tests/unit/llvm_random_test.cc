// Random programs: what LLVM makes of them equals what the interpreter gives, bit for bit (NaN is NaN, -0 is 0).
#include <gtest/gtest.h>

#include <algorithm>

#include "loops/interpreter.h"
#include "support/compare_kernels.h"
#include "support/isas.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"
#include "targets/llvm/object.h"

namespace deepseek {
namespace {

using namespace loops;
using testing::draw_elements;
using testing::expect_same;
using testing::GuardedMemory;
using testing::Random;
using testing::run_kernel;

constexpr DType kTypes[] = {DType::Bool,       DType::I8,         DType::U8,    DType::I16,    DType::U16,
                            DType::I32,        DType::U32,        DType::I64,   DType::U64,    DType::F16,
                            DType::BF16,       DType::F32,        DType::F64,   DType::F8E4M3, DType::F8E5M2,
                            DType::F8E4M3FNUZ, DType::F8E5M2FNUZ, DType::F8E8M0};

template <class T>
const T& pick(Random& r, const T* begin, std::size_t n) {
  return begin[r() % n];
}

// Draws expressions of a wanted type over the elements at one index.
class Expressions {
 public:
  Expressions(Random& r, std::vector<Buffer> inputs, Expr index)
      : r_(r), inputs_(std::move(inputs)), index_(std::move(index)) {}

  Expr draw(DType t, int depth) {
    if (depth == 0 || r_() % 8 == 0) return leaf(t);
    const auto sub = [&](DType s) { return draw(s, depth - 1); };
    switch (r_() % 6) {
      case 0:
        return select(sub(DType::Bool), sub(t), sub(t));
      case 1:
        return cast(t, sub(pick(r_, kTypes, std::size(kTypes))));
      case 2:
        if (t == DType::Bool) return compare(depth);
        return make(unary(t), {sub(t)});
      case 3:
        if (is_float(t) && bits(t) >= 32) return make(Op::Fma, {sub(t), sub(t), sub(t)});
        [[fallthrough]];
      default: {
        if (t == DType::Bool && r_() % 2 == 0) return compare(depth);
        return make(binary(t), {sub(t), sub(t)});
      }
    }
  }

 private:
  Expr leaf(DType t) {
    if (r_() % 4 == 0)
      return is_float(t)        ? constant(t, static_cast<double>(r_() % 9) - 4)
             : t == DType::Bool ? constant(t, static_cast<std::int64_t>(r_() % 2))
                                : constant(t, static_cast<std::int64_t>(r_() % 9));
    for (const Buffer& b : inputs_)
      if (b->dtype == t) return load(b, index_);
    return cast(t, index_);
  }
  Expr compare(int depth) {
    static constexpr Op kOps[] = {Op::Eq, Op::Ne, Op::Lt, Op::Le};
    const DType t = pick(r_, kTypes, std::size(kTypes));
    if (is_float(t) && r_() % 4 == 0) return make(r_() % 2 ? Op::IsNan : Op::IsInf, {draw(t, depth - 1)});
    return make(pick(r_, kOps, std::size(kOps)), {draw(t, depth - 1), draw(t, depth - 1)});
  }
  Op unary(DType t) {
    static constexpr Op kFloat[] = {Op::Neg, Op::Abs, Op::Floor, Op::Ceil, Op::Trunc, Op::Round, Op::Sqrt};
    static constexpr Op kInteger[] = {Op::Neg, Op::Abs, Op::Not};
    return is_float(t) ? pick(r_, kFloat, std::size(kFloat)) : pick(r_, kInteger, std::size(kInteger));
  }
  Op binary(DType t) {
    static constexpr Op kFloat[] = {Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Min, Op::Max};
    static constexpr Op kBool[] = {Op::And, Op::Or, Op::Xor};
    static constexpr Op kInteger[] = {Op::Add, Op::Sub, Op::Mul, Op::Div, Op::FloorDiv, Op::Rem, Op::Mod,
                                      Op::Min, Op::Max, Op::And, Op::Or,  Op::Xor,      Op::Shl, Op::Shr};
    if (t == DType::Bool) return pick(r_, kBool, std::size(kBool));
    return is_float(t) ? pick(r_, kFloat, std::size(kFloat)) : pick(r_, kInteger, std::size(kInteger));
  }

  Random& r_;
  std::vector<Buffer> inputs_;
  Expr index_;
};

class LlvmRandom : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { target_ = cpu_target(GetParam()); }

  // Runs p, whose symbols are all n, at several n.
  void compare(const Program& p, Random& r, std::initializer_list<std::int64_t> sizes, double tolerance = 0) {
    verify(p);
    const auto reference = interpret(p), kernel = target_->compile({&p, 1})[0];
    for (const std::int64_t n : sizes) {
      std::vector<std::vector<std::byte>> data;
      const std::vector<std::int64_t> dims(p.symbols.size(), n);
      for (const Param& param : p.params)
        data.push_back(
            draw_elements(r, param.buffer->dtype, evaluate(param.buffer->extent, p.symbols, dims)));
      const auto want = run_kernel(*reference, p, data, dims);
      for (const auto side : {Guard::End, Guard::Begin})
        expect_same(p, run_kernel(*kernel, p, data, dims, side), want, GetParam(), tolerance);
    }
  }

  std::shared_ptr<Target> target_;
};
INSTANTIATE_TEST_SUITE_P(, LlvmRandom, ::testing::ValuesIn(testing::vector_isas()),
                         [](const auto& info) { return info.param; });

TEST_P(LlvmRandom, ExpressionsOfEveryType) {
  Random r(7);
  for (const DType t : kTypes)
    for (int round = 0; round < 3; ++round) {
      const Expr n = symbol("n");
      std::vector<Param> params;
      std::vector<Buffer> inputs;
      for (const DType in : kTypes) {
        inputs.push_back(make_buffer("in_" + std::string(name(in)), in, Space::Global, n));
        params.push_back({inputs.back(), Access::Read});
      }
      const Buffer out = make_buffer("out", t, Space::Global, n);
      params.push_back({out, Access::Write});
      const Var i = loop_var("i", n);
      Expressions expressions(r, inputs, var(i));
      const Stmt body = stmt(Store{out, var(i), expressions.draw(t, 4), {}});
      const Program p{"expression", params, {"n"}, {}, stmt(For{i, n, LoopKind::Vector, body})};
      compare(p, r, {1, 37, 96});
      if (HasFatalFailure()) return;
    }
}

// The functions that have no instruction, over the whole range of their type. Where results are compared with the
// C library's, the loop functions' own tests bound the error far closer.
TEST_P(LlvmRandom, FunctionsWithoutInstructions) {
  Random r(11);
  static constexpr Op kUnary[] = {Op::Exp,  Op::Expm1,   Op::Log,    Op::Log1p, Op::Sin,   Op::Cos,
                                  Op::Tan,  Op::Asin,    Op::Acos,   Op::Atan,  Op::Sinh,  Op::Cosh,
                                  Op::Tanh, Op::Sigmoid, Op::Asinh,  Op::Acosh, Op::Atanh, Op::Erf,
                                  Op::Erfc, Op::LGamma,  Op::Digamma};
  static constexpr Op kBinary[] = {Op::Pow, Op::Atan2, Op::Rem, Op::Mod, Op::FloorDiv};
  for (const DType t : {DType::F32, DType::F64, DType::BF16}) {
    const Expr n = symbol("n");
    const Buffer x = make_buffer("x", t, Space::Global, n), y = make_buffer("y", t, Space::Global, n);
    const Var i = loop_var("i", n);
    // Within [-16, 16], where the C library's error and ours are small.
    const Expr a = load(x, var(i));
    const Expr tame = select(make(Op::Abs, {a}) <= constant(t, 16.0), a, constant(t, 0.75));
    std::vector<Stmt> body;
    std::vector<Param> params{{x, Access::Read}};
    const auto output = [&](const Expr& value, Op op) {
      params.push_back({make_buffer(std::string(name(op)), t, Space::Global, n), Access::Write});
      body.push_back(stmt(Store{params.back().buffer, var(i), value, {}}));
    };
    // The interpreter's digamma is inexact beside its pole at 0.
    const Expr off_pole = select(make(Op::Abs, {tame}) >= constant(t, 0.01), tame, constant(t, 0.75));
    for (const Op op : kUnary) output(make(op, {op == Op::Digamma ? off_pole : tame}), op);
    for (const Op op : kBinary) output(make(op, {tame, constant(t, 1.5)}), op);
    const Program p{"functions", params, {"n"}, {}, stmt(For{i, n, LoopKind::Vector, block(body)})};
    compare(p, r, {100, 7}, t == DType::BF16 ? 1e-2 : t == DType::F32 ? 1e-5 : 1e-12);
  }
}

// Views of a tensor (transposed, reversed, shifted with padding, strided, repeated) by index arithmetic of all kinds.
class Views {
 public:
  explicit Views(Random& r) : r_(r) {}

  Program draw() {
    static constexpr std::int64_t kDims[] = {1, 2, 3, 5, 7, 8, 14, 16, 32, 48};
    dims_.clear();
    for (std::size_t i = 0, rank = 1 + r_() % 3; i < rank; ++i)
      dims_.push_back(pick(r_, kDims, std::size(kDims)));
    std::int64_t n = 1;
    for (const std::int64_t d : dims_) n *= d;
    // The output is walked by a flat vector index, or by rows with the vector loop inside.
    const std::int64_t rows = r_() % 2 == 0 ? 1 : dims_[0];
    const Var row = loop_var("row", rows), lane = loop_var("lane", n / rows);
    const Expr flat = var(row) * (n / rows) + var(lane);
    std::vector<Stmt> body;
    std::vector<Expr> coords;
    Expr rest = flat;
    for (std::size_t i = dims_.size(); i-- > 0;) {
      Expr c = i == 0 ? rest : mod(rest, dims_[i]);
      rest = floordiv(rest, dims_[i]);
      if (r_() % 2 == 0) {
        const Var let = make_var("c" + std::to_string(i));
        body.push_back(stmt(Let{let, c}));
        c = var(let);
      }
      coords.insert(coords.begin(), c);
    }
    const Buffer out = make_buffer("out", DType::I32, Space::Global, n);
    std::vector<Param> params;
    Expr value = constant(DType::I32, std::int64_t{1});
    for (int operand = 0; operand < 2; ++operand)
      value = value * Expr(constant(DType::I32, std::int64_t{31})) + view(params, coords);
    params.push_back({out, Access::Write});
    body.push_back(stmt(Store{out, flat, value, {}}));
    return {
        "views",
        params,
        {},
        {},
        stmt(For{row, rows, LoopKind::Parallel, stmt(For{lane, n / rows, LoopKind::Vector, block(body)})})};
  }

 private:
  // An element of a new input at coordinates that derive from `coords`.
  Expr view(std::vector<Param>& params, const std::vector<Expr>& coords) {
    std::vector<std::size_t> order(coords.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), r_);
    Expr index = 0, inside;
    std::int64_t extent = 1;
    const auto limit = [&](const Expr& condition) { inside = inside ? inside && condition : condition; };
    for (const std::size_t axis : order) {
      Expr c = coords[axis];
      std::int64_t d = dims_[axis];
      switch (r_() % 6) {
        case 0:
          c = Expr(d - 1) - c;
          break;
        case 1: {
          const std::int64_t by = static_cast<std::int64_t>(r_() % 5) - 2;
          c = c + by;
          limit(c >= 0);
          limit(c < d);
          break;
        }
        case 2: {
          const auto stride = static_cast<std::int64_t>(1 + r_() % 3);
          c = c * stride;
          d = (d - 1) * stride + 1;
          break;
        }
        case 3: {
          const auto repeat = static_cast<std::int64_t>(1 + r_() % 4);
          c = floordiv(c, repeat);
          d = (d + repeat - 1) / repeat;
          break;
        }
        default:
          break;
      }
      index = index * d + c;
      extent *= d;
    }
    const Buffer in = make_buffer("in" + std::to_string(params.size()), DType::I32, Space::Global, extent);
    params.push_back({in, Access::Read});
    return inside ? load(in, index, inside, constant(DType::I32, std::int64_t{-5})) : load(in, index);
  }

  Random& r_;
  std::vector<std::int64_t> dims_;
};

TEST_P(LlvmRandom, ViewsOfTensors) {
  Random r(5);
  Views views(r);
  for (int round = 0; round < 60; ++round) {
    compare(views.draw(), r, {0});
    if (HasFatalFailure()) return;
  }
}

// No instruction set may make the code generator call a library; AArch64's objects are checked without running them.
TEST(LlvmImports, NoneOnAnyInstructionSet) {
  Random r(9);
  for (const char* isa : {"amx", "avx512_bf16", "avx512", "avx2", "neon"})
    for (const DType t : kTypes) {
      const Expr n = symbol("n");
      std::vector<Param> params;
      std::vector<Buffer> inputs;
      for (const DType in : kTypes) {
        inputs.push_back(make_buffer("in_" + std::string(name(in)), in, Space::Global, n));
        params.push_back({inputs.back(), Access::Read});
      }
      const Buffer out = make_buffer("out", t, Space::Global, n);
      params.push_back({out, Access::Write});
      const Var i = loop_var("i", n);
      Expressions expressions(r, inputs, var(i));
      const Program p{
          "expression",
          params,
          {"n"},
          {},
          stmt(For{i, n, LoopKind::Vector, stmt(Store{out, var(i), expressions.draw(t, 5), {}})})};
      EXPECT_EQ(codegen::imported_symbols(codegen::compile_object(p, cpu_isa(isa).machine)),
                std::vector<std::string>{});
    }
}

}  // namespace
}  // namespace deepseek
