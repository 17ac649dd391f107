// Vector loops through LLVM, against results computed here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "deepseek/tensor.h"
#include "runtime/kernel_loader.h"
#include "support/isas.h"
#include "support/run_kernel.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"

namespace deepseek {
namespace {

using namespace loops;
using testing::bytes_of;
using testing::GuardedMemory;
using testing::run_kernel;

class LlvmVector : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { target_ = cpu_target(GetParam()); }
  std::shared_ptr<const Kernel> compile(const Program& p) { return target_->compile({&p, 1})[0]; }

  std::shared_ptr<Target> target_;
};
INSTANTIATE_TEST_SUITE_P(, LlvmVector, ::testing::ValuesIn(testing::vector_isas()),
                         [](const auto& info) { return info.param; });

Stmt vector_loop(const Var& v, const Expr& n, Stmt body) {
  return stmt(For{v, n, LoopKind::Vector, std::move(body)});
}

std::vector<float> ramp(std::size_t n, float first = 0.5f) {
  std::vector<float> v(n);
  std::iota(v.begin(), v.end(), first);
  return v;
}

TEST_P(LlvmVector, ElementwiseAtEveryLength) {
  const Expr n = symbol("n");
  const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
               y = make_buffer("y", DType::F32, Space::Global, n);
  const Var i = loop_var("i", n);
  const Expr at = load(x, var(i));
  const Program p{
      "double_plus_one",
      {{x, Access::Read}, {y, Access::Write}},
      {"n"},
      {},
      vector_loop(i, n,
                  stmt(Store{y, var(i), at * constant(DType::F32, 2.0) + constant(DType::F32, 1.0), {}}))};
  const auto kernel = compile(p);
  for (const std::int64_t size : {0, 1, 7, 8, 15, 16, 17, 31, 64, 1001})
    for (const auto side : {Guard::End, Guard::Begin}) {
      const auto in = ramp(static_cast<std::size_t>(size));
      const auto run = run_kernel(*kernel, p, {bytes_of(in), bytes_of(in)}, {{size}}, side);
      const auto out = run.values<float>(1);
      for (std::size_t k = 0; k < in.size(); ++k) ASSERT_EQ(out[k], 2 * in[k] + 1) << size << " at " << k;
    }
}

// Rows of one element more than vectors hold: what is stored there must not reach into the next row.
TEST_P(LlvmVector, NarrowTailsOfOneElement) {
  for (const DType t : {DType::BF16, DType::F16, DType::I8, DType::I16, DType::I32})
    for (const std::int64_t n : {9, 17, 33, 65})
      for (const Guard side : {Guard::End, Guard::Begin}) {
        const Buffer x = make_buffer("x", DType::I64, Space::Global, 2 * n),
                     y = make_buffer("y", t, Space::Global, 2 * n);
        const Var row = loop_var("row", 2), i = loop_var("i", n);
        const Expr at = (Expr(1) - var(row)) * n + var(i);
        const Program p{"narrow",
                        {{x, Access::Read}, {y, Access::Write}},
                        {},
                        {},
                        stmt(For{row, 2, LoopKind::Serial,
                                 vector_loop(i, n, stmt(Store{y, at, cast(t, load(x, at)), {}}))})};
        std::vector<std::int64_t> in(static_cast<std::size_t>(2 * n));
        std::iota(in.begin(), in.end(), -n);
        const auto bytes = static_cast<std::size_t>(deepseek::bytes(t, 2 * n));
        const auto run = run_kernel(*compile(p), p, {bytes_of(in), std::vector<std::byte>(bytes)}, {}, side);
        const Tensor out = Tensor::wrap(t, {2 * n}, run.buffers[1].data(), nullptr);
        for (std::int64_t k = 0; k < 2 * n; ++k)
          ASSERT_EQ(out.at(k), in[static_cast<std::size_t>(k)]) << name(t) << " " << n << " at " << k;
      }
}

// uint8(round(x) + zero): halves go to even numbers, what is beyond saturates, NaN is 0.
TEST_P(LlvmVector, QuantisedBytes) {
  constexpr float kLargestByte = 255, kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> in = {std::nanf(""), kInfinity, -kInfinity,    3e38f,      -3e38f,
                           1e-40f,        -0.0f,     2147483648.0f, 33554433.0f};
  for (int i = -600; i <= 600; ++i)
    for (const float by : {0.0f, 1e-4f, -1e-4f}) in.push_back(static_cast<float>(i) / 2 + by);
  for (const float zero : {0.0f, 120.0f, 255.0f, -7.0f, 65536.0f, 0.5f, 1e9f}) {
    const Expr n = symbol("n");
    const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
                 y = make_buffer("y", DType::U8, Space::Global, n);
    const Var i = loop_var("i", n);
    const Expr whole = make(Op::Round, {load(x, var(i))}) + constant(DType::F32, static_cast<double>(zero));
    const Program p{"quantise",
                    {{x, Access::Read}, {y, Access::Write}},
                    {"n"},
                    {},
                    vector_loop(i, n, stmt(Store{y, var(i), cast(DType::U8, whole), {}}))};
    const auto size = static_cast<std::int64_t>(in.size());
    const std::vector<std::uint8_t> out(in.size());
    const auto run = run_kernel(*compile(p), p, {bytes_of(in), bytes_of(out)}, {{size}}, Guard::End);
    const auto got = run.values<std::uint8_t>(1);
    for (std::size_t k = 0; k < in.size(); ++k) {
      const float sum = std::nearbyint(in[k]) + zero;
      const float byte = std::isnan(sum) ? 0 : std::clamp(sum, 0.0f, kLargestByte);
      ASSERT_EQ(got[k], static_cast<std::uint8_t>(byte)) << in[k] << " + " << zero;
    }
  }
}

TEST_P(LlvmVector, SumKeepsLanesAndAddsThem) {
  for (const std::int64_t n : {1, 5, 16, 63, 64, 65, 200}) {
    const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
                 y = make_buffer("y", DType::F32, Space::Global, 1);
    const Var i = loop_var("i", n);
    const Program p{"sum",
                    {{x, Access::Read}, {y, Access::ReadWrite}},
                    {},
                    {},
                    vector_loop(i, n, stmt(Accumulate{Reducer::Sum, y, 0, load(x, var(i)), {}}))};
    const auto in = ramp(static_cast<std::size_t>(n), 1);
    const auto run = run_kernel(*compile(p), p, {bytes_of(in), bytes_of(std::vector<float>{100})});
    const auto sum = n * (n + 1) / 2;
    EXPECT_EQ(run.values<float>(1)[0], 100 + static_cast<float>(sum)) << n;
  }
}

TEST_P(LlvmVector, MaxOfNothingLeavesTheElementAndNanWins) {
  const Expr n = symbol("n");
  const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
               y = make_buffer("y", DType::F32, Space::Global, 1);
  const Var i = loop_var("i", n);
  const Program p{"largest",
                  {{x, Access::Read}, {y, Access::ReadWrite}},
                  {"n"},
                  {},
                  vector_loop(i, n, stmt(Accumulate{Reducer::Max, y, 0, load(x, var(i)), {}}))};
  const auto kernel = compile(p);
  EXPECT_EQ(run_kernel(*kernel, p, {{}, bytes_of(std::vector<float>{-3})}, {{0}}).values<float>(1)[0], -3);
  auto in = ramp(100);
  EXPECT_EQ(
      run_kernel(*kernel, p, {bytes_of(in), bytes_of(std::vector<float>{-3})}, {{100}}).values<float>(1)[0],
      99.5f);
  for (const std::size_t where : {0u, 50u, 99u}) {
    in = ramp(100);
    in[where] = NAN;
    EXPECT_TRUE(std::isnan(run_kernel(*kernel, p, {bytes_of(in), bytes_of(std::vector<float>{-3})}, {{100}})
                               .values<float>(1)[0]));
  }
}

TEST_P(LlvmVector, StridedAndReversedLoadsStayInside) {
  for (const std::int64_t stride : {-1, 2, 3, 4, 5})
    for (const std::int64_t n : {3, 16, 40}) {
      const std::int64_t size = (n - 1) * std::abs(stride) + 1;
      const Buffer x = make_buffer("x", DType::F32, Space::Global, size),
                   y = make_buffer("y", DType::F32, Space::Global, n);
      const Var i = loop_var("i", n);
      const Expr index = stride < 0 ? Expr(n - 1) - var(i) : var(i) * Expr(stride);
      const Program p{"strided",
                      {{x, Access::Read}, {y, Access::Write}},
                      {},
                      {},
                      vector_loop(i, n, stmt(Store{y, var(i), load(x, index), {}}))};
      const auto in = ramp(static_cast<std::size_t>(size));
      for (const auto side : {Guard::End, Guard::Begin}) {
        const auto out =
            run_kernel(*compile(p), p, {bytes_of(in), bytes_of(ramp(static_cast<std::size_t>(n)))}, {}, side)
                .values<float>(1);
        for (std::int64_t k = 0; k < n; ++k)
          ASSERT_EQ(out[static_cast<std::size_t>(k)],
                    in[static_cast<std::size_t>(stride < 0 ? n - 1 - k : k * stride)])
              << stride << " " << n << " at " << k;
      }
    }
}

// Row and column recovered from a flat index, a gather by data, and a load that is only made where it may be.
TEST_P(LlvmVector, DividedIndicesGathersAndPredicates) {
  const std::int64_t rows = 5, cols = 48, n = rows * cols;
  const Buffer x = make_buffer("x", DType::F32, Space::Global, cols),
               which = make_buffer("which", DType::I32, Space::Global, rows);
  const Buffer y = make_buffer("y", DType::F32, Space::Global, n);
  const Var i = loop_var("i", n);
  const Expr row = floordiv(var(i), cols), col = mod(var(i), cols);
  const Expr shifted = col + cast(DType::I64, load(which, row));
  const Expr value = load(x, shifted, shifted < Expr(cols), constant(DType::F32, -1.0));
  const Program p{"rows",
                  {{x, Access::Read}, {which, Access::Read}, {y, Access::Write}},
                  {},
                  {},
                  vector_loop(i, n, stmt(Store{y, var(i), value, {}}))};
  const auto in = ramp(static_cast<std::size_t>(cols));
  const std::vector<std::int32_t> shift{0, 3, 47, 60, 16};
  const auto out =
      run_kernel(*compile(p), p, {bytes_of(in), bytes_of(shift), bytes_of(ramp(static_cast<std::size_t>(n)))})
          .values<float>(2);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) {
      const auto at = static_cast<std::size_t>(c + shift[static_cast<std::size_t>(r)]);
      ASSERT_EQ(out[static_cast<std::size_t>(r * cols + c)], at < in.size() ? in[at] : -1) << r << " " << c;
    }
}

TEST_P(LlvmVector, DivergentIfAndAssert) {
  const std::int64_t n = 37;
  const Buffer x = make_buffer("x", DType::I32, Space::Global, n),
               y = make_buffer("y", DType::I32, Space::Global, n);
  const Var i = loop_var("i", n);
  const Expr v = load(x, var(i));
  const Stmt body = block({stmt(If{v < constant(DType::I32, std::int64_t{0}), stmt(Store{y, var(i), -v, {}}),
                                   stmt(Store{y, var(i), v * constant(DType::I32, std::int64_t{10}), {}})}),
                           stmt(Assert{v < constant(DType::I32, std::int64_t{100}), 7})});
  const Program p{"branches",
                  {{x, Access::Read}, {y, Access::Write}},
                  {},
                  {"a", "b", "c", "d", "e", "f", "too large"},
                  vector_loop(i, n, body)};
  std::vector<std::int32_t> in(static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < in.size(); ++k) in[k] = (k % 3 == 0 ? -1 : 1) * static_cast<std::int32_t>(k);
  const auto kernel = compile(p);
  const auto run = run_kernel(*kernel, p, {bytes_of(in), bytes_of(in)});
  for (std::size_t k = 0; k < in.size(); ++k)
    ASSERT_EQ(run.values<std::int32_t>(1)[k], in[k] < 0 ? -in[k] : in[k] * 10);
  EXPECT_EQ(run.status, 0);
  in.back() = 100;
  EXPECT_EQ(run_kernel(*kernel, p, {bytes_of(in), bytes_of(in)}).status, 7);
}

TEST_P(LlvmVector, PhasesScratchAndWorkspace) {
  const Expr n = symbol("n");
  const std::int64_t width = 100;
  const Buffer x = make_buffer("x", DType::F32, Space::Global, n * Expr(width)),
               y = make_buffer("y", DType::F32, Space::Global, n);
  const Buffer w = make_buffer("w", DType::F32, Space::Global, n),
               s = make_buffer("s", DType::F32, Space::Shared, width);
  const Var r = loop_var("r", n), i = loop_var("i", width), j = loop_var("j", width), k = loop_var("k", n);
  const Stmt rows =
      block({stmt(Alloc{s}),
             vector_loop(i, width, stmt(Store{s, var(i), load(x, var(r) * Expr(width) + var(i)), {}})),
             stmt(Store{w, var(r), zero(DType::F32), {}}),
             vector_loop(j, width, stmt(Accumulate{Reducer::Sum, w, var(r), load(s, var(j)), {}}))});
  const Program p{"row_sums",
                  {{x, Access::Read}, {y, Access::Write}, {w, Access::Workspace}},
                  {"n"},
                  {},
                  block({stmt(For{r, n, LoopKind::Parallel, rows}),
                         vector_loop(k, n, stmt(Store{y, var(k), load(w, var(k)), {}}))})};
  const auto kernel = compile(p);
  const std::int64_t size = 9;
  const KernelShape shape = kernel->shape({{size}});
  EXPECT_EQ(shape.grid, (std::vector<std::int64_t>{size, 1}));
  EXPECT_EQ(shape.scratch_bytes, (std::vector<std::int64_t>{448, 0}));
  EXPECT_EQ(shape.workspace_bytes, (std::vector<std::int64_t>{size * 4}));
  const auto in = ramp(static_cast<std::size_t>(size * width), 0);
  const auto run = run_kernel(*kernel, p, {bytes_of(in), bytes_of(ramp(9)), {}}, {{size}}, Guard::End, 4);
  for (std::size_t row = 0; row < 9; ++row)
    EXPECT_EQ(run.values<float>(1)[row],
              std::accumulate(in.begin() + static_cast<std::ptrdiff_t>(row * 100),
                              in.begin() + static_cast<std::ptrdiff_t>(row * 100 + 100), 0.0f));
}

// A saved kernel is loaded by the runtime, without a compiler.
TEST_P(LlvmVector, ImagesRunWithoutTheCompiler) {
  const Expr n = symbol("n");
  const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
               y = make_buffer("y", DType::F32, Space::Global, n);
  const Buffer w = make_buffer("w", DType::F32, Space::Global, n);
  const Var i = loop_var("i", n), j = loop_var("j", n);
  const Expr exp = make(Op::Exp, {load(x, var(i))});
  const Program p{"exponential",
                  {{x, Access::Read}, {y, Access::Write}, {w, Access::Workspace}},
                  {"n"},
                  {},
                  block({stmt(For{i, n, LoopKind::Parallel, stmt(Store{w, var(i), exp, {}})}),
                         stmt(For{j, n, LoopKind::Parallel, stmt(Store{y, var(j), load(w, var(j)), {}})})})};
  const auto kernel = compile(p);
  const auto image = kernel->image();
  ASSERT_TRUE(image);
  const auto loaded = load_kernel(*image);
  const auto in = ramp(50, -20);
  const auto want = run_kernel(*kernel, p, {bytes_of(in), bytes_of(in), {}}, {{50}}).values<float>(1);
  EXPECT_EQ(run_kernel(*loaded, p, {bytes_of(in), bytes_of(in), {}}, {{50}}).values<float>(1), want);
  EXPECT_NEAR(want[20], 1, 1e-6);
}

}  // namespace
}  // namespace deepseek
