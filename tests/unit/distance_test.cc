// squared_distance: the op that docs/add-an-op.md adds.
#include <gtest/gtest.h>

#include "deepseek/error.h"
#include "graph/gradient.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

class SquaredDistance : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(SquaredDistance, IsTheSumOfSquaredDifferences) {
  Graph g;
  const Value a = g.placeholder("a", DType::F32, {2, Dim::symbol("m"), 3}),
              b = g.placeholder("b", DType::F32, {2, 5, 3});
  g.output("y", g.op("squared_distance", {a, b}));
  const Executable e = testing::compile_for(g, *GetParam().make());
  for (const std::int64_t m : {0, 1, 4, 33}) {
    const Tensor x = random_tensor({2, m, 3}, 1), y = random_tensor({2, 5, 3}, 2);
    Tensor want(DType::F32, {2, m, 5});
    for (std::int64_t i = 0; i < want.numel(); ++i) {
      const std::int64_t row = i / 5, column = row / std::max<std::int64_t>(m, 1) * 5 + i % 5;
      double sum = 0;
      for (std::int64_t k = 0; k < 3; ++k) {
        const double difference = x.at(row * 3 + k) - y.at(column * 3 + k);
        sum += difference * difference;
      }
      want.set(i, sum);
    }
    testing::expect_close(e.run({{"a", x}, {"b", y}}).at("y"), want);
  }
}

TEST_P(SquaredDistance, HasTheGradientOfItsDifferences) {
  Graph g;
  const Value a = g.placeholder("a", DType::F32, {4, 3}), b = g.placeholder("b", DType::F32, {5, 3}),
              dy = g.placeholder("dy", DType::F32, {4, 5});
  const Value inputs[] = {a, b};
  const Value y = g.op("squared_distance", {a, b});
  const std::vector<Value> d = gradients(g, y, dy, inputs);
  g.output("loss", g.op("sum", {g.op("mul", {y, dy})}));
  g.output("a", d.at(0));
  g.output("b", d.at(1));
  const Executable e = testing::compile_for(g, *GetParam().make());
  NamedTensors in = {
      {"a", random_tensor({4, 3}, 1)}, {"b", random_tensor({5, 3}, 2)}, {"dy", random_tensor({4, 5}, 3)}};
  const NamedTensors out = e.run(in);
  for (const char* name : {"a", "b"}) {
    Tensor x = in.at(name), differences(DType::F32, x.dims());
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const double there = x.at(i);
      x.set(i, there + 0.5);
      const double above = e.run(in).at("loss").at(0);
      x.set(i, there - 0.5);
      differences.set(i, above - e.run(in).at("loss").at(0));
      x.set(i, there);
    }
    testing::expect_close(out.at(name), differences, 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SquaredDistance, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

TEST(SquaredDistanceErrors, NameWhatWasExpected) {
  Graph g;
  g.set_source("model.py:12");
  const Value a = g.placeholder("a", DType::F32, {4, 3}), b = g.placeholder("b", DType::F32, {5, 2});
  try {
    g.op("squared_distance", {a, b});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.op(), "squared_distance");
    EXPECT_EQ(e.source(), "model.py:12");
    EXPECT_EQ(e.expected(), "points a [..., m, k] and b [..., n, k]");
    EXPECT_EQ(e.got(), "float32[4, 3] and float32[5, 2]");
  }
}

}  // namespace
}  // namespace deepseek
