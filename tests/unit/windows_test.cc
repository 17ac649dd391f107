// Convolutions whose windows are read in place: runs that tiles do not divide, borders, strides, groups, both layouts.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::compile_for;
using testing::expect_close;
using testing::random_tensor;
using testing::reference;

struct Case {
  std::int64_t batch, height, width, channels, filters, taps_y, taps_x, stride, low, high, dilation, groups;
  const char* layout;
};

// relu(conv(x) + bias); a batch of 0 means a symbol.
Graph model(const Case& c) {
  Graph g;
  const Dim batch = c.batch == 0 ? Dim::symbol("N") : Dim(c.batch);
  const bool last = c.layout[1] != 'C';
  const Value x = g.placeholder(
      "x", DType::F32,
      last ? Shape{batch, c.height, c.width, c.channels} : Shape{batch, c.channels, c.height, c.width});
  const Tensor filters = random_tensor({c.filters, c.channels / c.groups, c.taps_y, c.taps_x}, 5);
  const Value y = g.op("conv", {x, g.constant(filters)},
                       {{"strides", std::vector<std::int64_t>{c.stride, c.stride}},
                        {"pad_low", std::vector<std::int64_t>{c.low, c.low}},
                        {"pad_high", std::vector<std::int64_t>{c.high, c.high}},
                        {"kernel_dilation", std::vector<std::int64_t>{c.dilation, c.dilation}},
                        {"feature_groups", c.groups},
                        {"input_layout", std::string(c.layout)},
                        {"output_layout", std::string("N01C")}});
  g.output("y", g.op("relu", {g.op("add", {y, g.constant(random_tensor({c.filters}, 6))})}));
  return g;
}

class Windows : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(Windows, AreTheDefinition) {
  const auto target = GetParam().make();
  const Case cases[] = {
      {1, 23, 23, 3, 16, 7, 7, 2, 3, 3, 1, 1, "NC01"}, {2, 14, 19, 3, 33, 3, 3, 2, 1, 1, 1, 1, "N01C"},
      {1, 9, 31, 5, 8, 3, 5, 1, 2, 0, 1, 1, "NC01"},   {1, 16, 16, 12, 20, 1, 1, 2, 0, 0, 1, 1, "N01C"},
      {3, 8, 8, 6, 10, 3, 3, 1, 1, 1, 2, 2, "N01C"},   {0, 12, 13, 4, 9, 3, 3, 2, 1, 1, 1, 1, "N01C"},
      {1, 4, 1, 3, 16, 3, 1, 1, 1, 1, 1, 1, "NC01"},   {2, 10, 10, 3, 40, 4, 4, 3, 0, 0, 1, 1, "NC01"},
      {1, 5, 40, 2, 7, 2, 9, 1, -1, 4, 1, 1, "N01C"},  {2, 11, 11, 8, 12, 3, 3, 2, 0, 1, 1, 4, "NC01"},
  };
  for (const Case& c : cases) {
    const Graph g = model(c);
    const Executable e = compile_for(g, *target);
    SCOPED_TRACE(e.explain());
    for (const std::int64_t batch : c.batch == 0 ? std::vector<std::int64_t>{1, 3} : std::vector{c.batch}) {
      const bool last = c.layout[1] != 'C';
      const Dims shape =
          last ? Dims{batch, c.height, c.width, c.channels} : Dims{batch, c.channels, c.height, c.width};
      const NamedTensors inputs = {{"x", random_tensor(shape, 1)}};
      expect_close(e.run(inputs).at("y"), reference(g, inputs).at("y"));
    }
  }
}

// An image smaller than the window: no rows of results, of no columns, or neither.
TEST_P(Windows, WithoutPositions) {
  const auto target = GetParam().make();
  const Case cases[] = {{1, 2, 5, 1, 1, 3, 3, 1, 0, 0, 1, 1, "NC01"},
                        {1, 5, 2, 16, 16, 3, 3, 1, 0, 0, 1, 1, "N01C"},
                        {1, 2, 30, 16, 32, 3, 3, 1, 0, 0, 1, 1, "N01C"},
                        {2, 1, 1, 4, 8, 3, 3, 2, 0, 0, 1, 4, "NC01"},
                        {1, 2, 40, 16, 16, 3, 3, 1, 0, 0, 1, 16, "N01C"}};
  for (const Case& c : cases) {
    const Graph g = model(c);
    const Executable e = compile_for(g, *target);
    const bool last = c.layout[1] != 'C';
    const Dims shape =
        last ? Dims{c.batch, c.height, c.width, c.channels} : Dims{c.batch, c.channels, c.height, c.width};
    const Tensor y = e.run({{"x", random_tensor(shape, 1)}}).at("y");
    EXPECT_EQ(to_shape(y.dims()), g.outputs()[0].value.shape());
    EXPECT_EQ(y.numel(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Windows, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
