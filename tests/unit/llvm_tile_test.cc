// Register tiles through LLVM: matrix multiplies of every size around the tile's.
#include <gtest/gtest.h>

#include <random>
#include <type_traits>

#include "loops/convert.h"
#include "support/gemm_program.h"
#include "support/run_kernel.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"
#include "targets/llvm/object.h"

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

struct Bf16 {
  explicit Bf16(int digit) : bits(loops::float_to_bf16(static_cast<float>(digit))) {}
  operator float() const { return loops::bf16_to_float(bits); }  // NOLINT: a number
  std::uint16_t bits;
};

template <class Left, class Right, class Acc>
void expect_gemm_of_groups(Target& target, const GemmShape& s, std::int64_t rows, std::int64_t cols,
                           const loops::Program& p, std::int64_t group) {
  std::mt19937 random(static_cast<unsigned>(s.m * 10007 + s.n * 101 + s.k + rows + cols));
  std::uniform_int_distribution<int> any(-8, 8), positive(0, 8);
  std::vector<Left> a;
  std::vector<Right> b(static_cast<std::size_t>((s.k + group - 1) / group * group * s.n), Right(0));
  for (std::int64_t i = 0; i < s.m * s.k; ++i) a.push_back(Left(positive(random)));
  const auto at = [&](std::int64_t k, std::int64_t n) -> Right& {
    return b[static_cast<std::size_t>((k / group * s.n + n) * group + k % group)];
  };
  for (std::int64_t k = 0; k < s.k; ++k)
    for (std::int64_t n = 0; n < s.n; ++n) at(k, n) = Right(any(random));
  if constexpr (std::is_same_v<Left,
                               std::uint8_t>) {  // here and there pairs whose sum is more than 16 bits hold
    for (std::size_t i = 0; i + 1 < a.size(); i += 190) a[i] = a[i + 1] = 255;
    for (std::size_t i = 0; i < b.size(); ++i)
      if (i % 5 < 2) b[i] = i % 3 == 0 ? Right(-128) : Right(127);
  }
  const std::vector<Acc> bias(static_cast<std::size_t>(s.n), Acc{3}), y(static_cast<std::size_t>(s.m * s.n));
  const auto kernel = target.compile({&p, 1})[0];
  const auto run =
      run_kernel(*kernel, p, {bytes_of(a), bytes_of(b), bytes_of(bias), bytes_of(y)}, {}, Guard::End, 3);
  const auto got = run.template values<Acc>(3);
  for (std::int64_t i = 0; i < s.m; ++i)
    for (std::int64_t j = 0; j < s.n; ++j) {
      Acc sum{3};
      for (std::int64_t k = 0; k < s.k; ++k)
        sum += static_cast<Acc>(a[static_cast<std::size_t>(i * s.k + k)]) * static_cast<Acc>(at(k, j));
      ASSERT_EQ(got[static_cast<std::size_t>(i * s.n + j)], std::max(sum, Acc{0}))
          << i << ", " << j << " of " << s.m << "x" << s.n << "x" << s.k;
    }
}

TEST_P(LlvmTile, PairsAndQuadsOfNeighboursMultiply) {
  const codegen::Machine machine = cpu_isa(GetParam()).machine;
  const std::int64_t lanes = machine.lanes;
  for (const GemmShape& s :
       {GemmShape{8, 2 * lanes, 16}, GemmShape{12, 4 * lanes, 36}, GemmShape{12, 4 * lanes, 64},
        GemmShape{5, 20, 7}, GemmShape{1, 1, 1}, GemmShape{9, 3 * lanes, 33}}) {
    const loops::Program pairs =
        gemm_program(s, 4, 2 * lanes, DType::BF16, DType::F32, 2, testing::Interleaved{DType::BF16, 2});
    const loops::Program quads =
        gemm_program(s, 4, 2 * lanes, DType::U8, DType::I32, 4, testing::Interleaved{DType::I8, 4});
    const loops::Program steps =
        gemm_program(s, 4, 2 * lanes, DType::U8, DType::I32, 16, testing::Interleaved{DType::I8, 4});
    const loops::Program words =
        gemm_program(s, 4, 2 * lanes, DType::I16, DType::I32, 2, testing::Interleaved{DType::I16, 2});
    expect_gemm_of_groups<Bf16, Bf16, float>(*target_, s, 4, 2 * lanes, pairs, 2);
    expect_gemm_of_groups<std::int16_t, std::int16_t, std::int32_t>(*target_, s, 4, 2 * lanes, words, 2);
    for (const loops::Program& bytes : {quads, steps})
      expect_gemm_of_groups<std::uint8_t, std::int8_t, std::int32_t>(*target_, s, 4, 2 * lanes, bytes, 4);
    if (s.m % 4 != 0 || s.n % (2 * lanes) != 0) continue;
    EXPECT_EQ(codegen::compile_assembly(pairs, machine).find("dpbf16ps") != std::string::npos,
              machine.dot_bf16);
    if (machine.dot_int16) {
      EXPECT_NE(codegen::compile_assembly(words, machine).find("pmaddwd"), std::string::npos);
    }
    if (machine.byte_pairs && s.k % 16 == 0) {
      EXPECT_NE(codegen::compile_assembly(steps, machine).find("pmaddubsw"), std::string::npos);
    }
    EXPECT_EQ(codegen::compile_assembly(quads, machine).find("dpbusd") != std::string::npos,
              machine.dot_int8);
  }
}

// A word holds eight rows of a column, low bits first.
TEST_P(LlvmTile, NibblesBecomeFloats) {
  using namespace loops;
  constexpr std::int64_t kRows = 16;
  const std::int64_t columns = 2 * cpu_isa(GetParam()).machine.lanes;
  std::mt19937 random(7);
  std::uniform_int_distribution<int> any(0, 255);
  std::vector<std::uint8_t> nibbles(static_cast<std::size_t>(kRows * columns / 2));
  for (std::uint8_t& x : nibbles) x = static_cast<std::uint8_t>(any(random));
  for (const DType type : {DType::I4, DType::U4}) {
    const Buffer from = make_buffer("from", type, Space::Global, kRows * columns),
                 to = make_buffer("to", DType::F32, Space::Global, kRows * columns);
    const Tile t = std::make_shared<const TileNode>(TileNode{"t", DType::F32, 1, columns});
    const Var k = loop_var("k", kRows), i = loop_var("i", 1), j = loop_var("j", columns),
              x = make_var("x", DType::F32);
    const Expr first = floordiv(var(k), 8) * (columns * 8) + mod(var(k), 8);
    const Stmt row = block(
        {stmt(TileAlloc{t}), stmt(TileLoad{t, from, first, 1, 8, 1, columns}),
         stmt(TileStore{t, i, j, x, 1, columns, stmt(Store{to, var(k) * columns + var(j), var(x), {}})})});
    const Program p{"widen",
                    {{from, Access::Read}, {to, Access::Write}},
                    {},
                    {},
                    stmt(For{k, kRows, LoopKind::Serial, row})};
    const auto kernel = target_->compile({&p, 1})[0];
    const std::vector<float> nothing(static_cast<std::size_t>(kRows * columns));
    const auto got =
        run_kernel(*kernel, p, {bytes_of(nibbles), bytes_of(nothing)}, {}, Guard::End, 1).values<float>(1);
    for (std::int64_t r = 0; r < kRows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) {
        const int byte = nibbles[static_cast<std::size_t>((r / 8 * columns + c) * 4 + r % 8 / 2)];
        const int nibble = r % 2 == 0 ? byte & 15 : byte >> 4;
        EXPECT_EQ(got[static_cast<std::size_t>(r * columns + c)],
                  static_cast<float>(type == DType::I4 && nibble > 7 ? nibble - 16 : nibble))
            << r << ", " << c;
      }
  }
}

}  // namespace
}  // namespace deepseek
