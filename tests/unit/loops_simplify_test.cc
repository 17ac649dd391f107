// Programs before and after simplify(), as text; and random data through both.
#include <gtest/gtest.h>

#include "deepseek/error.h"
#include "loops/interpreter.h"
#include "loops/ir.h"
#include "loops/simplify.h"
#include "unit/loops_run.h"

namespace deepseek::loops {
namespace {

std::string simplified(const std::string& text) {
  const Program p = parse(text);
  verify(p);
  const Program s = simplify(p);
  verify(s);
  const std::string once = print(s);
  EXPECT_EQ(print(simplify(s)), once) << "not settled after one round";
  return once.substr(once.find('\n') + 1);
}

const std::string kHead =
    "program f\n"
    "param read x: float32[64]\n"
    "param write y: float32[64]\n";
const std::string kParams = kHead.substr(kHead.find('\n') + 1);

void becomes(const std::string& body, const std::string& wanted) {
  EXPECT_EQ(simplified(kHead + body), kParams + wanted);
}

TEST(LoopsSimplify, LetsOfNothingMuchGiveWay) {
  becomes(
      "parallel p < 8 {\n  let b: int64 = 0\n  let q: int64 = p\n  let r: int64 = q + 1\n  y[b * 64 + q] = "
      "x[r]\n}\n",
      "parallel p < 8 {\n  y[p] = x[p + 1]\n}\n");
}

TEST(LoopsSimplify, OthersStayAndKeepTheirBounds) {
  becomes("parallel p < 16 {\n  let m: int64 = p % 7\n  y[p] = x[m if m < 7 & 0 <= m else 0.0f]\n}\n",
          "parallel p < 16 {\n  let m: int64 = p % 7\n  y[p] = x[m]\n}\n");
}

TEST(LoopsSimplify, LetsOfLoadsAreNotMoved) {
  becomes("serial i < 8 {\n  let a: float32 = y[i]\n  y[i] = x[i]\n  y[i + 8] = a\n}\n",
          "serial i < 8 {\n  let a: float32 = y[i]\n  y[i] = x[i]\n  y[i + 8] = a\n}\n");
}

TEST(LoopsSimplify, UnusedLetsGo) {
  becomes("let a: float32 = x[0]\nlet b: float32 = a * 2.0f\ny[0] = 1.0f\n", "y[0] = 1.0f\n");
}

// Coordinates split from a flat index and put together again: im2col of a 1x1 convolution.
TEST(LoopsSimplify, SplitIndicesJoinThroughLets) {
  becomes(
      "serial row < 16 {\n"
      "  let m2: int64 = row // 4\n"
      "  let m3: int64 = row % 4\n"
      "  if m3 < 4 & 0 <= m3 & m2 < 4 & row < 16 {\n"
      "    y[m2 * 16 + m3 * 4] = x[m2 * 4 + m3]\n"
      "  }\n"
      "}\n",
      "serial row < 16 {\n  y[row * 4] = x[row]\n}\n");
}

TEST(LoopsSimplify, ASymbolIsPositiveWhereItsLoopRuns) {
  EXPECT_EQ(simplified("program f\nparam write y: float32[$T * $B * 8]\n"
                       "parallel p < ($B * $T + 13) // 14 {\n"
                       "  serial r < 14 {\n"
                       "    let row: int64 = p * 14 + r\n"
                       "    if row < $B * $T {\n"
                       "      y[row // $T * $T * 8 + row % $T * 8] = 1.0f\n"
                       "    }\n"
                       "  }\n"
                       "}\n"),
            "param write y: float32[$T * $B * 8]\n"
            "parallel p < ($B * $T + 13) // 14 {\n"
            "  serial r < 14 {\n"
            "    let row: int64 = p * 14 + r\n"
            "    if row < $B * $T {\n"
            "      y[row * 8] = 1.0f\n"
            "    }\n"
            "  }\n"
            "}\n");
  // Nothing says so here: $T may be 0, and then the quotient and the rest are.
  const std::string open =
      "param write y: float32[$N]\nserial i < $N {\n  y[i // $T * $T + i % $T] = 1.0f\n}\n";
  EXPECT_EQ(simplified("program f\n" + open), open);
}

TEST(LoopsSimplify, BranchesKnowTheirCondition) {
  becomes(
      "serial i < 80 {\n"
      "  if i < 60 {\n"
      "    y[i] = x[i if i < 60 else 0.0f]\n"
      "  } else {\n"
      "    y[i % 64] = x[i if i < 60 else 2.0f]\n"
      "  }\n"
      "}\n",
      "serial i < 80 {\n"
      "  if i < 60 {\n"
      "    y[i] = x[i]\n"
      "  } else {\n"
      "    y[i % 64] = 2.0f\n"
      "  }\n"
      "}\n");
}

TEST(LoopsSimplify, WhatMemoryHoldsIsNotRemembered) {
  const std::string body =
      "if y[0] < 1.0f {\n"
      "  y[0] = 2.0f\n"
      "  if y[0] < 1.0f {\n"
      "    y[1] = 3.0f\n"
      "  }\n"
      "}\n";
  becomes(body, body);
}

TEST(LoopsSimplify, WhatNeverHappensIsDropped) {
  becomes(
      "serial i < 8 {\n"
      "  if i < 8 {\n"
      "    y[i] = 1.0f when 9 < i\n"
      "  } else {\n"
      "    y[i] = 2.0f\n"
      "  }\n"
      "  y[i] = 3.0f when i < 8\n"
      "}\n"
      "serial j < 0 {\n"
      "  y[j] = 1.0f\n"
      "}\n"
      "while false {\n"
      "  y[0] = 1.0f\n"
      "}\n",
      "serial i < 8 {\n  y[i] = 3.0f\n}\n");
}

TEST(LoopsSimplify, LoopsThatRunOnceAreUnwrapped) {
  becomes(
      "parallel p < 4 {\n"
      "  serial i < 1 {\n"
      "    alloc a: float32[4] in register\n"
      "    a[i] = x[p]\n"
      "    vector l < 1 {\n"
      "      y[p + i + l] = a[0]\n"
      "    }\n"
      "  }\n"
      "}\n"
      "parallel q < 1 {\n"
      "  y[q + 7] = 1.0f\n"
      "}\n",
      "parallel p < 4 {\n"
      "  alloc a: float32[4] in register\n"
      "  a[0] = x[p]\n"
      "  y[p] = a[0]\n"
      "}\n"
      "parallel q < 1 {\n"
      "  y[q + 7] = 1.0f\n"
      "}\n");
}

TEST(LoopsSimplify, OneStatementInTwoPlacesStaysTwo) {
  const Buffer y = make_buffer("y", DType::F32, Space::Global, 4);
  const Var i = loop_var("i", 1), t = make_var("t", DType::F32);
  const Buffer a = make_buffer("a", DType::F32, Space::Register, 1);
  const Stmt once = stmt(For{i, 1, LoopKind::Serial,
                             block({stmt(Alloc{a}), stmt(Let{t, load(y, 1)}), stmt(Store{a, 0, var(t), {}}),
                                    stmt(Store{y, 0, load(a, 0), {}})})});
  const Program p{.name = "f", .params = {{y, Access::ReadWrite}}, .body = block({once, once})};
  verify(p);
  EXPECT_NO_THROW(verify(simplify(p)));
}

TEST(LoopsSimplify, TilesAndCopies) {
  becomes(
      "block b < 2 {\n"
      "  let z: int64 = 0\n"
      "  alloc s: float32[16 + z] in shared\n"
      "  copy t: s[z; 4] = x[b * 16 + z; 4], 4, 4 + z\n"
      "  wait t\n"
      "  tile c: float32[4, 4]\n"
      "  fill c = 0.0f\n"
      "  load c = s[z; 4, 1; 4, 4]\n"
      "  map c[i, j] as e = select(i < 4, e, 0.0f)\n"
      "  store c[i_1 < 4, j_1 < 4] as e_1 {\n"
      "    y[b * 16 + i_1 * 4 + j_1] = e_1 when i_1 < 4 & j_1 < 4\n"
      "  }\n"
      "}\n",
      "block b < 2 {\n"
      "  alloc s: float32[16] in shared\n"
      "  copy t: s[0; 4] = x[b * 16; 4], 4, 4\n"
      "  wait t\n"
      "  tile c: float32[4, 4]\n"
      "  fill c = 0.0f\n"
      "  load c = s[0; 4, 1; 4, 4]\n"
      "  map c[i, j] as e = e\n"
      "  store c[i_1 < 4, j_1 < 4] as e_1 {\n"
      "    y[b * 16 + i_1 * 4 + j_1] = e_1\n"
      "  }\n"
      "}\n");
}

// A 3x3 convolution's packing with borders, over several batch sizes: the same numbers.
TEST(LoopsSimplify, ResultsStay) {
  const Program p = parse(
      "program f\n"
      "param read x: float32[$B * 20]\n"
      "param write y: float32[$B * 180]\n"
      "parallel p < ($B * 20 + 5) // 6 {\n"
      "  serial r < 6 {\n"
      "    let row: int64 = p * 6 + r\n"
      "    let b: int64 = row // 5 // 4\n"
      "    let h: int64 = row // 5 % 4\n"
      "    let w: int64 = row % 5\n"
      "    if row < $B * 20 & h < 4 & 0 <= w {\n"
      "      serial i < 3 {\n"
      "        vector j < 3 {\n"
      "          y[b * 180 + h * 45 + w * 9 + i * 3 + j] = x[b * 20 + (h + i - 1) * 5 + w + j - 1 if row < "
      "$B * 20 & 0 <= "
      "h + i - 1 & h + i - 1 < 4 & 0 <= w + j - 1 & w + j - 1 < 5 else 0.0f]\n"
      "        }\n"
      "      }\n"
      "    }\n"
      "  }\n"
      "}\n");
  verify(p);
  const Program s = simplify(p);
  verify(s);
  EXPECT_NE(print(s).find("y[row * 9 + i * 3 + j] = x[i * 5 + row + j - 6 if "), std::string::npos)
      << print(s);
  EXPECT_NE(print(s).find("if row < $B * 20 {"), std::string::npos) << print(s);
  for (const std::int64_t batch : {0, 1, 2, 5}) {
    const auto n = static_cast<std::size_t>(batch * 20);
    std::vector<float> x(n), a(n * 9, -1.0F), b(n * 9, -1.0F);
    for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i + 1);
    EXPECT_EQ(deepseek::testing::run_kernel(*interpret(p, {.check = true}), {x.data(), a.data()}, {batch}),
              0);
    EXPECT_EQ(deepseek::testing::run_kernel(*interpret(s, {.check = true}), {x.data(), b.data()}, {batch}),
              0);
    EXPECT_EQ(a, b);
  }
}

}  // namespace
}  // namespace deepseek::loops
