// Winograd convolution against the definition, over sizes that leave patches, panels and rows unfinished.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <random>

#include "kernels/toom_cook.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
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
  using Sizes = std::pair<std::int64_t, std::int64_t>;
  for (const auto& [m, taps] : {Sizes{2, 3}, Sizes{4, 3}, Sizes{3, 2}, Sizes{3, 4}}) {
    const kernels::ToomCook t = kernels::toom_cook(m, taps);
    std::vector<double> x(static_cast<std::size_t>(t.points())), w(static_cast<std::size_t>(taps));
    for (double& v : x) v = uniform(rng);
    for (double& v : w) v = uniform(rng);
    std::vector<double> product = times(t.input, x);
    const std::vector<double> kernel = times(t.kernel, w);
    for (std::size_t i = 0; i < product.size(); ++i) product[i] *= kernel[i];
    const std::vector<double> y = times(t.output, product);
    for (std::size_t i = 0; i < static_cast<std::size_t>(m); ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < w.size(); ++k) sum += x[i + k] * w[k];
      EXPECT_NEAR(y[i], sum, 1e-13);
    }
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

// A target that says to have other caches or tiles.
class Pretending : public Target {
 public:
  Pretending(std::shared_ptr<Target> target, TargetInfo info)
      : target_(std::move(target)), info_(std::move(info)) {}
  const TargetInfo& info() const override { return info_; }
  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> programs) override {
    return target_->compile(programs);
  }

 private:
  std::shared_ptr<Target> target_;
  TargetInfo info_;
};

// Filters are transformed some channels at a time where caches hold little, in registers where there are many of those
// and few patches.
TEST_P(Winograd, TransformsFiltersAtUse) {
  const auto target = GetParam().make();
  if (target->info().gpu_mapped) return;  // those multiply directly
  TargetInfo small = target->info(), few = small, many = small;
  small.l2_bytes = 96 << 10;
  few.tiles = {{DType::F32, DType::F32, 4, small.vector_bytes / 4, 1, true}};
  many.tiles = {{DType::F32, DType::F32, 12, small.vector_bytes / 2, 1, true}};
  const Case cases[] = {{1, 6, 5, 130, 131, {1, 1}, {1, 1}},
                        {2, 7, 7, 150, 112, {1, 1}, {1, 1}},
                        {0, 9, 3, 128, 128, {1, 0}, {0, 1}}};
  for (const Case& c : cases) {
    const Graph g = model(c);
    const std::int64_t batch = c.batch == 0 ? 3 : c.batch, height = c.height + c.low[0] + c.high[0] - 2,
                       width = c.width + c.low[1] + c.high[1] - 2;
    const NamedTensors inputs = {{"x", random_tensor({batch, c.height, c.width, c.channels}, 1)},
                                 {"residual", random_tensor({batch, height, width, c.filters}, 2)}};
    const Tensor wanted = reference(g, inputs).at("y");
    for (const TargetInfo& info : {small, few, many}) {
      Pretending t(target, info);
      // With 130 channels a tolerance of 2e-6 leaves 4x4 out, without which 2x2 is not at use.
      for (const auto& [way, rtol] :
           {std::pair("winograd at use 2x2", 2e-6), {"winograd at use 4x4", 1e-5}}) {
        const Executable e = lower(run_pipeline(g, {}), t, {.rtol = rtol, .way = way});
        SCOPED_TRACE(e.explain());
        EXPECT_NE(e.explain().find(std::string("relu: ") + way + " of "), std::string::npos);
        expect_close(e.run(inputs).at("y"), wanted, 1e-5);
      }
    }
  }
}

// As in training: filters come with the run, for the gradient turned round and with their channels' places changed.
TEST_P(Winograd, TakesFiltersOfTheRun) {
  const auto target = GetParam().make();
  if (target->info().gpu_mapped) return;
  for (const bool gradient : {false, true})
    for (const auto& [batch, height, channels, filters] :
         {std::array<std::int64_t, 4>{2, 24, 48, 32}, {5, 11, 19, 66}, {1, 3, 16, 16}}) {
      Graph g;
      const Value x = g.placeholder("x", DType::F32, {batch, height, height + 2, channels});
      const Dims dims = gradient ? Dims{channels, filters, 3, 3} : Dims{filters, channels, 3, 3};
      Value w = g.placeholder("w", DType::F32, Shape(dims.begin(), dims.end()));
      if (gradient) w = g.op("reverse", {w}, {{"axes", std::vector<std::int64_t>{2, 3}}});
      const std::vector<std::int64_t> one{1, 1};
      g.output("y", g.op("conv", {x, w},
                         {{"pad_low", one},
                          {"pad_high", one},
                          {"input_layout", std::string("N01C")},
                          {"kernel_layout", std::string(gradient ? "IO01" : "OI01")},
                          {"output_layout", std::string("N01C")}}));
      const NamedTensors inputs = {{"x", random_tensor({batch, height, height + 2, channels}, 1)},
                                   {"w", random_tensor(dims, 2)}};
      const Tensor wanted = reference(g, inputs).at("y");
      for (const char* way : {"winograd 2x2", "winograd 4x4"}) {
        const Executable e = lower(run_pipeline(g, {}), *target, {.way = way});
        SCOPED_TRACE(e.explain());
        EXPECT_NE(e.explain().find(std::string("conv: ") + way), std::string::npos);
        expect_close(e.run(inputs).at("y"), wanted, 1e-5);
      }
    }
}

TEST_P(Winograd, KeepsWhatItSays) {
  const auto target = GetParam().make();
  if (target->info().gpu_mapped) return;
  for (const auto& [way, numbers] : {std::pair("winograd 4x4", 36), std::pair("winograd 2x2", 16),
                                     std::pair("winograd at use 4x4", 9), std::pair("gemm", 9)}) {
    const std::int64_t channels = 128, bytes = channels * channels * numbers * 4;
    const Graph g = run_pipeline(model({1, 8, 8, channels, channels, {1, 1}, {1, 1}}), {});
    const Executable e = lower(g, *target, {.way = way});
    char said[64];
    std::snprintf(said, sizeof said, "%s price", way);
    const std::string text = e.explain(), about = text.substr(text.find(said));
    std::snprintf(said, sizeof said, " %.1f MB", static_cast<double>(bytes) / 1e6);
    EXPECT_NE(about.substr(0, about.find_first_of(",(")).find(said), std::string::npos) << text;
    std::int64_t kept = 0;
    for (const ValueInfo& v : e.data().values)
      if (v.place == Place::Constant && v.index >= 0)
        kept += static_cast<std::int64_t>(e.data().constants[static_cast<std::size_t>(v.index)].bytes());
    EXPECT_EQ(kept, bytes) << text;
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

TEST_P(Winograd, IsTakenWhereTheBatchIsNotKnown) {
  const auto target = GetParam().make();
  if (target->info().gpu_mapped) return;
  for (const std::int64_t size : {56, 28, 14}) {
    const auto way = [&](std::int64_t batch) {
      const std::string text =
          compile_for(model({batch, size, size, 64, 64, {1, 1}, {1, 1}}), *target).explain();
      const std::size_t begin = text.find("relu: ");
      return text.substr(begin, text.find(" of ", begin) - begin);
    };
    EXPECT_EQ(way(0), way(8)) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Winograd, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
