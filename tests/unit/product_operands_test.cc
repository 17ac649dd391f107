// Products by how their operands lie: the left one turned, as in gradients of weights, read as it is or computed on the
// way; the right one packed, before or by the task, or, where few rows read it, as it lies; and so deep that their sums wait between chunks.
// Against the definition, on any number of threads bit by bit.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/turned_rows.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/cpu/cpu_target.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_close;
using testing::random_tensor;
using testing::reference;

class ProductOperands : public ::testing::TestWithParam<testing::NamedTarget> {};

struct Case {
  std::int64_t batch, m, k, n;
  bool turned, computed;
  bool right_turned = false;
};

// relu(left * w + residual)
Graph model(const Case& c) {
  Graph g;
  const Shape shape = c.turned ? Shape{c.batch, c.k, c.m} : Shape{c.batch, c.m, c.k};
  Value left = g.placeholder("x", DType::F32, shape);
  if (c.computed) left = g.op("mul", {left, g.placeholder("z", DType::F32, shape)});
  if (c.turned) left = g.op("transpose", {left}, {{"perm", std::vector<std::int64_t>{0, 2, 1}}});
  Value w =
      g.placeholder("w", DType::F32, c.right_turned ? Shape{c.batch, c.n, c.k} : Shape{c.batch, c.k, c.n});
  if (c.right_turned) w = g.op("transpose", {w}, {{"perm", std::vector<std::int64_t>{0, 2, 1}}});
  const Value r = g.placeholder("r", DType::F32, {c.batch, c.m, c.n});
  g.output("y", g.op("relu", {g.op("add", {g.op("matmul", {left, w}), r})}));
  return g;
}

TEST_P(ProductOperands, AreTheDefinition) {
  const auto target = GetParam().make();
  for (const Case& c : {Case{1, 130, 9, 31, true, false},
                        {1, 300, 70, 20, true, true},   // packed by tasks
                        {1, 45, 130, 210, true, true},  // packed by a phase
                        {3, 28, 65, 33, true, false},
                        {2, 1, 40, 3, true, false},
                        {1, 5, 1, 70, true, true},
                        {1, 64, 1030, 24, true, false},  // rows that alias when they are gathered
                        {1, 17, 20011, 37, false, false},
                        {1, 15, 20000, 40, true, false},
                        {1, 40, 9001, 37, true, true},
                        {2, 3, 20480, 5, false, true},
                        {1, 31, 10240, 70, false, true},  // chunks of packed rows
                        {1, 3, 20480, 70, false, false},
                        {1, 2, 0, 70, false, false},
                        {1, 1, 300, 517, false, false},  // few rows of columns that no panel divides
                        {2, 5, 64, 200, false, true},
                        {3, 40, 33, 130, false, false},
                        {1, 256, 20, 70, true, true},
                        {1, 60, 300, 1001, false, false},  // panels packed by the task that reads them
                        {1, 60, 301, 1001, false, false, true},
                        {2, 130, 33, 517, false, true, true},
                        {1, 400, 64, 700, false, false},   // several of them, row by row
                        {1, 90, 3001, 150, false, false},  // a chunk of each at a time
                        {1, 90, 3001, 150, false, false, true}}) {
    SCOPED_TRACE(::testing::Message() << c.batch << " x " << c.m << " x " << c.k << " x " << c.n);
    const Graph g = model(c);
    NamedTensors inputs;
    int seed = 0;
    for (const Node* input : g.inputs()) {
      Dims dims;
      for (const Dim& d : input->out().shape()) dims.push_back(d.value());
      inputs.emplace(input->name, random_tensor(dims, ++seed));
    }
    const Tensor expected = reference(g, inputs).at("y");
    Tensor first;
    for (const int threads : {1, 2, 5}) {
      const Executable e = lower(run_pipeline(g, {}), *target, {.threads = threads, .way = "gemm"});
      const Tensor y = e.run(inputs).at("y");
      expect_close(y, expected);
      if (threads == 1) first = y;
      const auto bytes = static_cast<std::size_t>(y.numel()) * sizeof(float);
      EXPECT_EQ(std::memcmp(y.data(), first.data(), bytes), 0) << threads << " threads";
    }
  }
}

TEST(ProductOperands, PackedTilesOfATurnedOneLieInDifferentSets) {
  constexpr std::int64_t kLine = 16;  // elements
  for (const std::int64_t mr : {1, 6, 12, 14})
    for (const std::int64_t steps : {0, 1, 9, 512, 1536, 16384}) {
      const std::int64_t size = kernels::turned_tile_size(steps, mr);
      EXPECT_GE(size, steps * mr);
      EXPECT_LE(size, steps * mr + 3 * kLine);
      EXPECT_EQ(size / kLine % 2, 1) << steps << " x " << mr;
      EXPECT_EQ(size % kLine, 0);
    }
}

TEST(ProductOperands, FewRowsReadTheRightOneAsItLies) {
  const auto cpu = cpu_target();
  const auto packs = [&](std::int64_t rows) {
    const Case c{1, rows, 64, 200, false, false};
    const Executable e = lower(run_pipeline(model(c), {}), *cpu, {.way = "gemm"});
    return e.explain().find("pack_") != std::string::npos;
  };
  EXPECT_FALSE(packs(1));
  EXPECT_FALSE(packs(100));
  EXPECT_TRUE(packs(2000));
}

TEST(ProductOperands, PanelsThatOneTaskReadsArePackedByIt) {
  const auto cpu = cpu_target();
  const auto packs_before = [&](std::int64_t rows) {
    const Case c{1, rows, 300, 1001, false, false};
    return lower(run_pipeline(model(c), {}), *cpu, {.way = "gemm"}).explain().find("pack_") !=
           std::string::npos;
  };
  EXPECT_FALSE(packs_before(60));
  EXPECT_TRUE(packs_before(20000));
}

INSTANTIATE_TEST_SUITE_P(Targets, ProductOperands, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
