// Graph to machine code, compared with loops written out.
#include "deepseek/compile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "deepseek/graph.h"

namespace deepseek {
namespace {

Tensor random_tensor(Dims dims, unsigned seed) {
  Tensor t(DType::F32, std::move(dims));
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& x : t.as<float>()) x = uniform(rng);
  return t;
}

void expect_near(const Tensor& got, const std::vector<double>& want, double tolerance = 1e-5) {
  ASSERT_EQ(static_cast<std::size_t>(got.numel()), want.size());
  double largest = 1e-30, worst = 0;
  for (const double w : want) largest = std::max(largest, std::abs(w));
  for (std::size_t i = 0; i < want.size(); ++i)
    worst = std::max(worst, std::abs(got.as<float>()[i] - want[i]));
  EXPECT_LE(worst / largest, tolerance);
}

std::vector<double> matmul(const Tensor& a, const Tensor& b, std::int64_t m, std::int64_t n, std::int64_t k) {
  std::vector<double> c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t p = 0; p < k; ++p)
        c[static_cast<std::size_t>(i * n + j)] +=
            static_cast<double>(a.as<float>()[static_cast<std::size_t>(i * k + p)]) *
            b.as<float>()[static_cast<std::size_t>(p * n + j)];
  return c;
}

class Compiled : public testing::TestWithParam<const char*> {
 protected:
  CompileOptions options() const { return {.target = GetParam()}; }
};

TEST_P(Compiled, MatmulWithPrologueAndEpilogue) {
  for (const auto& [m, n, k] :
       {std::tuple{1, 1, 1}, {7, 33, 5}, {28, 64, 96}, {131, 17, 1030}, {64, 96, 128}}) {
    Graph g;
    const Value a = g.placeholder("a", DType::F32, {m, k});
    const Tensor weights = random_tensor({k, n}, 2), bias = random_tensor({n}, 3);
    const Value y = g.op("matmul", {g.op("neg", {a}), g.constant(weights)});
    g.output("y", g.op("relu", {g.op("add", {y, g.constant(bias)})}));
    const Tensor x = random_tensor({m, k}, 1);
    const Tensor got = compile(g, options()).run({{"a", x}}).at("y");
    std::vector<double> want = matmul(x, weights, m, n, k);
    for (std::size_t i = 0; i < want.size(); ++i)
      want[i] =
          std::max(0.0, static_cast<double>(bias.as<float>()[i % static_cast<std::size_t>(n)]) - want[i]);
    expect_near(got, want);
  }
}

TEST_P(Compiled, SoftmaxAtADynamicLength) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim::symbol("n"), Dim::symbol("m")});
  g.output("y", g.op("softmax", {x}, {{"axis", std::int64_t{-1}}}));
  const Executable e = compile(g, options());
  for (const auto& [n, m] : {std::pair{1, 1}, {3, 17}, {5, 128}, {0, 4}}) {
    const Tensor in = random_tensor({n, m}, 7);
    std::vector<double> want;
    for (int i = 0; i < n; ++i) {
      double sum = 0;
      for (int j = 0; j < m; ++j) sum += std::exp(in.as<float>()[static_cast<std::size_t>(i * m + j)]);
      for (int j = 0; j < m; ++j)
        want.push_back(std::exp(in.as<float>()[static_cast<std::size_t>(i * m + j)]) / sum);
    }
    expect_near(e.run({{"x", in}}).at("y"), want);
  }
}

TEST_P(Compiled, ConvolutionOfAnImage) {
  constexpr int kC = 16, kH = 9, kW = 11, kO = 20, kK = 3;
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {2, kC, kH, kW});
  const Tensor w = random_tensor({kO, kC, kK, kK}, 5);
  const std::vector<std::int64_t> ones = {1, 1}, two = {2, 2};
  g.output("y", g.op("conv", {x, g.constant(w)}, {{"strides", two}, {"pad_low", ones}, {"pad_high", ones}}));
  const Tensor in = random_tensor({2, kC, kH, kW}, 6);
  const Tensor got = compile(g, options()).run({{"x", in}}).at("y");
  const int oh = (kH + 2 - kK) / 2 + 1, ow = (kW + 2 - kK) / 2 + 1;
  std::vector<double> want;
  for (int n = 0; n < 2; ++n)
    for (int o = 0; o < kO; ++o)
      for (int i = 0; i < oh; ++i)
        for (int j = 0; j < ow; ++j) {
          double sum = 0;
          for (int c = 0; c < kC; ++c)
            for (int p = 0; p < kK; ++p)
              for (int q = 0; q < kK; ++q) {
                const int h = i * 2 + p - 1, v = j * 2 + q - 1;
                if (h < 0 || h >= kH || v < 0 || v >= kW) continue;
                sum += static_cast<double>(
                           in.as<float>()[static_cast<std::size_t>(((n * kC + c) * kH + h) * kW + v)]) *
                       w.as<float>()[static_cast<std::size_t>(((o * kC + c) * kK + p) * kK + q)];
              }
          want.push_back(sum);
        }
  expect_near(got, want);
}

// The indices are a result too: the kernel's check of them comes after they are stored.
TEST_P(Compiled, AGatherOfAStoredIndexInARow) {
  Graph g;
  const Value x = g.placeholder("x", DType::I64, {3}), table = g.placeholder("table", DType::F32, {5});
  const Value index =
      g.op("select", {g.op("equal", {x, g.scalar(9, DType::I64)}), g.scalar(0, DType::I64), x});
  g.output("index", index);
  g.output("sum", g.op("sum", {g.op("gather", {table, index})}));
  const Tensor in = Tensor::of_int64({1, 9, 4}), values = random_tensor({5}, 3);
  const NamedTensors got = compile(g, options()).run({{"x", in}, {"table", values}});
  EXPECT_EQ(got.at("index").to_int64(), (std::vector<std::int64_t>{1, 0, 4}));
  const auto v = values.as<float>();
  expect_near(got.at("sum"), {static_cast<double>(v[1]) + v[0] + v[4]});
}

INSTANTIATE_TEST_SUITE_P(Targets, Compiled, testing::Values("cpu", "interpreter"));

// 2^40 rows of nothing: no loop may go over them.
TEST(Compile, RowsWithoutElementsTakeNoTime) {
  constexpr std::int64_t kRows = std::int64_t{1} << 40;
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim::symbol("N"), kRows});
  const Value turned = g.op("transpose", {x}, {{"perm", std::vector<std::int64_t>{1, 0}}});
  g.output("y", g.op("exp", {turned}));
  const Executable e = compile(g, {});
  const NamedTensors y = e.run({{"x", Tensor(DType::F32, {0, kRows})}});
  EXPECT_EQ(y.at("y").dims(), (Dims{kRows, 0}));
}

}  // namespace
}  // namespace deepseek
