// Products and convolutions cut for so many threads: whoever computes a row, its sums are the same, bit by bit.
#include <gtest/gtest.h>

#include <cstring>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_close;
using testing::random_tensor;
using testing::reference;

class SharedRows : public ::testing::TestWithParam<testing::NamedTarget> {};

void expect_alike_on_any_threads(const Graph& g, const NamedTensors& inputs, Target& target,
                                 const char* way) {
  const Tensor expected = reference(g, inputs).at("y");
  Tensor first;
  for (const int threads : {1, 2, 3, 7}) {
    const Executable e = lower(run_pipeline(g, {}), target, {.threads = threads, .way = way});
    SCOPED_TRACE(e.explain());
    const Tensor y = e.run(inputs).at("y");
    expect_close(y, expected);
    if (threads == 1) first = y;
    const auto bytes = static_cast<std::size_t>(y.numel()) * sizeof(float);
    EXPECT_EQ(std::memcmp(y.data(), first.data(), bytes), 0) << threads << " threads";
  }
}

// relu(x * w + residual)
TEST_P(SharedRows, Products) {
  struct Case {
    std::int64_t batch, m, k, n;
  };
  const auto target = GetParam().make();
  // Rows enough for one, two and three shares, far and near; 1024 deep, where rows alias; more columns than are near; rows
  // so many and deep that the depth goes in chunks; one row.
  for (const Case& c : {Case{1, 130, 9, 131},
                        {1, 197, 17, 230},
                        {2, 140, 5, 150},
                        {1, 66, 1024, 70},
                        {1, 128, 3, 800},
                        {1, 70, 4200, 20},
                        {1, 1, 100, 700},
                        {1, 301, 12, 40}}) {
    Graph g;
    const Value x = g.placeholder("x", DType::F32, {c.batch, c.m, c.k}),
                r = g.placeholder("r", DType::F32, {c.batch, c.m, c.n});
    const Value y = g.op("matmul", {x, g.constant(random_tensor({c.batch, c.k, c.n}, 2))});
    g.output("y", g.op("relu", {g.op("add", {y, r})}));
    const NamedTensors inputs = {{"x", random_tensor({c.batch, c.m, c.k}, 1)},
                                 {"r", random_tensor({c.batch, c.m, c.n}, 3)}};
    expect_alike_on_any_threads(g, inputs, *target, "gemm");
  }
}

TEST_P(SharedRows, Convolutions) {
  struct Case {
    std::int64_t size, channels, filters;
  };
  const auto target = GetParam().make();
  for (const Case& c : {Case{29, 16, 17}, {41, 17, 40}})
    for (const char* way : {"winograd 4x4", "winograd 2x2", "gemm windows"}) {
      Graph g;
      const std::vector<std::int64_t> one{1, 1};
      const Value x = g.placeholder("x", DType::F32, {1, c.size, c.size, c.channels});
      g.output("y", g.op("conv", {x, g.constant(random_tensor({c.filters, c.channels, 3, 3}, 2))},
                         {{"pad_low", one},
                          {"pad_high", one},
                          {"input_layout", std::string("N01C")},
                          {"output_layout", std::string("N01C")}}));
      expect_alike_on_any_threads(g, {{"x", random_tensor({1, c.size, c.size, c.channels}, 1)}}, *target,
                                  way);
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, SharedRows, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
