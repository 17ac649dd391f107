// Concatenations that take no kernel: pieces of the first axis written in place by whoever makes them, and pieces that
// one group computes side by side. Against the definition, and where neither may be.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::compile_for;
using testing::expect_like_reference;
using testing::random_tensor;

bool copies(const Executable& e) { return e.explain().find(": concat") != std::string::npos; }

class Concat : public ::testing::TestWithParam<testing::NamedTarget> {};

// Steps of a recurrence, stacked: each step reads the piece before, and pieces are results as well.
TEST_P(Concat, PiecesAreWrittenInPlace) {
  const auto target = GetParam().make();
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {8, 32}), w = g.placeholder("w", DType::F32, {32, 32});
  std::vector<Value> pieces;
  Value h = x;
  for (int t = 0; t < 3; ++t) {
    h = g.op("tanh", {g.op("matmul", {h, w})});
    pieces.push_back(g.op("reshape", {h}, {{"shape", Shape{1, 8, 32}}}));
  }
  const Value all = g.op("concat", pieces, {{"axis", std::int64_t{0}}});
  g.output("all", all);
  g.output("last", h);
  // A concatenation of one that is in place, and of what reads that.
  const Value outer = g.op("concat", {g.op("neg", {all}), g.op("exp", {all})}, {{"axis", std::int64_t{0}}});
  g.output("outer", outer);
  g.output("sum", g.op("add", {outer, outer}));
  const Executable e = compile_for(g, *target);
  SCOPED_TRACE(e.explain());
  EXPECT_FALSE(copies(e));
  expect_like_reference(e, g, {{"x", random_tensor({8, 32}, 1)}, {"w", random_tensor({32, 32}, 2)}});
}

// Inputs, constants, views, pieces that stand twice, and those that do not begin at a cache line.
TEST_P(Concat, WhatIsNobodysOwnIsCopied) {
  const auto target = GetParam().make();
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {4, 16}), odd = g.placeholder("odd", DType::F32, {3, 5});
  const Value y = g.op("exp", {x}), z = g.op("exp", {odd});
  const auto joined = [&](const char* name, std::vector<Value> pieces) {
    g.output(name, g.op("concat", std::move(pieces), {{"axis", std::int64_t{0}}}));
  };
  const Value turned =
      g.op("transpose", {g.op("sin", {g.op("transpose", {x}, {{"perm", std::vector<std::int64_t>{1, 0}}})})},
           {{"perm", std::vector<std::int64_t>{1, 0}}});
  joined("input", {y, x});
  joined("twice", {y, y});
  joined("unaligned", {z, g.op("cos", {odd}), z});
  joined("view", {turned, g.op("cos", {x})});
  const Value once = g.op("tanh", {x}),
              other = g.op("relu", {g.op("matmul", {x, g.placeholder("w", DType::F32, {16, 16})})});
  joined("first", {once, other});
  joined("second", {other, once});
  expect_like_reference(compile_for(g, *target), g,
                        {{"x", random_tensor({4, 16}, 1)},
                         {"odd", random_tensor({3, 5}, 2)},
                         {"w", random_tensor({16, 16}, 3)}});
}

// The gates of a cell: functions of one product's columns, along any axis; a piece that stands twice or is read besides.
TEST_P(Concat, PiecesOfOneGroupAreStoredSideBySide) {
  const auto target = GetParam().make();
  for (const std::int64_t axis : {-1, 0, 1}) {
    Graph g;
    const Value x = g.placeholder("x", DType::F32, {5, 7, 19}),
                y = g.placeholder("y", DType::F32, {5, 7, 19});
    const Value a = g.op("mul", {x, y}), b = g.op("add", {a, x}), c = g.op("sub", {b, y});
    const Value all = g.op("concat", {a, c, b, c}, {{"axis", axis}});
    g.output("all", all);
    g.output("b", b);
    g.output("sum", g.op("sum", {all}, {{"axes", std::vector<std::int64_t>{2}}, {"keepdims", true}}));
    g.output("exp", g.op("exp", {all}));
    const Executable e = compile_for(g, *target);
    SCOPED_TRACE(e.explain());
    EXPECT_FALSE(copies(e));
    expect_like_reference(e, g, {{"x", random_tensor({5, 7, 19}, 1)}, {"y", random_tensor({5, 7, 19}, 2)}});
  }
}

TEST_P(Concat, PiecesOfAProductsEpilogue) {
  const auto target = GetParam().make();
  Graph g;
  const Dim m = Dim::symbol("m");
  const Value x = g.placeholder("x", DType::F32, {m, 24}), w = g.placeholder("w", DType::F32, {24, 33}),
              v = g.placeholder("v", DType::F32, {66, 9});
  const Value p = g.op("matmul", {x, w});
  const Value both = g.op("concat", {g.op("tanh", {p}), g.op("relu", {p})}, {{"axis", std::int64_t{-1}}});
  g.output("y", g.op("matmul", {both, v}));
  const Executable e = compile_for(g, *target);
  SCOPED_TRACE(e.explain());
  EXPECT_FALSE(copies(e));
  for (const std::int64_t rows : {0, 1, 50})
    expect_like_reference(e, g,
                          {{"x", random_tensor({rows, 24}, 1)},
                           {"w", random_tensor({24, 33}, 2)},
                           {"v", random_tensor({66, 9}, 3)}});
}

INSTANTIATE_TEST_SUITE_P(Targets, Concat, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
