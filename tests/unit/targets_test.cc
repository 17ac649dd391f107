// One source, every target: the same graphs on the CPU at each instruction set, in the checking interpreter, and
// mapped onto a GPU's blocks and threads in the interpreter.
#include <gtest/gtest.h>

#include <random>

#include "deepseek/graph.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/interpreter/interpreter_target.h"
#include "targets/registry.h"

namespace deepseek {
namespace {

Tensor random_tensor(Dims dims, unsigned seed) {
  Tensor t(DType::F32, std::move(dims));
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& x : t.as<float>()) x = uniform(rng);
  return t;
}

std::shared_ptr<Target> interpreter(bool gpu) {
  InterpreterTargetOptions options;
  options.gpu_mapped = gpu;
  options.interpreter.check = true;
  return std::make_shared<InterpreterTarget>(options);
}

// The definition alone, no fusion, no way but the last: what everything else is compared with.
Tensor reference(const Graph& g, const NamedTensors& inputs) {
  const std::vector<std::string> all = {"gemm",     "rows",          "form_groups",
                                        "simplify", "channels_last", "merge_common"};
  return lower(run_pipeline(g, {all}), *interpreter(false), {.disabled = all, .fuse = false})
      .run(inputs)
      .at("y");
}

void expect_same(const Graph& g, const NamedTensors& inputs, const std::shared_ptr<Target>& target) {
  const Tensor want = reference(g, inputs);
  const Tensor got = lower(run_pipeline(g, {}), *target, {}).run(inputs).at("y");
  ASSERT_EQ(got.dims(), want.dims());
  double largest = 1e-30, worst = 0;
  for (std::int64_t i = 0; i < want.numel(); ++i) {
    largest = std::max(largest, std::abs(want.at(i)));
    worst = std::max(worst, std::abs(want.at(i) - got.at(i)));
  }
  EXPECT_LE(worst / largest, 1e-5);
}

using MakeTarget = std::shared_ptr<Target> (*)();
class EveryTarget : public testing::TestWithParam<MakeTarget> {};

TEST_P(EveryTarget, GemmWithPrologueAndEpilogue) {
  for (const auto& [m, n, k] : {std::tuple{1, 1, 1}, {5, 33, 17}, {37, 40, 64}, {64, 16, 20}}) {
    Graph g;
    const Value a = g.placeholder("a", DType::F32, {m, k}), b = g.placeholder("b", DType::F32, {k, n});
    const Value r = g.placeholder("r", DType::F32, {m, n});
    const Value y = g.op("matmul", {g.op("neg", {a}), b});
    g.output("y", g.op("relu", {g.op("add", {y, r})}));
    expect_same(
        g,
        {{"a", random_tensor({m, k}, 1)}, {"b", random_tensor({k, n}, 2)}, {"r", random_tensor({m, n}, 3)}},
        GetParam()());
  }
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
  expect_same(g, {{"x", random_tensor({2, 16, 5, 7}, 1)}, {"w", random_tensor({16, 8, 3, 3}, 2)}},
              GetParam()());
}

TEST_P(EveryTarget, ElementwiseAndReduction) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3, 5, Dim::symbol("n")}),
              c = g.placeholder("c", DType::F32, {5, 1});
  const Value z = g.op("mul", {g.op("add", {x, c}), x});
  const std::vector<std::int64_t> last = {2};
  g.output("y", g.op("sub", {z, g.op("max", {z}, {{"axes", last}, {"keepdims", true}})}));
  for (const std::int64_t n : {1, 7, 64})
    expect_same(g, {{"x", random_tensor({3, 5, n}, 1)}, {"c", random_tensor({5, 1}, 2)}}, GetParam()());
}

INSTANTIATE_TEST_SUITE_P(Targets, EveryTarget,
                         testing::Values(MakeTarget([] { return find_target("cpu", ""); }),
                                         MakeTarget([] { return find_target("cpu", "avx2"); }),
                                         MakeTarget([] { return interpreter(false); }),
                                         MakeTarget([] { return interpreter(true); })));

}  // namespace
}  // namespace deepseek
