// Winograd convolution against the definition, over sizes that leave patches, panels and rows unfinished.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/toom_cook.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using kernels::Matrix;
using testing::compile_for;
using testing::expect_close;
using testing::random_tensor;
using testing::reference;

std::vector<double> times(const Matrix& m, const std::vector<double>& x) {
  std::vector<double> y;
  for (const auto& row : m) {
    y.push_back(0);
    for (std::size_t j = 0; j < row.size(); ++j) y.back() += row[j] * x[j];
  }
  return y;
}

TEST(ToomCook, CorrelatesInOneDimension) {
  std::mt19937 rng(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (const std::int64_t m : {2, 4}) {
    const kernels::ToomCook t = kernels::toom_cook(m);
    std::vector<double> x(static_cast<std::size_t>(t.points())), w(3);
    for (double& v : x) v = uniform(rng);
    for (double& v : w) v = uniform(rng);
    std::vector<double> product = times(t.input, x);
    const std::vector<double> kernel = times(t.kernel, w);
    for (std::size_t i = 0; i < product.size(); ++i) product[i] *= kernel[i];
    const std::vector<double> y = times(t.output, product);
    for (std::size_t i = 0; i < static_cast<std::size_t>(m); ++i)
      EXPECT_NEAR(y[i], x[i] * w[0] + x[i + 1] * w[1] + x[i + 2] * w[2], 1e-13);
  }
}

struct Case {
  std::int64_t batch, height, width, channels, filters;
  std::vector<std::int64_t> low, high;
};

// relu(conv(x) + residual), channels innermost; a batch of 0 means a symbol.
Graph model(const Case& c) {
  Graph g;
  const Dim batch = c.batch == 0 ? Dim::symbol("N") : Dim(c.batch);
  const Value x = g.placeholder("x", DType::F32, {batch, c.height, c.width, c.channels});
  const std::vector<std::int64_t> one{1, 1};
  const Value y = g.op("conv", {x, g.constant(random_tensor({c.filters, c.channels, 3, 3}, 5))},
                       {{"strides", one},
                        {"pad_low", c.low},
                        {"pad_high", c.high},
                        {"input_layout", std::string("N01C")},
                        {"output_layout", std::string("N01C")}});
  const Value residual = g.placeholder("residual", DType::F32, y.shape());
  g.output("y", g.op("relu", {g.op("add", {y, residual})}));
  return g;
}

class Winograd : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(Winograd, IsTheDefinition) {
  const auto target = GetParam().make();
  const Case cases[] = {{1, 8, 8, 16, 16, {1, 1}, {1, 1}},   {2, 7, 5, 20, 33, {1, 1}, {1, 1}},
                        {1, 13, 30, 19, 70, {0, 2}, {1, 0}}, {3, 3, 3, 16, 16, {0, 0}, {0, 0}},
                        {0, 9, 6, 17, 40, {1, 1}, {1, 1}},   {1, 40, 44, 16, 48, {1, 1}, {1, 1}}};
  for (const Case& c : cases) {
    const Graph g = model(c);
    const Executable e = compile_for(g, *target);
    for (const std::int64_t batch : c.batch == 0 ? std::vector<std::int64_t>{1, 3} : std::vector{c.batch}) {
      const std::int64_t height = c.height + c.low[0] + c.high[0] - 2,
                         width = c.width + c.low[1] + c.high[1] - 2;
      const NamedTensors inputs = {{"x", random_tensor({batch, c.height, c.width, c.channels}, 1)},
                                   {"residual", random_tensor({batch, height, width, c.filters}, 2)}};
      SCOPED_TRACE(e.explain());
      expect_close(e.run(inputs).at("y"), reference(g, inputs).at("y"), 1e-5);
    }
  }
}

TEST_P(Winograd, TakesWhatItShould) {
  const auto target = GetParam().make();
  if (target->info().gpu_mapped) return;  // those multiply directly
  EXPECT_NE(compile_for(model({1, 56, 56, 64, 64, {1, 1}, {1, 1}}), *target).explain().find("winograd 4x4"),
            std::string::npos);
  EXPECT_EQ(compile_for(model({1, 8, 8, 3, 16, {1, 1}, {1, 1}}), *target).explain().find("winograd"),
            std::string::npos)
      << "three channels are not worth it";
}

INSTANTIATE_TEST_SUITE_P(Targets, Winograd, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
