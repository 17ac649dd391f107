#include <gtest/gtest.h>

#include "deepseek/error.h"
#include "loops/ir.h"
#include "loops/math.h"
#include "unit/loops_random.h"

namespace deepseek::loops {
namespace {

// Text of every statement and kind of expression, as print writes it.
const char* const kPrograms[] = {
    "program empty\n",
    "program relu\n"
    "param read x: float32[$N]\n"
    "param write y: float32[$N]\n"
    "parallel i < $N {\n"
    "  let a: float32 = x[i]\n"
    "  y[i] = max(a, 0.0f) when i != 3\n"
    "}\n",
    "program \"an odd name\"\n"
    "symbol $Unused\n"
    "message \"say \\\"no\\\"\\n\"\n"
    "param readwrite x: bfloat16[$\"a b\" * 2 + 4]\n"
    "param workspace w: int4[16]\n"
    "assert $\"a b\" % 3 == 0, 1\n"
    "while x[0] < 1.0:bfloat16 {\n"
    "  x[0] sum= 0.5:bfloat16\n"
    "}\n"
    "if true & !(x[1] == 2.0:bfloat16) {\n"
    "  w[0] = int4(3)\n"
    "} else {\n"
    "  w[1] = -8:int4\n"
    "  barrier\n"
    "}\n",
    "program expressions\n"
    "param read x: float32[8]\n"
    "param write y: float32[8]\n"
    "param write z: int32[8]\n"
    "serial i < 8 {\n"
    "  y[i] = select(x[i] < -inf:float32, fma(x[i], 2.5f, -1e-30f), neg(x[i if i < 3 | i // 2 == 2 else "
    "nan:float32]))\n"
    "  z[i] = bitcast.int32(x[i]) ^ (1:int32 << 3:int32 >> 2:int32 | -2147483648:int32 & 7:int32)\n"
    "  y[i - (2 - 1)] prod= float32(exp(float64(x[i])) + inf) when isnan(x[i]) & i >= 1\n"
    "}\n",
    "program tiles\n"
    "param read a: float32[64]\n"
    "param write c: float32[64]\n"
    "block b < 4 {\n"
    "  alloc s: float32[32] in shared\n"
    "  copy t: s[0; 8] = a[b * 16; 4], 2, 4\n"
    "  thread l < 32 {\n"
    "    alloc r: float32[2] in register\n"
    "    r[0] = s[l]\n"
    "    barrier\n"
    "  }\n"
    "  prefetch a[b * 16 + 99]\n"
    "  prefetch a[b * 16] near\n"
    "  wait t\n"
    "  tile ta: float32[4, 8]\n"
    "  tile tb: float32[8, 4]\n"
    "  tile tc: float32[4, 4]\n"
    "  fill tc = 0.0f\n"
    "  load ta = a[0; 8, 1; 4, 8]\n"
    "  load tb = a[0; 4, 1; 8, 4]\n"
    "  load tb = a[0; 8, 2; 8, 4] by 2\n"
    "  mma tc += ta * tb\n"
    "  map tc[i, j] as e = e * float32(i + j)\n"
    "  store tc[i_1 < 4, j_1 < 4] as e_1 {\n"
    "    c[b * 16 + i_1 * 4 + j_1] = e_1\n"
    "  }\n"
    "}\n"
    "vector v < 8 {\n"
    "  c[0] max= a[v]\n"
    "}\n"
    "unrolled u < 2 {\n"
    "  c[u] = reduce.sum(k < 3, m < u + 1: a[k + m])\n"
    "}\n",
};

std::string fixed(std::string text) {  // a >= b is written b <= a
  const std::size_t at = text.find("i >= 1");
  return at == std::string::npos ? text : text.replace(at, 6, "1 <= i");
}

TEST(LoopsParse, TextParsesBack) {
  for (const char* text : kPrograms) {
    const std::string wanted = fixed(text);
    EXPECT_EQ(print(parse(wanted)), wanted);
  }
}

TEST(LoopsParse, SymbolsAreSorted) {
  const Program p = parse("program f\nsymbol $Z\nparam read x: float32[$B * $A]\n");
  EXPECT_EQ(p.symbols, (std::vector<std::string>{"A", "B", "Z"}));
}

TEST(LoopsParse, NamesBecomeDistinct) {
  const Buffer x = make_buffer("layer.0/x", DType::F32, Space::Global, 4),
               y = make_buffer("layer.0/x", DType::F32, Space::Global, 4);
  const Var i = loop_var("max", 4);
  const Program p{.name = "f",
                  .params = {{x, Access::Read}, {y, Access::Write}},
                  .body = stmt(For{i, 4, LoopKind::Serial, stmt(Store{y, var(i), load(x, var(i)), {}})})};
  const std::string text = print(p);
  EXPECT_NE(text.find("layer_0_x_1[_max] = layer_0_x[_max]"), std::string::npos) << text;
  EXPECT_EQ(print(parse(text)), text);
}

TEST(LoopsParse, SharedExpressionsStayShared) {
  const Buffer x = make_buffer("x", DType::F32, Space::Global, 4);
  Expr e = load(x, 0);
  for (int i = 0; i < 100; ++i) e = e * e + constant(DType::F32, static_cast<double>(i));
  const Program p{.name = "f", .params = {{x, Access::ReadWrite}}, .body = stmt(Store{x, 0, e, {}})};
  const std::string text = print(p);
  EXPECT_LT(text.size(), 10000U);
  const Program back = parse(text);
  EXPECT_EQ(print(back), text);
  int nodes = 0;
  visit(as<Store>(back.body)->value, [&](const Expr&) { ++nodes; });
  EXPECT_LT(nodes, 400);
}

TEST(LoopsParse, ExpandedMathParsesBack) {
  const Buffer x = make_buffer("x", DType::F64, Space::Global, 4);
  for (const Op op : {Op::Exp, Op::Sin, Op::LGamma, Op::Erfc, Op::Tanh}) {
    Program p{.name = "f",
              .params = {{x, Access::ReadWrite}},
              .body = stmt(Store{x, 0, make(op, {load(x, 1)}), {}})};
    p = expand_math(p);
    const std::string text = print(p);
    EXPECT_EQ(print(parse(text)), text);
  }
}

TEST(LoopsParse, RandomExpressionsParseBack) {
  testing::Random r(11);
  const Buffer x = make_buffer("x", DType::I64, Space::Global, 4);
  const Var i = loop_var("i", symbol("N"));
  for (int round = 0; round < 2000; ++round) {
    std::vector<Expr> pool = {var(i), symbol("N"), load(x, 0), Expr(r.between(-3, 3)), Expr(7)};
    const std::vector<Op> ops = {Op::Add, Op::Sub, Op::Mul, Op::Div, Op::FloorDiv, Op::Rem, Op::Mod, Op::Min,
                                 Op::And, Op::Or,  Op::Xor, Op::Shl, Op::Shr,      Op::Neg, Op::Not};
    for (int k = 0; k < 12; ++k) {
      const Op op = r.one_of(ops);
      std::vector<Expr> args = {r.one_of(pool)};
      if (op != Op::Neg && op != Op::Not) args.push_back(r.one_of(pool));
      pool.push_back(node(op, DType::I64, std::move(args)));
    }
    const Program p{.name = "f",
                    .params = {{x, Access::ReadWrite}},
                    .symbols = {"N"},
                    .body = stmt(For{i, symbol("N"), LoopKind::Serial, stmt(Store{x, 0, pool.back(), {}})})};
    const std::string text = print(p);
    const Program back = parse(text);
    EXPECT_EQ(print(back), text);
    EXPECT_EQ(as<Store>(as<For>(back.body)->body)->value.op(), pool.back().op());
  }
}

struct Bad {
  const char* text;
  const char* place;
  const char* expected;
};

TEST(LoopsParse, ErrorsNameThePlace) {
  const std::string head = "program f\nparam write y: float32[4]\n";
  const Bad bads[] = {
      {"y[0] = 1.0f +", "3:14", "an expression"},
      {"y[0] = x", "3:8", "a variable"},
      {"y[0] = 1.0f + 1", "3:13", "arguments of one type"},
      {"y[0.5] = 1.0f", "3:3", "int64"},
      {"z[0] = 1.0f", "3:1", "a statement"},
      {"y[0] = \"a", "3:8", "a closing quote"},
      {"serial i < 4 { y[i] = 1.0f", "3:27", "'}'"},
      {"y[0] = 300:int8", "3:8", "an integer in the range of int8"},
      {"y[0] = 1e999", "3:8", "a float in range"},
      {"y[0] = float32(2 < 3 < 4)", "3:22", "parentheses"},
      {"if y[0] { }", "3:4", "bool"},
      {"y[0] = exp(1.0f, 2.0f)", "3:8", "1 arguments"},
      {"y[0] = select(1.0f, 2.0f, 3.0f)", "3:8", "a bool condition"},
      {"y[0] = %0", "3:8", "a shared expression"},
      {"y[0] = bitcast.float32(1)", "3:8", "a bitcast of types of one width"},
      {"wait t", "3:6", "a copy's token"},
      {"y[0] mul= 1.0f", "3:6", "a reducer"},
      {"y[0] = y[0 if true else 1]", "3:8", "a bool and a float32"},
      {"tile t: float[1, 2]", "3:9", "a type"},
  };
  for (const Bad& b : bads) {
    try {
      parse(head + b.text);
      ADD_FAILURE() << b.text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::InvalidArgument) << b.text;
      EXPECT_EQ(e.source(), b.place) << b.text << ": " << e.what();
      EXPECT_NE(e.expected().find(b.expected), std::string::npos) << b.text << ": " << e.what();
    }
  }
}

TEST(LoopsParse, DepthAndSizeAreBounded) {
  const std::string head = "program f\nparam write y: int64[4]\ny[0] = ";
  EXPECT_THROW(parse(head + std::string(100000, '(')), Error);
  EXPECT_THROW(parse(head + std::string(100000, '!')), Error);
  std::string sum = "1";
  for (int i = 0; i < 100000; ++i) sum += "+1";
  EXPECT_THROW(parse(head + sum), Error);
  std::string nest;
  for (int i = 0; i < 100000; ++i) nest += "if true {";
  EXPECT_THROW(parse("program f\n" + nest), Error);
}

}  // namespace
}  // namespace deepseek::loops
