// Results of more than the caches keep are stored past them.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using loops::Access;
using testing::random_tensor;

// A target whose caches keep next to nothing; it keeps the programs.
class SmallCaches : public Target {
 public:
  explicit SmallCaches(std::shared_ptr<Target> target) : target_(std::move(target)), info_(target_->info()) {
    info_.kept_bytes = 1 << 12;
  }
  std::vector<loops::Program> programs;

  const TargetInfo& info() const override { return info_; }
  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> p) override {
    programs.insert(programs.end(), p.begin(), p.end());
    return target_->compile(p);
  }
  int streams() const {
    int count = 0;
    for (const loops::Program& p : programs)
      for (const loops::Param& param : p.params) count += param.access == Access::Stream;
    return count;
  }

 private:
  std::shared_ptr<Target> target_;
  TargetInfo info_;
};

class Streams : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  // The graph is right, and so many parameters of its kernels are streams.
  void check(const Graph& g, const NamedTensors& inputs, int streams) {
    SmallCaches target(GetParam().make());
    testing::expect_like_reference(testing::compile_for(g, target), g, inputs);
    EXPECT_EQ(target.streams(), target.info().gpu_mapped ? 0 : streams);
  }
};

TEST_P(Streams, ElementsAndRows) {
  for (const std::int64_t columns : {64, 65, 3}) {  // vectors of whole lines, of few, and of none
    const std::int64_t rows = 2000 / columns;
    Graph g;
    const Value x = g.placeholder("x", DType::F32, {rows, columns});
    g.output("y", g.op("softmax", {x}));
    g.output("z", g.op("gelu", {x}));
    g.output("h", g.op("cast", {g.op("exp", {x})}, {{"dtype", DType::BF16}}));  // half as many bytes: kept
    check(g, {{"x", random_tensor({rows, columns}, 1)}}, 2);
  }
}

TEST_P(Streams, NotWhatIsReadAgainNorFewNorOfProducts) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {40, 40}), w = g.placeholder("w", DType::F32, {40, 40});
  const Value exponentials = g.op("exp", {x});
  g.output("e", exponentials);
  g.output("s",
           g.op("div", {exponentials, g.op("sum", {exponentials},
                                           {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", true}})}));
  g.output("p", g.op("matmul", {x, w}));
  g.output("few", g.op("sum", {x}, {{"axes", std::vector<std::int64_t>{1}}}));
  SmallCaches target(GetParam().make());
  const NamedTensors inputs = {{"x", random_tensor({40, 40}, 1)}, {"w", random_tensor({40, 40}, 2)}};
  testing::expect_like_reference(testing::compile_for(g, target), g, inputs);
  for (const loops::Program& p : target.programs)
    for (const loops::Param& param : p.params) {
      if (param.access == Access::Stream) EXPECT_FALSE(loops::is_read(p, param.buffer)) << print(p);
      if (p.name.find("_matmul") == 2) EXPECT_NE(param.access, Access::Stream) << print(p);
    }
}

TEST_P(Streams, LargeArgumentsOfMapsAreScanned) {
  constexpr std::int64_t kRows = 300, kColumns = 300;
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {kRows, kColumns}),
              bias = g.placeholder("bias", DType::F32, {kColumns});
  g.output("map", g.op("tanh", {g.op("add", {x, bias})}));
  g.output("sums", g.op("sum", {x}, {{"axes", std::vector<std::int64_t>{0}}}));
  SmallCaches target(GetParam().make());
  testing::expect_like_reference(
      testing::compile_for(g, target), g,
      {{"x", random_tensor({kRows, kColumns}, 1)}, {"bias", random_tensor({kColumns}, 2)}});
  int scans = 0;
  for (const loops::Program& p : target.programs)
    for (const loops::Param& param : p.params)
      if (param.access == Access::Scan) {
        ++scans;
        EXPECT_EQ(param.buffer->extent.int_value(), kRows * kColumns) << print(p);
        EXPECT_EQ(print(loops::parse(print(p))), print(p));
      }
  EXPECT_EQ(scans, target.info().gpu_mapped ? 0 : 1);
}

INSTANTIATE_TEST_SUITE_P(Targets, Streams, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
