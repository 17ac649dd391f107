#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <numeric>

#include "deepseek/error.h"
#include "loops/convert.h"
#include "loops/interpreter.h"
#include "targets/interpreter/interpreter_target.h"
#include "unit/loops_run.h"

namespace deepseek::loops {
namespace {

using deepseek::testing::run_kernel;

struct Harness {
  Program p;
  Buffer param(const char* name, DType t, Expr extent, Access a = Access::Read) {
    Buffer b = make_buffer(name, t, Space::Global, std::move(extent));
    p.params.push_back({b, a});
    return b;
  }
  std::int32_t run(std::vector<void*> buffers, std::vector<std::int64_t> dims = {}, bool check = true,
                   std::uint64_t seed = 1) {
    p.name = "test";
    p.symbols = collect_symbols(p);
    return run_kernel(*interpret(p, {.check = check, .seed = seed}), std::move(buffers), std::move(dims));
  }
};

Stmt loop(const Var& v, Expr extent, LoopKind k, Stmt body) {
  return stmt(For{v, std::move(extent), k, std::move(body)});
}

TEST(Interpreter, ReluOverASymbolicExtent) {
  Harness h;
  const Expr n = symbol("N");
  const Buffer x = h.param("x", DType::F32, n), y = h.param("y", DType::F32, n, Access::Write);
  const Var i = loop_var("i", n);
  h.p.body = loop(i, n, LoopKind::Parallel, stmt(Store{y, var(i), max(load(x, var(i)), 0), {}}));
  std::vector<float> in = {-1, 2, NAN, 0, 5}, out(5);
  for (const bool check : {false, true}) {
    EXPECT_EQ(h.run({in.data(), out.data()}, {5}, check), 0);
    EXPECT_EQ(out[0], 0);
    EXPECT_EQ(out[1], 2);
    EXPECT_TRUE(std::isnan(out[2]));
    EXPECT_EQ(out[4], 5);
  }
}

TEST(Interpreter, NestedLoopsAccumulateAndHoist) {
  Harness h;
  const Expr m = symbol("M"), k = symbol("K");
  const Buffer a = h.param("a", DType::F32, m * k), b = h.param("b", DType::F32, k),
               y = h.param("y", DType::F32, m, Access::Write);
  const Var i = loop_var("i", m), j = loop_var("j", k);
  h.p.body =
      loop(i, m, LoopKind::Parallel,
           block({stmt(Store{y, var(i), zero(DType::F32), {}}),
                  loop(j, k, LoopKind::Vector,
                       stmt(Accumulate{
                           Reducer::Sum, y, var(i), load(a, var(i) * k + var(j)) * load(b, var(j)), {}}))}));
  std::vector<float> av(12), bv = {1, 10, 100, 1000}, out(3);
  std::iota(av.begin(), av.end(), 0.F);
  EXPECT_EQ(h.run({av.data(), bv.data(), out.data()}, {4, 3}), 0);
  EXPECT_EQ(out, (std::vector<float>{3210, 7654, 12098}));
}

TEST(Interpreter, LoadsOfOneStatementSeeOneState) {
  Harness h;
  const Buffer x = h.param("x", DType::I32, 2, Access::ReadWrite);
  const Var t = make_var("t", DType::I32);
  const Expr first = load(x, 0);
  h.p.body =
      block({stmt(Let{t, first}), stmt(Store{x, 0, load(x, 1), {}}), stmt(Store{x, 1, var(t) + first, {}})});
  std::vector<std::int32_t> v = {3, 5};
  EXPECT_EQ(h.run({v.data()}), 0);
  EXPECT_EQ(v, (std::vector<std::int32_t>{5, 8}));
}

TEST(Interpreter, WhileIfAndAssert) {
  Harness h;
  const Buffer x = h.param("x", DType::I64, 1, Access::ReadWrite),
               steps = h.param("steps", DType::I64, 1, Access::ReadWrite);
  const Expr v = load(x, 0);
  h.p.messages = {"never", "positive"};
  const Stmt half = stmt(Store{x, 0, floordiv(v, 2), {}}), grow = stmt(Store{x, 0, v * 3 + 1, {}});
  h.p.body = block(
      {stmt(Assert{v > 0, 2}),
       stmt(While{
           v != 1 && v > 0,
           block({stmt(If{mod(v, 2) == 0, half, grow}),
                  stmt(Accumulate{Reducer::Sum, steps, 0, constant(DType::I64, std::int64_t{1}), {}})})})});
  std::int64_t value = 27, count = 0;
  EXPECT_EQ(h.run({&value, &count}), 0);
  EXPECT_EQ(count, 111);
  value = -4;
  EXPECT_EQ(h.run({&value, &count}), 2);
}

TEST(Interpreter, NarrowTypesRoundAfterEachOperation) {
  Harness h;
  const Buffer x = h.param("x", DType::BF16, 2), y = h.param("y", DType::BF16, 1, Access::Write);
  h.p.body = stmt(Store{y, 0, (load(x, 0) + load(x, 1)) - load(x, 0), {}});
  std::uint16_t in[] = {float_to_bf16(256.F), float_to_bf16(1.F)}, out = 7;
  EXPECT_EQ(h.run({in, &out}), 0);
  EXPECT_EQ(bf16_to_float(out), 0.F);  // 257 rounds to 256
}

TEST(Interpreter, SubByteStorage) {
  Harness h;
  const Buffer x = h.param("x", DType::I4, 5), y = h.param("y", DType::U2, 5, Access::Write);
  const Var i = loop_var("i", 5);
  h.p.body = loop(i, 5, LoopKind::Serial,
                  stmt(Store{y, var(i), cast(DType::U2, cast(DType::I32, load(x, var(i))) + 1), {}}));
  const std::uint8_t in[] = {0xF0, 0x21, 0x03};  // 0, -1, 1, 2, 3
  std::uint8_t out[] = {0xff, 0xff};
  EXPECT_EQ(h.run({const_cast<std::uint8_t*>(in), out}), 0);
  EXPECT_EQ(out[0], 0b11100001);  // 1, 0, 2, 3
  EXPECT_EQ(out[1] & 3, 0);
}

TEST(Interpreter, PredicatesGuardMemory) {
  Harness h;
  const Buffer x = h.param("x", DType::F32, 4), y = h.param("y", DType::F32, 4, Access::Write);
  const Var i = loop_var("i", 6);
  h.p.body = loop(i, 6, LoopKind::Vector,
                  stmt(Store{y, var(i), load(x, var(i) - 1, var(i) >= 1 && var(i) <= 4, 9.0), var(i) < 4}));
  std::vector<float> in = {1, 2, 3, 4}, out(4);
  EXPECT_EQ(h.run({in.data(), out.data()}), 0);
  EXPECT_EQ(out, (std::vector<float>{9, 1, 2, 3}));
}

TEST(Interpreter, CheckingNamesBufferIndexAndExtent) {
  Harness h;
  const Buffer x = h.param("x", DType::F32, symbol("N")), y = h.param("y", DType::F32, 1, Access::Write);
  h.p.body = stmt(Store{y, 0, load(x, symbol("N")), {}});
  float in[4] = {}, out = 0;
  try {
    h.run({in, &out}, {3});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::Internal);
    EXPECT_NE(std::string(e.what()).find("x[0 ... 2]"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("index 3"), std::string::npos) << e.what();
  }
  EXPECT_EQ(h.run({in, &out}, {3}, false), 0);
}

TEST(Interpreter, CheckingShufflesLanes) {
  Harness h;
  const Buffer x = h.param("x", DType::I64, 9, Access::ReadWrite);
  const Var i = loop_var("i", 8);
  // Each lane reads what its neighbour writes: the result depends on the order.
  h.p.body = loop(i, 8, LoopKind::Vector, stmt(Store{x, var(i) + 1, load(x, var(i)) + 1, {}}));
  bool differs = false;
  for (std::uint64_t seed = 1; seed < 6; ++seed) {
    std::vector<std::int64_t> v(9, 0);
    h.run({v.data()}, {}, true, seed);
    differs |= v[8] != 8;
  }
  EXPECT_TRUE(differs);
}

TEST(Interpreter, ThreadsMeetAtBarriers) {
  // Each block reverses its part through shared memory.
  Harness h;
  constexpr std::int64_t kThreads = 8, kBlocks = 3;
  const Buffer x = h.param("x", DType::I32, Expr(kThreads * kBlocks), Access::ReadWrite);
  const Buffer s = make_buffer("s", DType::I32, Space::Shared, kThreads);
  const Var b = loop_var("b", kBlocks), t = loop_var("t", kThreads);
  const Expr at = var(b) * kThreads + var(t);
  h.p.body = loop(
      b, kBlocks, LoopKind::Block,
      block({stmt(Alloc{s}), loop(t, kThreads, LoopKind::Thread,
                                  block({stmt(Store{s, var(t), load(x, at), {}}), stmt(Barrier{}),
                                         stmt(Store{x, at, load(s, Expr(kThreads - 1) - var(t)), {}})}))}));
  std::vector<std::int32_t> v(std::size_t{kThreads * kBlocks});
  std::iota(v.begin(), v.end(), 0);
  EXPECT_EQ(h.run({v.data()}), 0);
  EXPECT_EQ(v[0], 7);
  EXPECT_EQ(v[7], 0);
  EXPECT_EQ(v[16], 23);
}

TEST(Interpreter, NestedThreadLoopsShareTheBarrier) {
  Harness h;
  const Buffer x = h.param("x", DType::I32, 12, Access::ReadWrite);
  const Buffer s = make_buffer("s", DType::I32, Space::Shared, 12);
  const Var b = loop_var("b", 1), ty = loop_var("ty", 3), tx = loop_var("tx", 4), k = loop_var("k", 2);
  // Twice: transpose 3x4 by shared memory, as 4x3.
  const Expr mine = var(ty) * 4 + var(tx), other = var(tx) * 3 + var(ty);
  const Stmt body = loop(k, 2, LoopKind::Serial,
                         block({stmt(Store{s, mine, load(x, mine), {}}), stmt(Barrier{}),
                                stmt(Store{x, other, load(s, mine), {}}), stmt(Barrier{})}));
  h.p.body =
      loop(b, 1, LoopKind::Block,
           block({stmt(Alloc{s}), loop(ty, 3, LoopKind::Thread, loop(tx, 4, LoopKind::Thread, body))}));
  std::vector<std::int32_t> v(12), expected(12), once(12);
  std::iota(v.begin(), v.end(), 0);
  for (std::size_t i = 0; i < 12; ++i) once[i % 4 * 3 + i / 4] = v[i];
  for (std::size_t i = 0; i < 12; ++i) expected[i % 4 * 3 + i / 4] = once[i];
  EXPECT_EQ(h.run({v.data()}), 0);
  EXPECT_EQ(v, expected);
}

TEST(Interpreter, TilesMultiply) {
  Harness h;
  const Buffer a = h.param("a", DType::F32, 5 * 3), b = h.param("b", DType::F32, 3 * 4),
               y = h.param("y", DType::F32, 5 * 4, Access::Write);
  const auto ta = std::make_shared<const TileNode>(TileNode{"ta", DType::F32, 8, 4});
  const auto tb = std::make_shared<const TileNode>(TileNode{"tb", DType::F32, 4, 8});
  const auto tc = std::make_shared<const TileNode>(TileNode{"tc", DType::F32, 8, 8});
  const Var i = loop_var("i", 8), j = loop_var("j", 8), x = make_var("x", DType::F32);
  h.p.body = block({stmt(TileAlloc{ta}), stmt(TileAlloc{tb}), stmt(TileAlloc{tc}),
                    stmt(TileFill{tc, constant(DType::F32, 1.0)}), stmt(TileLoad{ta, a, 0, 3, 1, 5, 3}),
                    stmt(TileLoad{tb, b, 0, 4, 1, 3, 4}), stmt(TileMma{tc, ta, tb}),
                    stmt(TileMap{tc, i, j, x, var(x) * 2}),
                    stmt(TileStore{tc, i, j, x, 5, 4, stmt(Store{y, var(i) * 4 + var(j), var(x), {}})})});
  std::vector<float> av(15), bv(12), out(20);
  std::iota(av.begin(), av.end(), 0.F);
  std::iota(bv.begin(), bv.end(), -3.F);
  EXPECT_EQ(h.run({av.data(), bv.data(), out.data()}), 0);
  for (std::size_t r = 0; r < 5; ++r)
    for (std::size_t c = 0; c < 4; ++c) {
      float sum = 1;
      for (std::size_t k = 0; k < 3; ++k) sum += av[r * 3 + k] * bv[k * 4 + c];
      EXPECT_EQ(out[r * 4 + c], sum * 2);
    }
}

Program copying(bool wait, bool change) {
  Harness h;
  const Buffer x = h.param("x", DType::F32, 6, Access::ReadWrite),
               y = h.param("y", DType::F32, 4, Access::Write);
  const Buffer s = make_buffer("s", DType::F32, Space::Shared, 4);
  const Var token = make_var("token"), i = loop_var("i", 4);
  h.p.body =
      block({stmt(Alloc{s}), stmt(CopyAsync{s, 0, 2, x, 1, 3, 2, 2, token}),
             change ? stmt(Store{x, 1, zero(DType::F32), {}}) : nullptr, wait ? stmt(Wait{token}) : nullptr,
             loop(i, 4, LoopKind::Serial, stmt(Store{y, var(i), load(s, var(i)), {}}))});
  return h.p;
}

TEST(Interpreter, CopiesCompleteAtTheirWait) {
  std::vector<float> x = {0, 1, 2, 3, 4, 5}, y(4);
  EXPECT_EQ(run_kernel(*interpret(copying(true, false), {.check = true}), {x.data(), y.data()}), 0);
  EXPECT_EQ(y, (std::vector<float>{1, 2, 4, 5}));
  EXPECT_THROW(run_kernel(*interpret(copying(false, false), {.check = true}), {x.data(), y.data()}), Error);
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_THROW(run_kernel(*interpret(copying(true, true), {.check = true}), {x.data(), y.data()}), Error);
}

TEST(Interpreter, ShapeAtDims) {
  Harness h;
  const Expr n = symbol("N");
  const Buffer w = h.param("w", DType::BF16, n * 3, Access::Workspace);
  const Var i = loop_var("i", n), t = make_var("t");
  h.p.body = block({stmt(Let{t, n * 2}),
                    loop(i, n + 1, LoopKind::Parallel, stmt(Store{w, 0, zero(DType::BF16), {}})),
                    stmt(Store{w, 0, zero(DType::BF16), {}}), stmt(Store{w, var(t), zero(DType::BF16), {}})});
  h.p.symbols = collect_symbols(h.p);
  const std::int64_t dims[] = {4};
  const KernelShape s = interpret(h.p)->shape(dims);
  EXPECT_EQ(s.grid, (std::vector<std::int64_t>{5, 1}));
  EXPECT_EQ(s.workspace_bytes, (std::vector<std::int64_t>{24}));
}

TEST(Interpreter, IsATarget) {
  InterpreterTarget plain, gpu({.gpu_mapped = true});
  EXPECT_EQ(plain.info().isa, "interpreter");
  EXPECT_FALSE(plain.info().gpu_mapped);
  EXPECT_TRUE(gpu.info().gpu_mapped);
  EXPECT_EQ(gpu.info().tiles.front().k, 1);
  Harness h;
  const Buffer y = h.param("y", DType::I32, 1, Access::Write);
  h.p.body = stmt(Store{y, 0, constant(DType::I32, std::int64_t{42}), {}});
  std::int32_t out = 0;
  EXPECT_EQ(run_kernel(*plain.compile({&h.p, 1}).front(), {&out}), 0);
  EXPECT_EQ(out, 42);
}

// The promise of 20 million scalar steps a second, with an order of magnitude to spare on any machine of today.
TEST(Interpreter, IsFastEnough) {
  Harness h;
  const Expr n = symbol("N");
  const Buffer a = h.param("a", DType::F32, n), y = h.param("y", DType::F32, n, Access::Write);
  const Var r = loop_var("r", 20), i = loop_var("i", n);
  h.p.body =
      loop(r, 20, LoopKind::Serial,
           loop(i, n, LoopKind::Vector, stmt(Store{y, var(i), load(a, var(i)) * 2 + load(y, var(i)), {}})));
  std::vector<float> in(20000, 1.F), out(20000);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(h.run({in.data(), out.data()}, {20000}, false), 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double steps = 20 * 20000 * 6;  // two loads, two operations, a store, the loop
  RecordProperty("million_steps_per_second", static_cast<int>(steps / seconds / 1e6));
  EXPECT_EQ(out[0], 40.F);
  EXPECT_LT(seconds, steps / 2e6);
}

}  // namespace
}  // namespace deepseek::loops
