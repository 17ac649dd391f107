// Inverted residuals as one kernel against the definition: which groups are joined, and what they give.
#include <gtest/gtest.h>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/registry.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

struct Case {
  std::int64_t batch, height, width, channels;  // of what comes
  std::int64_t expanded, projected;             // channels; 0: no such convolution
  std::int64_t taps_y, taps_x, stride, low, high, dilation_y;
};

class Model {
 public:
  // A batch of 0 means a symbol.
  explicit Model(const Case& c) : c_(c) {
    const Dim batch = c.batch == 0 ? Dim::symbol("N") : Dim(c.batch);
    x = graph.placeholder("x", DType::F32, {batch, c.height, c.width, c.channels});
    middle = c.expanded == 0 ? c.channels : c.expanded;
    expanded = c.expanded == 0 ? x : activation(conv(x, c.channels, c.expanded), c.expanded);
    convolved = activation(depthwise(expanded), middle);
    y = c.projected == 0 ? convolved : bias(conv(convolved, middle, c.projected), c.projected);
    if (y.shape() == x.shape()) y = graph.op("add", {y, x});
  }
  NamedTensors inputs(std::int64_t batch) const {
    return {{"x", random_tensor({batch, c_.height, c_.width, c_.channels}, 1)}};
  }
  Value conv(Value v, std::int64_t from, std::int64_t to) {
    return graph.op("conv", {v, graph.constant(random_tensor({to, from, 1, 1}, ++seed_))},
                    {{"input_layout", std::string("N01C")}, {"output_layout", std::string("N01C")}});
  }

  Graph graph;
  Value x, expanded, convolved, y;
  std::int64_t middle;

 private:
  Value depthwise(Value v) {
    return graph.op("conv", {v, graph.constant(random_tensor({middle, 1, c_.taps_y, c_.taps_x}, ++seed_))},
                    {{"strides", std::vector<std::int64_t>{c_.stride, c_.stride}},
                     {"pad_low", std::vector<std::int64_t>{c_.low, c_.low}},
                     {"pad_high", std::vector<std::int64_t>{c_.high, c_.high}},
                     {"kernel_dilation", std::vector<std::int64_t>{c_.dilation_y, 1}},
                     {"feature_groups", middle},
                     {"input_layout", std::string("N01C")},
                     {"output_layout", std::string("N01C")}});
  }
  Value bias(Value v, std::int64_t channels) {
    return graph.op("add", {v, graph.constant(random_tensor({channels}, ++seed_))});
  }
  // Not 0 at 0: what stands beyond the border is not an activation of it.
  Value activation(Value v, std::int64_t channels) { return graph.op("sigmoid", {bias(v, channels)}); }

  Case c_;
  unsigned seed_ = 1;
};

Executable joined(const Graph& g, Target& target, int threads = 1) {
  return lower(run_pipeline(g, {}), target, {.threads = threads, .way = "cascade"});
}
bool is_joined(const Executable& e) { return e.explain().find(": cascade") != std::string::npos; }

class Cascade : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  std::shared_ptr<Target> target = GetParam().make();
};

constexpr Case kCases[] = {{1, 8, 8, 16, 32, 16, 3, 3, 1, 1, 1, 1},     // a residual
                           {2, 13, 19, 9, 33, 10, 3, 3, 2, 1, 1, 1},    // nothing divides
                           {1, 14, 20, 24, 40, 24, 5, 5, 1, 2, 2, 1},   // five rows in the ring
                           {1, 17, 30, 8, 16, 0, 5, 5, 2, 2, 2, 1},     // nothing after
                           {1, 16, 16, 32, 0, 16, 3, 3, 1, 1, 1, 1},    // nothing before
                           {0, 9, 23, 11, 20, 7, 3, 3, 1, 1, 1, 1},     // any batch
                           {1, 12, 11, 8, 17, 9, 3, 3, 1, 2, 2, 2},     // rows apart
                           {1, 11, 10, 8, 16, 8, 2, 2, 3, 0, 0, 1},     // rows and columns that nobody reads
                           {1, 10, 7, 8, 16, 8, 3, 1, 2, 0, 3, 1},      // a border after alone
                           {1, 1, 1, 8, 48, 100, 3, 3, 1, 1, 1, 1},     // one element
                           {3, 3, 2, 130, 70, 200, 7, 7, 1, 3, 3, 1}};  // windows larger than the image

TEST_P(Cascade, IsTheDefinition) {
  for (const Case& c : kCases)
    for (const int threads : {1, 3}) {
      Model m(c);
      const Graph& g = m.graph;
      m.graph.output("y", m.y);
      const Executable e = joined(g, *target, threads);
      SCOPED_TRACE(e.explain());
      if (target->info().name == "cpu") EXPECT_TRUE(is_joined(e));
      for (const std::int64_t batch : c.batch == 0 ? std::vector<std::int64_t>{1, 3} : std::vector{c.batch})
        testing::expect_like_reference(e, g, m.inputs(batch));
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, Cascade, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

// What somebody else wants as well stays in memory; the others are joined.
class PartOfACascade : public ::testing::Test {
 protected:
  std::shared_ptr<Target> cpu = find_target("cpu", "");
  Model m{{1, 9, 9, 16, 32, 12, 3, 3, 1, 1, 1, 1}};

  void expect_joined(bool rest_is_joined, const char* apart) {
    m.graph.output("y", m.y);
    const Executable e = joined(m.graph, *cpu);
    SCOPED_TRACE(e.explain());
    EXPECT_EQ(is_joined(e), rest_is_joined);
    EXPECT_NE(e.explain().find(apart), std::string::npos);
    testing::expect_like_reference(e, m.graph, m.inputs(1));
  }
};

TEST_F(PartOfACascade, WhereTheExpandedIsAResult) {
  m.graph.output("expanded", m.expanded);
  expect_joined(true, ": gemm");
}

TEST_F(PartOfACascade, WhereTheConvolvedIsAveraged) {
  m.graph.output("mean", m.graph.op("mean", {m.convolved}, {{"axes", std::vector<std::int64_t>{1, 2}}}));
  expect_joined(true, ": gemm");
}

TEST_F(PartOfACascade, WhereBothAreResults) {
  m.graph.output("expanded", m.expanded);
  m.graph.output("convolved", m.convolved);
  expect_joined(false, ": depthwise");
}

TEST_F(PartOfACascade, WhereTheConvolvedIsReadTurned) {
  m.y = m.graph.op("add", {m.convolved, m.graph.op("transpose", {m.convolved},
                                                   {{"perm", std::vector<std::int64_t>{0, 2, 1, 3}}})});
  m.y = m.conv(m.y, 32, 12);
  expect_joined(true, ": gemm");
}

TEST_F(PartOfACascade, LeftOut) {
  m.graph.output("y", m.y);
  for (const char* way : {"cascade", "apart"}) {
    const Executable e = testing::compile_for(m.graph, *cpu, {way});
    EXPECT_EQ(is_joined(e), std::string(way) == "apart") << e.explain();
    testing::expect_like_reference(e, m.graph, m.inputs(1));
  }
}

TEST_F(PartOfACascade, LessThanFp32) {
  m.graph.output("y", m.y);
  EXPECT_FALSE(is_joined(testing::compile_for(m.graph, *cpu, {}, kernels::Precision::Bf16)));
}

// Small ones stay in the caches anyway, and say what was chosen from.
TEST_F(PartOfACascade, ApartWhereItDoesNotPay) {
  m.graph.output("y", m.y);
  const std::string text = testing::compile_for(m.graph, *cpu).explain();
  EXPECT_EQ(text.find(": cascade"), std::string::npos) << text;
}

}  // namespace
}  // namespace deepseek
