// Statements of the loop language through LLVM, beside the interpreter.
#include <gtest/gtest.h>

#include "loops/interpreter.h"
#include "support/compare_kernels.h"
#include "support/isas.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"

namespace deepseek {
namespace {

using namespace loops;
using testing::draw_elements;
using testing::expect_same;
using testing::GuardedMemory;
using testing::Random;
using testing::run_kernel;

Stmt loop(LoopKind kind, const Var& v, const Expr& n, std::vector<Stmt> body) {
  return stmt(For{v, n, kind, block(std::move(body))});
}
Stmt put(const Buffer& b, const Expr& at, const Expr& value, const Expr& predicate = {}) {
  return stmt(Store{b, at, value, predicate});
}
Stmt add(const Buffer& b, const Expr& at, const Expr& value, const Expr& predicate = {}) {
  return stmt(Accumulate{Reducer::Sum, b, at, value, predicate});
}
Buffer global(const char* name, DType t, const Expr& n) { return make_buffer(name, t, Space::Global, n); }
Program program(std::vector<Param> params, std::vector<Stmt> body) {
  Program p{"statements", std::move(params), {}, {"first", "second"}, block(std::move(body))};
  p.symbols = collect_symbols(p);
  return p;
}

class LlvmStatement : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { target_ = cpu_target(GetParam()); }

  // `patch` changes the drawn data, for indices that must be in range.
  void compare(const Program& p, double tolerance = 0, std::vector<std::int64_t> dims = {},
               const std::function<void(std::vector<std::vector<std::byte>>&)>& patch = {}) {
    verify(p);
    Random r(3);
    std::vector<std::vector<std::byte>> data;
    for (const Param& param : p.params) {
      const std::int64_t n = evaluate(param.buffer->extent, p.symbols, dims);
      data.push_back(draw_elements(r, param.buffer->dtype, n));
    }
    if (patch) patch(data);
    const auto kernel = target_->compile({&p, 1})[0];
    for (const auto side : {Guard::End, Guard::Begin})
      expect_same(p, run_kernel(*kernel, p, data, dims, side), run_kernel(*interpret(p), p, data, dims),
                  GetParam(), tolerance);
  }

  std::shared_ptr<Target> target_;
};
INSTANTIATE_TEST_SUITE_P(, LlvmStatement, ::testing::ValuesIn(testing::vector_isas()),
                         [](const auto& info) { return info.param; });

// Channels are lanes, padding is a uniform predicate, sums live in per-lane registers.
TEST_P(LlvmStatement, ConvolutionOverChannels) {
  const std::int64_t height = 6, width = 5, channels = 37;
  const Buffer x = global("x", DType::I32, height * width * channels),
               w = global("w", DType::I32, 9 * channels);
  const Buffer y = global("y", DType::I32, height * width * channels);
  const Buffer sum = make_buffer("sum", DType::I32, Space::Register, 2);
  const Var p = loop_var("p", height), q = loop_var("q", width), c = loop_var("c", channels);
  const Var i = loop_var("i", 3), j = loop_var("j", 3);
  const Expr row = var(p) + var(i) - 1, col = var(q) + var(j) - 1;
  const Expr inside = row >= 0 && row < height && col >= 0 && col < width;
  const Expr pixel = load(x, (row * width + col) * channels + var(c), inside, zero(DType::I32));
  const Expr weight = load(w, (var(i) * 3 + var(j)) * channels + var(c));
  compare(program(
      {{x, Access::Read}, {w, Access::Read}, {y, Access::Write}},
      {loop(LoopKind::Parallel, p, height,
            {loop(LoopKind::Serial, q, width,
                  {loop(LoopKind::Vector, c, channels,
                        {stmt(Alloc{sum}), put(sum, 0, zero(DType::I32)), put(sum, 1, one(DType::I32)),
                         loop(LoopKind::Serial, i, 3,
                              {loop(LoopKind::Unrolled, j, 3, {add(sum, mod(var(j), 2), pixel * weight)})}),
                         put(y, (var(p) * width + var(q)) * channels + var(c),
                             load(sum, 0) + load(sum, 1) * 3)})})})}));
}

TEST_P(LlvmStatement, AccumulatesOfEveryKind) {
  const std::int64_t n = 100;
  const Buffer x = global("x", DType::I32, n), which = global("which", DType::I32, n);
  const Buffer bins = global("bins", DType::I32, 7), rows = global("rows", DType::I32, 4),
               y = global("y", DType::I32, n);
  const Var i = loop_var("i", n), k = loop_var("k", 4);
  const Expr v = load(x, var(i)), bin = cast(DType::I64, load(which, var(i)));
  const Expr positive = v > constant(DType::I32, std::int64_t{0});
  compare(program({{x, Access::Read},
                   {which, Access::Read},
                   {bins, Access::ReadWrite},
                   {rows, Access::ReadWrite},
                   {y, Access::ReadWrite}},
                  {loop(LoopKind::Vector, i, n,
                        {add(bins, bin, v, positive),  // lanes may meet
                         add(y, var(i), v, positive),  // each lane its own
                         loop(LoopKind::Serial, k, 4,
                              {add(rows, var(k), v * cast(DType::I32, var(k)))}),  // all lanes one
                         stmt(If{positive, add(y, Expr(n - 1) - var(i), v), nullptr})})}),
          0, {}, [](auto& data) {
            auto* indices = reinterpret_cast<std::int32_t*>(data[1].data());
            for (int e = 0; e < 100; ++e) indices[e] = (e * e + e / 3) % 7;
          });
}

TEST_P(LlvmStatement, ConditionalSumsInRegisters) {
  for (const std::int64_t n : {3, 40, 256}) {
    const Buffer x = global("x", DType::I64, n), y = global("y", DType::I64, 3);
    const Var i = loop_var("i", n);
    const Expr v = load(x, var(i));
    compare(program({{x, Access::Read}, {y, Access::ReadWrite}},
                    {loop(LoopKind::Vector, i, n,
                          {add(y, 0, v, v > 3), stmt(If{v < 0, block({add(y, 1, v)}), add(y, 2, v)})})}));
  }
}

TEST_P(LlvmStatement, FloatSumsAndMaximaPerRow) {
  const Expr n = symbol("n");
  const std::int64_t width = 150;
  const Buffer x = global("x", DType::F32, n * width), total = global("total", DType::F32, n),
               top = global("top", DType::F32, n);
  const Buffer acc = make_buffer("acc", DType::F32, Space::Register, 1);
  const Var r = loop_var("r", n), i = loop_var("i", width);
  const Expr v = load(x, var(r) * width + var(i));
  const auto tame = [](auto& data) {
    auto* f = reinterpret_cast<float*>(data[0].data());
    for (std::size_t e = 0; e < data[0].size() / 4; ++e) f[e] = static_cast<float>(e % 37) / 8 - 2;
  };
  compare(
      program({{x, Access::Read}, {total, Access::Write}, {top, Access::Write}},
              {loop(LoopKind::Parallel, r, n,
                    {stmt(Alloc{acc}), put(acc, 0, zero(DType::F32)), put(top, var(r), lowest(DType::F32)),
                     loop(LoopKind::Vector, i, width,
                          {add(acc, 0, v), stmt(Accumulate{Reducer::Max, top, var(r), v, {}})}),
                     put(total, var(r), load(acc, 0))})}),
      1e-5, {5}, tame);
}

TEST_P(LlvmStatement, PackedElements) {
  for (const DType t : {DType::I4, DType::U4, DType::I2, DType::U2, DType::F4E2M1}) {
    const std::int64_t n = 50;
    const Buffer x = global("x", t, n), y = global("y", t, n), wide = global("wide", DType::F32, n);
    const Var i = loop_var("i", n), j = loop_var("j", n);
    compare(program({{x, Access::Read}, {y, Access::ReadWrite}, {wide, Access::Write}},
                    {loop(LoopKind::Vector, i, n, {put(wide, var(i), cast(DType::F32, load(x, var(i))))}),
                     loop(LoopKind::Vector, j, n,
                          {put(y, Expr(n - 1) - var(j),
                               cast(t, cast(DType::F32, load(x, var(j))) + constant(DType::F32, 1.0)))})}));
  }
}

// On a cache line or not (a guard page lies behind), whole vectors or not, side by side or not. What is asked for
// ahead lies behind the guard page at the end.
TEST_P(LlvmStatement, StreamsAndScans) {
  for (const DType t : {DType::F32, DType::BF16, DType::F64, DType::U8})
    for (const std::int64_t width : {64, 48, 5}) {
      const std::int64_t rows = 7, n = rows * width + 3;
      const Buffer x = global("x", t, n), y = global("y", t, n), z = global("z", t, n);
      const Var i = loop_var("i", rows), j = loop_var("j", width), k = loop_var("k", 3);
      const Expr at = var(i) * width + var(j);
      compare(
          program({{x, Access::Scan}, {y, Access::Stream}, {z, Access::Stream}},
                  {loop(LoopKind::Parallel, i, rows,
                        {loop(LoopKind::Vector, j, width,
                              {put(y, at, load(x, at)), put(z, Expr(n - 1) - at, load(x, at))})}),
                   loop(LoopKind::Vector, k, 3,
                        {put(y, var(k) + rows * width, load(x, var(k))), put(z, var(k), load(x, var(k)))})}));
    }
}

TEST_P(LlvmStatement, WhileSharedCopiesAndThreads) {
  const std::int64_t n = 64;
  const Buffer x = global("x", DType::I32, n), y = global("y", DType::I32, n),
               count = global("count", DType::I64, 1);
  const Buffer s = make_buffer("s", DType::I32, Space::Shared, n);
  const Var b = loop_var("b", 2), t = loop_var("t", 32), token = make_var("token");
  compare(program(
      {{x, Access::Read}, {y, Access::Write}, {count, Access::ReadWrite}},
      {put(count, 0, 1), stmt(While{load(count, 0) < 1000, put(count, 0, load(count, 0) * 3)}),
       loop(LoopKind::Parallel, b, 2,
            {stmt(Alloc{s}), stmt(CopyAsync{s, 0, 16, x, var(b) * 32, 16, 2, 16, token}), stmt(Wait{token}),
             loop(LoopKind::Vector, t, 32, {put(y, var(b) * 32 + var(t), load(s, Expr(31) - var(t)))})})}));
}

}  // namespace
}  // namespace deepseek
