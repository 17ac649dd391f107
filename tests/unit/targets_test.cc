// One source, every target: the same graphs on the CPU at each instruction set, in the checking interpreter, mapped onto
// a GPU's blocks and threads in the interpreter, and on the toy accelerator.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_like_reference;
using testing::random_tensor;

class EveryTarget : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  Executable compile(const Graph& g) const { return testing::compile_for(g, *GetParam().make()); }
};

TEST_P(EveryTarget, GemmWithPrologueAndEpilogue) {
  for (const auto& [m, n, k] : {std::tuple{1, 1, 1}, {5, 33, 17}, {37, 40, 64}, {64, 16, 20}}) {
    Graph g;
    const Value a = g.placeholder("a", DType::F32, {m, k}), b = g.placeholder("b", DType::F32, {k, n});
    const Value r = g.placeholder("r", DType::F32, {m, n});
    const Value y = g.op("matmul", {g.op("neg", {a}), b});
    g.output("y", g.op("relu", {g.op("add", {y, r})}));
    const Executable e = compile(g);
    EXPECT_NE(e.explain().find("matmul_add_relu: gemm"), std::string::npos) << e.explain();
    expect_like_reference(
        e, g,
        {{"a", random_tensor({m, k}, 1)}, {"b", random_tensor({k, n}, 2)}, {"r", random_tensor({m, n}, 3)}});
  }
}

TEST_P(EveryTarget, GemmOfDynamicRowsAndDepth) {
  Graph g;
  const Dim m = Dim::symbol("m"), k = Dim::symbol("k");
  const Value a = g.placeholder("a", DType::F32, {2, m, k}), b = g.placeholder("b", DType::F32, {2, k, 24});
  g.output("y", g.op("tanh", {g.op("matmul", {a, b})}));
  const Executable e = compile(g);
  for (const auto& [rows, depth] : {std::pair{1, 1}, {7, 40}, {33, 16}, {0, 5}, {5, 0}})
    expect_like_reference(
        e, g, {{"a", random_tensor({2, rows, depth}, 1)}, {"b", random_tensor({2, depth, 24}, 2)}});
}

TEST_P(EveryTarget, GroupedConvolution) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {2, 16, 5, 7}),
              w = g.placeholder("w", DType::F32, {16, 8, 3, 3});
  const std::vector<std::int64_t> one = {1, 1}, two = {2, 1};
  g.output(
      "y",
      g.op("conv", {x, w},
           {{"strides", two}, {"pad_low", one}, {"pad_high", one}, {"feature_groups", std::int64_t{2}}}));
  expect_like_reference(compile(g), g,
                        {{"x", random_tensor({2, 16, 5, 7}, 1)}, {"w", random_tensor({16, 8, 3, 3}, 2)}});
}

TEST_P(EveryTarget, ElementwiseAndReduction) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3, 5, Dim::symbol("n")}),
              c = g.placeholder("c", DType::F32, {5, 1});
  const Value z = g.op("mul", {g.op("add", {x, c}), x});
  const std::vector<std::int64_t> last = {2};
  g.output("y", g.op("sub", {z, g.op("max", {z}, {{"axes", last}, {"keepdims", true}})}));
  const Executable e = compile(g);
  for (const std::int64_t n : {1, 7, 64})
    expect_like_reference(e, g, {{"x", random_tensor({3, 5, n}, 1)}, {"c", random_tensor({5, 1}, 2)}});
}

TEST_P(EveryTarget, Softmax) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim::symbol("n"), 4, Dim::symbol("m")});
  g.output("y", g.op("softmax", {x}, {{"axis", std::int64_t{-1}}}));
  g.output("z", g.op("softmax", {x}, {{"axis", std::int64_t{1}}}));
  const Executable e = compile(g);
  for (const auto& [n, m] : {std::pair{1, 1}, {3, 17}, {2, 96}, {0, 4}})
    expect_like_reference(e, g, {{"x", random_tensor({n, 4, m}, 7)}});
}

INSTANTIATE_TEST_SUITE_P(Targets, EveryTarget, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
