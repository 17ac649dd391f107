// PTX: what the emitter makes of GPU-mapped programs, and that NVIDIA's assembler takes it where it is installed.
#include "targets/gpu/ptx.h"

#include <gtest/gtest.h>

#include "loops/interpreter.h"
#include "support/gemm_program.h"
#include "support/ptxas.h"

namespace deepseek {
namespace {

using namespace loops;

constexpr const char* kArchitecture = "sm_80";

Program elementwise() {
  const Expr n = symbol("n");
  const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
               y = make_buffer("y", DType::F32, Space::Global, n);
  const std::int64_t threads = 256;
  const Expr blocks = floordiv(n + (threads - 1), threads);
  const Var b = loop_var("b", blocks), t = loop_var("t", threads);
  const Expr i = var(b) * threads + var(t);
  const Expr value = make(Op::Tanh, {load(x, i, i < n, zero(DType::F32))}) * constant(DType::F32, 0.5);
  Program p{"elementwise",
            {{x, Access::Read}, {y, Access::Write}},
            {"n"},
            {"too large"},
            stmt(For{b, blocks, LoopKind::Block,
                     stmt(For{t, threads, LoopKind::Thread,
                              block({stmt(Assert{i < 1'000'000, 1}), stmt(Store{y, i, value, i < n})})})})};
  return p;
}

// y = a b in 32x32 blocks of 8x8 threads with 4x4 tiles each; slices of a and b pass through Shared memory.
Program shared_gemm(std::int64_t size) {
  const std::int64_t block_size = 32, side = 8, each = 4, depth = 8;
  const Buffer a = make_buffer("a", DType::F32, Space::Global, size * size),
               b = make_buffer("b", DType::F32, Space::Global, size * size);
  const Buffer y = make_buffer("y", DType::F32, Space::Global, size * size);
  const Buffer as = make_buffer("as", DType::F32, Space::Shared, block_size * depth),
               bs = make_buffer("bs", DType::F32, Space::Shared, depth * block_size);
  const auto tile = [](const char* name, std::int64_t rows, std::int64_t cols) {
    return std::make_shared<const TileNode>(TileNode{name, DType::F32, rows, cols});
  };
  const Tile c = tile("c", each, each), ta = tile("ta", each, 1), tb = tile("tb", 1, each);
  const Var by = loop_var("by", size / block_size), bx = loop_var("bx", size / block_size);
  const Var ty = loop_var("ty", side), tx = loop_var("tx", side), k0 = loop_var("k0", size / depth),
            k = loop_var("k", depth), e = loop_var("e", each);
  const Var i = loop_var("i", each), j = loop_var("j", each), x = make_var("x", DType::F32);
  const Expr row = var(by) * block_size, col = var(bx) * block_size;
  // Each thread brings four elements of each slice.
  const Expr element = (var(ty) * side + var(tx)) * each + var(e);
  const Stmt bring =
      stmt(For{e, each, LoopKind::Unrolled,
               block({stmt(Store{as,
                                 element,
                                 load(a, (row + floordiv(element, depth)) * size + var(k0) * depth +
                                             mod(element, depth)),
                                 {}}),
                      stmt(Store{bs,
                                 element,
                                 load(b, (var(k0) * depth + floordiv(element, block_size)) * size + col +
                                             mod(element, block_size)),
                                 {}})})});
  const Stmt multiply =
      stmt(For{k, depth, LoopKind::Serial,
               block({stmt(TileLoad{ta, as, var(ty) * each * depth + var(k), depth, 1, each, 1}),
                      stmt(TileLoad{tb, bs, var(k) * block_size + var(tx) * each, block_size, 1, 1, each}),
                      stmt(TileMma{c, ta, tb})})});
  const Stmt put =
      stmt(Store{y, (row + var(ty) * each + var(i)) * size + col + var(tx) * each + var(j), var(x), {}});
  const Stmt thread = block({stmt(TileAlloc{c}), stmt(TileAlloc{ta}), stmt(TileAlloc{tb}),
                             stmt(TileFill{c, zero(DType::F32)}),
                             stmt(For{k0, size / depth, LoopKind::Serial,
                                      block({bring, stmt(Barrier{}), multiply, stmt(Barrier{})})}),
                             stmt(TileStore{c, i, j, x, each, each, put})});
  const Stmt threads = stmt(For{ty, side, LoopKind::Thread, stmt(For{tx, side, LoopKind::Thread, thread})});
  const Stmt blocks = stmt(For{
      by, size / block_size, LoopKind::Block,
      stmt(For{bx, size / block_size, LoopKind::Block, block({stmt(Alloc{as}), stmt(Alloc{bs}), threads})})});
  return {"gemm", {{a, Access::Read}, {b, Access::Read}, {y, Access::Write}}, {}, {}, blocks};
}

TEST(Ptx, ElementwiseProgram) {
  const Program p = elementwise();
  verify(p);
  const std::string ptx = emit_ptx(p, kArchitecture);
  EXPECT_NE(ptx.find(".entry elementwise_phase0"), std::string::npos) << ptx;
  EXPECT_NE(ptx.find(".reqntid 256"), std::string::npos) << ptx;
  EXPECT_EQ(ptx.find("call"), std::string::npos) << ptx;
  EXPECT_EQ(evaluate(gpu_grid(p)[0][0], p.symbols, std::vector<std::int64_t>{1000}), 4);
  testing::expect_assembles(ptx, kArchitecture);
}

TEST(Ptx, GemmThroughSharedMemory) {
  const Program p = shared_gemm(256);
  verify(p);
  const std::string ptx = emit_ptx(p, kArchitecture);
  for (const char* part : {".shared", "bar.sync", "fma.rn.f32", ".reqntid 8, 8", "ctaid.y", "ld.shared"})
    EXPECT_NE(ptx.find(part), std::string::npos) << part << "\n" << ptx;
  EXPECT_EQ(ptx.find(".local"), std::string::npos) << "tiles stay in registers\n" << ptx;
  EXPECT_EQ(gpu_grid(p)[0][0].int_value(), 8);
  EXPECT_EQ(gpu_grid(p)[0][1].int_value(), 8);
  testing::expect_assembles(ptx, kArchitecture);
}

TEST(Ptx, PhasesOfAProgramWithoutThreads) {
  const std::string ptx = emit_ptx(testing::gemm_program({20, 20, 20}, 4, 4), kArchitecture);
  EXPECT_NE(ptx.find(".entry gemm_phase0"), std::string::npos) << ptx;
  testing::expect_assembles(ptx, kArchitecture);
}

}  // namespace
}  // namespace deepseek
