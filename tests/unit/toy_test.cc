// The toy accelerator itself: copies are asynchronous, time passes as its manual says, what it lacks is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "deepseek/error.h"
#include "deepseek/graph.h"
#include "toy/isa.h"
#include "toy/toy_target.h"
#include "unit/support.h"

namespace deepseek::toy {
namespace {

using namespace loops;

struct Outcome {
  std::vector<float> y;
  double cycles;
};

// x is 2 x 256: x = 0, 1, 2 ...; y has 256 elements.
Outcome run(const Buffer& x, const Buffer& y, Stmt body) {
  const Program p{"p", {{x, Access::Read}, {y, Access::Write}}, {}, {}, std::move(body)};
  verify(p);
  ToyTarget target;
  const auto kernel = target.compile({&p, 1}).at(0);
  std::vector<float> in(512);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  Outcome result{std::vector<float>(256), 0};
  std::vector<std::byte> scratch(static_cast<std::size_t>(kernel->shape({}).scratch_bytes.at(0)) + 1);
  void* buffers[] = {in.data(), result.y.data()};
  std::int32_t status = 0;
  kernel->run(0, buffers, nullptr, 0, 1, scratch.data(), &status);
  result.cycles = target.cycles();
  return result;
}

class Toy : public ::testing::Test {
 protected:
  const Buffer x = make_buffer("x", DType::F32, Space::Global, 512),
               y = make_buffer("y", DType::F32, Space::Global, 256);
  const Buffer pads[2] = {make_buffer("pad0", DType::F32, Space::Shared, 256),
                          make_buffer("pad1", DType::F32, Space::Shared, 256)};
  const Var tokens[2] = {make_var("t0"), make_var("t1")};

  Stmt copy(int i) const { return stmt(CopyAsync{pads[i], 0, 16, x, i * 256, 16, 16, 16, tokens[i]}); }
  Stmt wait(int i) const { return stmt(Wait{tokens[i]}); }
  Stmt move_out(int i) const {
    const Var j = loop_var("j", 256);
    return stmt(For{j, 256, LoopKind::Vector, stmt(Store{y, var(j), load(pads[i], var(j)), {}})});
  }
  // c = pad * pad, eight times over.
  std::vector<Stmt> multiply(int i) const {
    const auto tile = [](const char* name) {
      return std::make_shared<const TileNode>(TileNode{name, DType::F32, 16, 16});
    };
    const Tile a = tile("a"), c = tile("c");
    const Var k = loop_var("k", 8);
    return {stmt(TileAlloc{a}), stmt(TileAlloc{c}), stmt(TileFill{c, zero(DType::F32)}),
            stmt(TileLoad{a, pads[i], 0, 16, 1, 16, 16}),
            stmt(For{k, 8, LoopKind::Serial, stmt(TileMma{c, a, a})})};
  }
};

TEST_F(Toy, CopyArrivesAtItsWait) {
  const Outcome good = run(x, y, block({stmt(Alloc{pads[0]}), copy(0), wait(0), move_out(0)}));
  EXPECT_EQ(good.y[0], 0);
  EXPECT_EQ(good.y[255], 255);
  const Outcome early = run(x, y, block({stmt(Alloc{pads[0]}), copy(0), move_out(0), wait(0)}));
  EXPECT_TRUE(std::isnan(early.y[0]) && std::isnan(early.y[255]));
}

TEST_F(Toy, CopyWithoutWaitTraps) { EXPECT_THROW(run(x, y, block({stmt(Alloc{pads[0]}), copy(0)})), Error); }

TEST_F(Toy, MultiplyHidesTheNextCopy) {
  const auto program = [&](bool ahead) {
    std::vector<Stmt> s = {stmt(Alloc{pads[0]}), stmt(Alloc{pads[1]}), copy(0), wait(0)};
    const std::vector<Stmt> first = multiply(0), second = multiply(1);
    if (ahead) s.push_back(copy(1));
    s.insert(s.end(), first.begin(), first.end());
    if (!ahead) s.push_back(copy(1));
    s.push_back(wait(1));
    s.insert(s.end(), second.begin(), second.end());
    s.push_back(move_out(1));
    return run(x, y, block(std::move(s)));
  };
  const Outcome one_by_one = program(false), ahead = program(true);
  EXPECT_EQ(one_by_one.y, ahead.y);
  EXPECT_EQ(ahead.y[0], 256);
  // The second copy, 40 + 1024/16 cycles, disappears behind eight multiplications.
  EXPECT_NEAR(one_by_one.cycles - ahead.cycles, 104, 1);
}

TEST_F(Toy, AccessOutsideItsMemoryTraps) {
  const Stmt far = stmt(Store{y, 256, one(DType::F32), {}});
  EXPECT_THROW(run(x, y, far), Error);
}

TEST_F(Toy, RefusesWhatItLacks) {
  const auto refuses = [&](const Stmt& s) {
    try {
      run(x, y, s);
    } catch (const Error& e) {
      return e.code() == Code::Unsupported;
    }
    return false;
  };
  const Var i = loop_var("i", 4), block_index = loop_var("b", 2);
  EXPECT_TRUE(
      refuses(stmt(For{block_index, 2, LoopKind::Block,
                       stmt(For{i, 4, LoopKind::Thread,
                                stmt(Store{y, var(block_index) * 4 + var(i), one(DType::F32), {}})})})));
  EXPECT_TRUE(refuses(stmt(Store{y, 0, cast(DType::F32, cast(DType::F64, load(x, 0))), {}})));
  const Tile small = std::make_shared<const TileNode>(TileNode{"small", DType::F32, 4, 4});
  EXPECT_TRUE(refuses(stmt(TileAlloc{small})));
  const Tile tile = std::make_shared<const TileNode>(TileNode{"tile", DType::F32, 16, 16});
  EXPECT_TRUE(refuses(block({stmt(TileAlloc{tile}), stmt(TileLoad{tile, x, 0, 16, 1, 16, 16})})));
}

TEST_F(Toy, RefusesAGraphOfDoubles) {
  Graph g;
  g.output("y", g.op("neg", {g.placeholder("x", DType::F64, {3})}));
  ToyTarget target;
  EXPECT_THROW(testing::compile_for(g, target), Error);
}

TEST_F(Toy, ScratchpadIsFinite) {
  const Buffer large = make_buffer("large", DType::F32, Space::Shared, kScratchpadBytes);
  EXPECT_THROW(run(x, y, block({stmt(Alloc{large}), stmt(Store{y, 0, one(DType::F32), {}})})), Error);
}

}  // namespace
}  // namespace deepseek::toy
