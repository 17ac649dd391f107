// Register tiles through LLVM: matrix multiplies of every size around the tile's.
#include <gtest/gtest.h>

#include <random>

#include "support/gemm_program.h"
#include "support/run_kernel.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"

namespace deepseek {
namespace {

using testing::bytes_of;
using testing::gemm_program;
using testing::GemmShape;
using testing::GuardedMemory;
using testing::run_kernel;

class LlvmTile : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { target_ = cpu_target(GetParam()); }
  std::shared_ptr<Target> target_;
};
INSTANTIATE_TEST_SUITE_P(, LlvmTile, ::testing::ValuesIn(host_isas()),
                         [](const auto& info) { return info.param; });

template <class In, class Acc>
void expect_gemm(Target& target, const GemmShape& s, std::int64_t rows, std::int64_t cols, DType in,
                 DType acc, std::int64_t depth) {
  std::mt19937 random(static_cast<unsigned>(s.m * 10007 + s.n * 101 + s.k));
  std::uniform_int_distribution<int> digit(-8, 8);  // sums of products stay exact
  const auto draw = [&](std::int64_t n, auto zero) {
    std::vector<decltype(zero)> v(static_cast<std::size_t>(n));
    for (auto& x : v) x = static_cast<decltype(zero)>(digit(random));
    return v;
  };
  const auto a = draw(s.m * s.k, In{}), b = draw(s.k * s.n, In{});
  const auto bias = draw(s.n, Acc{});
  const loops::Program p = gemm_program(s, rows, cols, in, acc, depth);
  const auto kernel = target.compile({&p, 1})[0];
  for (const auto side : {Guard::End, Guard::Begin}) {
    const auto run =
        run_kernel(*kernel, p, {bytes_of(a), bytes_of(b), bytes_of(bias), bytes_of(draw(s.m * s.n, Acc{}))},
                   {}, side, 3);
    const auto y = run.template values<Acc>(3);
    for (std::int64_t i = 0; i < s.m; ++i)
      for (std::int64_t j = 0; j < s.n; ++j) {
        Acc sum = bias[static_cast<std::size_t>(j)];
        for (std::int64_t k = 0; k < s.k; ++k)
          sum += static_cast<Acc>(a[static_cast<std::size_t>(i * s.k + k)]) *
                 static_cast<Acc>(b[static_cast<std::size_t>(k * s.n + j)]);
        ASSERT_EQ(y[static_cast<std::size_t>(i * s.n + j)], std::max(sum, Acc{0}))
            << i << ", " << j << " of " << s.m << "x" << s.n << "x" << s.k;
      }
  }
}

TEST_P(LlvmTile, GemmOfEverySizeInTheTargetsTiles) {
  for (const TileShape& t : target_->info().tiles)
    for (const GemmShape& s :
         {GemmShape{t.m, t.n, 8}, GemmShape{2 * t.m, 3 * t.n, 5}, GemmShape{1, 1, 1},
          GemmShape{t.m + 1, t.n + 1, 7}, GemmShape{t.m - 1, t.n - 1, 3}, GemmShape{29, 37, 31}})
      expect_gemm<float, float>(*target_, s, t.m, t.n, DType::F32, DType::F32, 1);
}

TEST_P(LlvmTile, OtherShapesAndTypesOfTilesCompileToo) {
  expect_gemm<float, float>(*target_, {13, 21, 17}, 3, 5, DType::F32, DType::F32, 1);
  expect_gemm<float, float>(*target_, {13, 21, 17}, 4, 8, DType::F32, DType::F32, 8);
  expect_gemm<float, float>(*target_, {33, 18, 40}, 16, 16, DType::F32, DType::F32, 16);
  expect_gemm<std::int8_t, std::int32_t>(*target_, {13, 40, 19}, 4, 16, DType::I8, DType::I32, 4);
  expect_gemm<double, double>(*target_, {9, 20, 11}, 4, 16, DType::F64, DType::F64, 1);
}

}  // namespace
}  // namespace deepseek
