// Gradients of convolution kernels against the definition: sizes that no tile divides, strides, dilations, padding on one
// side, few pixels and many, operands that are computed on the way and with channels outside, results whose channels lie
// outside or inside and of which more is computed.
#include <gtest/gtest.h>

#include "graph/gradient.h"
#include "kernels/register_tile.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::compile_for;
using testing::expect_like_reference;
using testing::random_tensor;

using List = std::vector<std::int64_t>;

struct Case {
  std::int64_t images, height, width, channels, filters, taps_y, taps_x;
  List strides, low, high, dilation;
};
const Case kCases[] = {
    {2, 6, 5, 16, 16, 3, 3, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {1, 40, 33, 9, 21, 3, 3, {1, 1}, {1, 1}, {1, 1}, {1, 1}},  // in parts
    {3, 9, 70, 33, 40, 3, 2, {2, 3}, {1, 0}, {0, 1}, {1, 1}},  // strides and borders of one side
    {2, 31, 29, 17, 8, 5, 3, {1, 2}, {2, 1}, {1, 0}, {1, 2}},  // dilations
    {4, 2, 2, 8, 130, 3, 3, {1, 1}, {1, 1}, {1, 1}, {1, 1}},   // taps that lie outside for most
    {2, 7, 7, 24, 33, 1, 1, {1, 1}, {0, 0}, {0, 0}, {1, 1}},
    {1, 50, 41, 12, 10, 1, 1, {2, 2}, {0, 0}, {0, 0}, {1, 1}},
    {1, 3, 90, 8, 8, 3, 7, {1, 1}, {0, 6}, {2, 0}, {1, 1}},
    {2, 29, 36, 17, 34, 3, 3, {1, 1}, {1, 0}, {0, 2}, {1, 1}},  // in chunks, also Winograd's
    {2, 9, 8, 17, 130, 3, 3, {1, 1}, {0, 3}, {0, 1}, {1, 1}},
    {2, 5, 4, 16, 16, 3, 3, {1, 1}, {0, 0}, {0, 0}, {1, 1}},
    {3, 3, 4, 150, 70, 3, 2, {1, 1}, {1, 0}, {1, 1}, {1, 1}},  // blocks of channels that are not full
    {1, 47, 45, 35, 67, 1, 1, {1, 1}, {0, 0}, {0, 0}, {1, 1}},
};

bool suits_winograd(const Case& c) {
  return c.taps_y == 3 && c.taps_x == 3 && c.strides == List{1, 1} && c.dilation == List{1, 1} &&
         std::min(c.channels, c.filters) >= 16;
}

class ConvGradient : public ::testing::TestWithParam<testing::NamedTarget> {};

// `last`: channels innermost; `computed`: both operands come from what is elementwise, and something elementwise reads the
// gradient, which has channels innermost where the operands do not.
Graph model(const Case& c, bool last, bool computed) {
  Graph g;
  const Shape shape =
      last ? Shape{c.images, c.height, c.width, c.channels} : Shape{c.images, c.channels, c.height, c.width};
  Value x = g.placeholder("x", DType::F32, shape);
  if (computed) x = g.op("relu", {x});
  const bool inside = computed && !last;
  const Value w = g.placeholder("w", DType::F32,
                                inside ? Shape{c.taps_y, c.taps_x, c.channels, c.filters}
                                       : Shape{c.filters, c.channels, c.taps_y, c.taps_x});
  const std::string layout = last ? "N01C" : "NC01";
  const Value y = g.op("conv", {x, w},
                       {{"strides", c.strides},
                        {"pad_low", c.low},
                        {"pad_high", c.high},
                        {"kernel_dilation", c.dilation},
                        {"input_layout", layout},
                        {"kernel_layout", inside ? "01IO" : "OI01"},
                        {"output_layout", layout}});
  Value dy = g.placeholder("dy", DType::F32, y.shape());
  if (computed) dy = g.op("mul", {dy, dy});
  Value dw = gradients(g, y, dy, std::span(&w, 1))[0];
  if (computed) dw = g.op("add", {dw, g.op("mul", {w, g.placeholder("decay", DType::F32, {w.dim(-1)})})});
  g.output("dw", dw);
  return g;
}

NamedTensors random_inputs(const Graph& g) {
  NamedTensors inputs;
  for (const auto& n : g.nodes()) {
    if (!n->is_input()) continue;
    Dims dims;
    for (const Dim& d : n->outputs[0].shape) dims.push_back(d.value());
    inputs[n->name] = random_tensor(dims, static_cast<unsigned>(inputs.size() + 1));
  }
  return inputs;
}

// More patches than the second cache holds, several parts of several chunks, the last one not full.
TEST(WinogradGradient, OfManyPatchesIsTheDirectOne) {
  const Graph g = model({9, 21, 20, 18, 301, 3, 3, {1, 1}, {1, 1}, {1, 1}, {1, 1}}, true, false);
  const NamedTensors inputs = random_inputs(g);
  const Graph done = run_pipeline(g, {});
  for (const testing::NamedTarget& named : testing::every_target()) {
    const auto target = named.make();
    if (!kernels::register_tile(target->info())) continue;
    const auto by = [&](const std::string& way) {
      const Executable e = lower(done, *target, {.way = way});
      EXPECT_NE(e.explain().find(way + " of "), std::string::npos);
      return e.run(inputs).at("dw");
    };
    SCOPED_TRACE(named.name);
    testing::expect_close(by("winograd gradient"), by("conv gradient"), 2e-5);
  }
}

// As PyTorch keeps kernels: no step after turns what lies with channels innermost.
TEST(KernelGradient, LeavesAsItIsWanted) {
  const Graph g = model({4, 8, 8, 32, 48, 3, 3, {1, 1}, {1, 1}, {1, 1}, {1, 1}}, true, false);
  for (const testing::NamedTarget& named : testing::every_target()) {
    const auto target = named.make();
    SCOPED_TRACE(named.name);
    EXPECT_EQ(compile_for(g, *target).explain().find("transpose"), std::string::npos);
  }
}

TEST_P(ConvGradient, IsTheDefinition) {
  const auto target = GetParam().make();
  for (const Case& c : kCases)
    for (const auto& [last, computed] :
         {std::pair(true, false), {false, false}, {true, true}, {false, true}}) {
      const Graph g = model(c, last, computed);
      const NamedTensors inputs = random_inputs(g);
      for (const std::string way : {"", "conv gradient", "winograd gradient"}) {
        if (!way.empty() && !kernels::register_tile(target->info())) continue;
        if (way.starts_with("winograd") && !suits_winograd(c)) continue;
        const Executable e =
            way.empty() ? compile_for(g, *target) : lower(run_pipeline(g, {}), *target, {.way = way});
        SCOPED_TRACE(e.explain());
        if (!way.empty()) EXPECT_NE(e.explain().find(way + " of "), std::string::npos);
        expect_like_reference(e, g, inputs, 2e-5);
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, ConvGradient, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
