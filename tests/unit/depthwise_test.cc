// Depthwise convolution against the definition: strips that do not divide a row, strides, kernels of other sizes.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::compile_for;
using testing::expect_close;
using testing::random_tensor;
using testing::reference;

struct Case {
  std::int64_t batch, height, width, channels, taps_y, taps_x, stride, low, high, dilation_y;
};

// clamp(conv(x) + bias), channels innermost; a batch of 0 means a symbol.
Graph model(const Case& c) {
  Graph g;
  const Dim batch = c.batch == 0 ? Dim::symbol("N") : Dim(c.batch);
  const Value x = g.placeholder("x", DType::F32, {batch, c.height, c.width, c.channels});
  const Value y = g.op("conv", {x, g.constant(random_tensor({c.channels, 1, c.taps_y, c.taps_x}, 5))},
                       {{"strides", std::vector<std::int64_t>{c.stride, c.stride}},
                        {"pad_low", std::vector<std::int64_t>{c.low, c.low}},
                        {"pad_high", std::vector<std::int64_t>{c.high, c.high}},
                        {"kernel_dilation", std::vector<std::int64_t>{c.dilation_y, 1}},
                        {"feature_groups", c.channels},
                        {"input_layout", std::string("N01C")},
                        {"output_layout", std::string("N01C")}});
  g.output("y", g.op("relu", {g.op("add", {y, g.constant(random_tensor({c.channels}, 6))})}));
  return g;
}

class Depthwise : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(Depthwise, IsTheDefinition) {
  const auto target = GetParam().make();
  const Case cases[] = {{1, 7, 7, 16, 3, 3, 1, 1, 1, 1},   {2, 9, 19, 33, 3, 3, 2, 1, 1, 1},
                        {1, 14, 14, 40, 5, 5, 1, 2, 2, 1}, {1, 21, 37, 8, 3, 5, 1, 2, 0, 2},
                        {0, 6, 5, 17, 3, 3, 1, 1, 1, 1},   {1, 5, 1, 16, 3, 1, 3, 0, 1, 1},
                        {1, 20, 56, 24, 7, 7, 2, 3, 3, 1}, {1, 4, 3, 16, 2, 2, 1, 0, 0, 1}};
  for (const Case& c : cases) {
    const Graph g = model(c);
    const Executable e = compile_for(g, *target);
    SCOPED_TRACE(e.explain());
    EXPECT_EQ(e.explain().find("depthwise") == std::string::npos, target->info().gpu_mapped);
    for (const std::int64_t batch : c.batch == 0 ? std::vector<std::int64_t>{1, 3} : std::vector{c.batch}) {
      const NamedTensors inputs = {{"x", random_tensor({batch, c.height, c.width, c.channels}, 1)}};
      expect_close(e.run(inputs).at("y"), reference(g, inputs).at("y"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Depthwise, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
