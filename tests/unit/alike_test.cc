// Groups that do equal work are found, are lowered once, and each reads its own values.
#include "passes/alike.h"

#include <gtest/gtest.h>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/cpu/cpu_target.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_close;
using testing::random_tensor;
using testing::reference;

// Where each group of the graph has its equal.
std::vector<std::size_t> first_of_each(const Graph& g) {
  const auto target = cpu_target();
  const std::set<const Node*> fixed = fixed_nodes(g, true);
  const kernels::LoweringContext context{target->info(), {}, fixed};
  const std::vector<Group> groups = form_groups(g);
  const std::vector<Choice> choices = choose_ways(groups, context, *target, {});
  const Alike alike(groups, choices, context);
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < groups.size(); ++i) result.push_back(alike.first(i));
  return result;
}

Value layer(Graph& g, const Value& x, int seed, double slope) {
  const Value w = g.constant(random_tensor({8, 8}, seed)), b = g.constant(random_tensor({8}, seed + 1));
  return g.op("leaky_relu", {g.op("add", {g.op("matmul", {x, w}), b})}, {{"slope", slope}});
}

TEST(Alike, LayersOfOneKindAreAndReadTheirOwnWeights) {
  Graph g;
  Value x = g.placeholder("x", DType::F32, {5, 8});
  for (const int seed : {1, 3, 5}) x = layer(g, x, seed, 0.25);
  g.output("y", x);
  EXPECT_EQ(first_of_each(g), (std::vector<std::size_t>{0, 0, 0}));
  const NamedTensors inputs = {{"x", random_tensor({5, 8}, 9)}};
  const Executable e = lower(run_pipeline(g, {}), *cpu_target(), {});
  expect_close(e.run(inputs).at("y"), reference(g, inputs).at("y"));
}

TEST(Alike, WhatDiffersInANumberAShapeOrWhatIsKnownIsNot) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {5, 8}), z = g.placeholder("z", DType::F32, {6, 8}),
              w = g.placeholder("w", DType::F32, {8, 8}), half = g.constant(Tensor(DType::F32, {}));
  g.output("a", layer(g, x, 1, 0.25));
  g.output("b", layer(g, x, 1, 0.5));
  g.output("c", layer(g, z, 1, 0.25));
  const Value b = g.constant(random_tensor({8}, 2));
  g.output("d", g.op("leaky_relu", {g.op("add", {g.op("matmul", {x, w}), b})}, {{"slope", 0.25}}));
  g.output("e", g.op("add", {x, half}));
  g.output("f", g.op("add", {x, g.constant(random_tensor({}, 3))}));
  const std::vector<std::size_t> first = first_of_each(g);
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i], i);
}

// x - y and y - x, and what reads one value twice.
TEST(Alike, ArgumentsKeepTheirPlaces) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {70}), y = g.placeholder("y", DType::F32, {70});
  g.output("a", g.op("sub", {x, y}));
  g.output("b", g.op("sub", {y, x}));
  g.output("c", g.op("sub", {x, x}));
  EXPECT_EQ(first_of_each(g), (std::vector<std::size_t>{0, 0, 2}));
  const NamedTensors inputs = {{"x", random_tensor({70}, 1)}, {"y", random_tensor({70}, 2)}};
  const Executable e = lower(g, *cpu_target(), {});
  const NamedTensors expected = reference(g, inputs);
  for (const char* name : {"a", "b", "c"}) expect_close(e.run(inputs).at(name), expected.at(name));
}

}  // namespace
}  // namespace deepseek
