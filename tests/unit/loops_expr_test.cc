#include <gtest/gtest.h>

#include <limits>

#include "deepseek/error.h"
#include "loops/ir.h"
#include "loops/simplify.h"

namespace deepseek::loops {
namespace {

Expr in(const char* name, std::int64_t extent) { return var(loop_var(name, extent)); }

TEST(LoopsExpr, LiteralsTakeTheOtherType) {
  const Expr x = var(make_var("x", DType::F32));
  EXPECT_EQ((x + 1).type(), DType::F32);
  EXPECT_EQ((2.5 * x).type(), DType::F32);
  EXPECT_EQ(print(x + 1), "x + 1.0f");
  EXPECT_EQ(print(select(x < 0, 0.0, x)), "select(x < 0.0f, 0.0f, x)");
  EXPECT_THROW(var(make_var("i", DType::I32)) + 0.5, Error);
}

TEST(LoopsExpr, TypesAreChecked) {
  const Expr x = var(make_var("x", DType::F32)), i = var(make_var("i", DType::I32)),
             b = var(make_var("b", DType::Bool));
  EXPECT_THROW(x + i, Error);
  EXPECT_THROW(x && x, Error);
  EXPECT_THROW(b + b, Error);
  EXPECT_THROW(make(Op::Exp, {i}), Error);
  EXPECT_THROW(make(Op::Add, {x}), Error);
  EXPECT_THROW(select(x, x, x), Error);
  EXPECT_THROW(bitcast(DType::F64, x), Error);
  EXPECT_THROW(var(make_var("q", DType::I4)) + var(make_var("r", DType::I4)), Error);
  const Buffer a = make_buffer("a", DType::F32, Space::Global, 10);
  EXPECT_THROW(load(a, i), Error);
  EXPECT_EQ(load(a, 3).type(), DType::F32);
  EXPECT_EQ(print(load(a, 3, b, 0)), "a[3 if b else 0.0f]");
}

TEST(LoopsExpr, ConstantsFold) {
  EXPECT_EQ((Expr(7) / Expr(-2)).int_value(), -3);
  EXPECT_EQ(floordiv(7, -2).int_value(), -4);
  EXPECT_EQ(mod(7, -2).int_value(), -1);
  EXPECT_EQ((Expr(7) / Expr(0)).int_value(), 0);
  EXPECT_EQ((constant(DType::U8, 250.0) + constant(DType::U8, 10.0)).int_value(), 4);
  EXPECT_EQ(cast(DType::I8, constant(DType::F32, 1e9)).int_value(), 127);
  EXPECT_EQ(cast(DType::I8, constant(DType::F32, std::numeric_limits<double>::quiet_NaN())).int_value(), 0);
  EXPECT_EQ(make(Op::Shl, {Expr(1), Expr(64)}).int_value(), 0);
  EXPECT_EQ(make(Op::Shr, {Expr(-5), Expr(64)}).int_value(), -1);
  EXPECT_EQ(print(constant(DType::BF16, 1.001)), "1.0:bfloat16");
  EXPECT_EQ(print(make(Op::Round, {Expr(2.5)})), "2.0");
  EXPECT_EQ(print(max(constant(DType::F32, std::numeric_limits<double>::quiet_NaN()), 1.0)), "nan:float32");
  EXPECT_EQ(bitcast(DType::I32, constant(DType::F32, 1.0)).int_value(), 0x3f800000);
  EXPECT_EQ(print(identity(Reducer::Max, DType::F32)), "-inf:float32");
  EXPECT_EQ(identity(Reducer::Min, DType::I16).int_value(), 32767);
}

TEST(LoopsExpr, SumsAreCollected) {
  const Expr i = in("i", 10), j = in("j", 4);
  EXPECT_EQ(print((i * 4 + 2) + (i + 3)), "i * 5 + 5");
  EXPECT_EQ(print((i + j) * 4 - j), "i * 4 + j * 3");
  EXPECT_EQ((i + 2 - i).int_value(), 2);
  EXPECT_EQ(print(i + 0), "i");
  EXPECT_EQ(print(i * 1), "i");
  EXPECT_EQ((i * 0).int_value(), 0);
  const Expr k = var(make_var("k", DType::I32));
  EXPECT_EQ(print((k + 3) + 4), "k + 7:int32");
  EXPECT_EQ(print(k - k), "0:int32");
}

TEST(LoopsExpr, DivisionsOfWhatIsInside) {
  const Expr i = in("i", 10), j = in("j", 4), k = in("k", 3);
  EXPECT_EQ(print(floordiv(i * 4 + j, 4)), "i");
  EXPECT_EQ(print(mod(i * 4 + j, 4)), "j");
  EXPECT_EQ(print(floordiv(j, 4)), "0");
  EXPECT_EQ(print(mod(j, 4)), "j");
  EXPECT_EQ(print((i * 4 + j) / 4), "i");
  EXPECT_EQ(print(floordiv((i * 4 + j) * 3 + k, 12)), "i");
  EXPECT_EQ(print(mod(floordiv((i * 4 + j) * 3 + k, 3), 4)), "j");
  EXPECT_EQ(print(floordiv(floordiv(i, 2), 3)), "i // 6");
  EXPECT_EQ(print(floordiv(i, 4) * 4 + mod(i, 4)), "i");
  EXPECT_EQ(print(floordiv(i, 6) * 6 + mod(floordiv(i, 2), 3) * 2 + mod(i, 2)), "i");
  EXPECT_EQ(print(floordiv(i * 4 + j, 8)), "i // 2");
  EXPECT_EQ(print(mod(i * 4 + j, 8)), "i % 2 * 4 + j");
  EXPECT_EQ(print(floordiv(i + 4, 4)), "i // 4 + 1");
  EXPECT_EQ(print(mod(mod(i, 6), 3)), "i % 3");
  EXPECT_EQ(print(floordiv(i - 1, 4)), "(i - 1) // 4");  // may be negative: stays
}

TEST(LoopsExpr, SymbolicExtents) {
  const Expr n = symbol("N"), m = symbol("M");
  const Expr i = var(loop_var("i", m)), j = var(loop_var("j", n)), f = var(loop_var("f", m * n));
  EXPECT_EQ(print(floordiv(i * n + j, n)), "i");
  EXPECT_EQ(print(mod(i * n + j, n)), "j");
  EXPECT_EQ(print(floordiv(f, n) * n + mod(f, n)), "f");
  EXPECT_EQ((i < m).int_value(), 1);
  EXPECT_EQ((i * n + j < m * n).int_value(), 1);
  EXPECT_EQ((floordiv(f, n) < m).int_value(), 1);
  EXPECT_EQ((mod(f, n) < n).int_value(), 1);
  EXPECT_EQ((i < n).int_value(), std::nullopt);
  EXPECT_EQ(print(floordiv(n * m, n)), "$N * $M // $N");  // N may be 0
  EXPECT_EQ(print(min(i, m)), "i");
}

TEST(LoopsExpr, ComparisonsByBounds) {
  const Expr i = in("i", 10);
  EXPECT_EQ((i < 10).int_value(), 1);
  EXPECT_EQ((i >= 0).int_value(), 1);
  EXPECT_EQ((i == 10).int_value(), 0);
  EXPECT_EQ((i < 9).int_value(), std::nullopt);
  EXPECT_EQ(print(max(i, 0)), "i");
  EXPECT_EQ(print(min(i, 20)), "i");
  EXPECT_EQ(print(select(i < 10, i, 0)), "i");
  EXPECT_EQ((symbol("N") >= 0).int_value(), 1);
  const Expr data = var(make_var("d"));  // unbounded: may wrap
  EXPECT_EQ((data < data + 1).int_value(), std::nullopt);
}

TEST(LoopsExpr, FloatsKeepTheirZeros) {
  const Expr x = var(make_var("x", DType::F32));
  EXPECT_EQ(print(x + 0.0), "x + 0.0f");
  EXPECT_EQ(print(x * 0.0), "x * 0.0f");
  EXPECT_EQ(print(x - x), "x - x");
  EXPECT_EQ(print(x * 1.0), "x");
  EXPECT_EQ(print(x + -0.0), "x");
  EXPECT_EQ(print(!(x < 1)), "!(x < 1.0f)");
}

TEST(LoopsExpr, WalksAndRewrites) {
  const Var i = loop_var("i", 10), j = loop_var("j", 10);
  const Expr e = var(i) * 4 + var(j);
  EXPECT_TRUE(same(e, var(i) * 4 + var(j)));
  EXPECT_FALSE(same(e, var(j) * 4 + var(i)));
  EXPECT_TRUE(uses(e, i));
  const Var from[] = {i};
  const Expr to[] = {Expr(2)};
  EXPECT_EQ(print(substitute(e, from, to)), "j + 8");
  EXPECT_EQ(coefficient(e, i)->int_value(), 4);
  EXPECT_EQ(coefficient(e, loop_var("k", 3))->int_value(), 0);
  EXPECT_EQ(coefficient(var(i) * var(i), i), std::nullopt);
  EXPECT_EQ(print(*coefficient((var(i) * symbol("N") + 3) * symbol("M"), i)), "$N * $M");
  int nodes = 0;
  visit(e, [&](const Expr&) { ++nodes; });
  EXPECT_EQ(nodes, 5);
}

TEST(LoopsExpr, Reductions) {
  const Var k = loop_var("k", symbol("K"));
  const Buffer a = make_buffer("a", DType::F32, Space::Global, symbol("K"));
  const Expr r = reduce(Reducer::Sum, {{k, symbol("K")}}, load(a, var(k)));
  EXPECT_EQ(print(r), "reduce.sum(k < $K: a[k])");
  EXPECT_EQ(r.type(), DType::F32);
  EXPECT_THROW(reduce(Reducer::Sum, {{k, symbol("K")}}, var(k) < 3), Error);
}

TEST(LoopsStmt, BlocksFlattenAndPrint) {
  const Buffer x = make_buffer("x", DType::F32, Space::Global, symbol("N"));
  const Buffer y = make_buffer("y", DType::F32, Space::Global, symbol("N"));
  const Var i = loop_var("i", symbol("N")), t = make_var("t", DType::F32);
  const Stmt body =
      block({stmt(Let{t, load(x, var(i))}), nullptr, block({stmt(Store{y, var(i), max(var(t), 0), {}})})});
  ASSERT_TRUE(as<Block>(body));
  EXPECT_EQ(as<Block>(body)->stmts.size(), 2U);
  Program p{.name = "relu",
            .params = {{x, Access::Read}, {y, Access::Write}},
            .body = stmt(For{i, symbol("N"), LoopKind::Parallel, body})};
  p.symbols = collect_symbols(p);
  EXPECT_EQ(p.symbols, std::vector<std::string>{"N"});
  EXPECT_EQ(print(p),
            "program relu\n"
            "param read x: float32[$N]\n"
            "param write y: float32[$N]\n"
            "parallel i < $N {\n"
            "  let t: float32 = x[i]\n"
            "  y[i] = max(t, 0.0f)\n"
            "}\n");
  int exprs = 0;
  visit_stmts(p.body, [&](const Stmt& s) { visit_exprs(s, [&](const Expr&) { ++exprs; }); });
  EXPECT_EQ(exprs, 4);
}

}  // namespace
}  // namespace deepseek::loops
