// Each rule of the verifier fires where it is broken; the same program mended passes.
#include <gtest/gtest.h>

#include <functional>

#include "deepseek/error.h"
#include "loops/ir.h"

namespace deepseek::loops {
namespace {

struct Parts {
  Expr n = symbol("N");
  Buffer x = make_buffer("x", DType::F32, Space::Global, n);
  Buffer y = make_buffer("y", DType::F32, Space::Global, n * 4);
  Buffer state = make_buffer("state", DType::I64, Space::Global, 4);
  Var i = loop_var("i", n), j = loop_var("j", 4), k = loop_var("k", 8), f = make_var("f", DType::F32);
  Expr zero32 = zero(DType::F32);

  Program program(Stmt body) const {
    return {.name = "p",
            .params = {{x, Access::Read}, {y, Access::Write}, {state, Access::ReadWrite}},
            .symbols = {"N"},
            .messages = {"bad index"},
            .body = std::move(body)};
  }
  Stmt store(Expr index) const { return stmt(Store{y, std::move(index), zero32, {}}); }
};

Stmt loop(const Var& v, Expr extent, LoopKind kind, Stmt body) {
  return stmt(For{v, std::move(extent), kind, std::move(body)});
}

void breaks(const Program& p, const std::string& rule) {
  try {
    verify(p);
    ADD_FAILURE() << "no error, wanted: " << rule << "\n" << print(p);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::Internal);
    EXPECT_NE(std::string(e.what()).find(rule), std::string::npos) << e.what() << "\nwanted: " << rule;
  }
}
void holds(const Program& p) { EXPECT_NO_THROW(verify(p)) << print(p); }

TEST(Verify, Symbols) {
  Parts a;
  Program p = a.program(a.store(0));
  holds(p);
  p.symbols = {"N", "M"};
  breaks(p, "sorted, distinct symbols");
  p.symbols = {};
  breaks(p, "a symbol of the program");
}

TEST(Verify, Parameters) {
  Parts a;
  Program p = a.program(a.store(0));
  p.params[0].buffer = make_buffer("s", DType::F32, Space::Shared, 4);
  breaks(p, "parameters in global memory");
  p.params[0].buffer = p.params[1].buffer;
  breaks(p, "a buffer declared once");
  p.params[0].buffer = make_buffer("c", DType::C64, Space::Global, 4);
  breaks(p, "a buffer of real numbers");
  p.params[0].buffer = make_buffer("v", DType::F32, Space::Global, var(a.i));
  breaks(p, "a variable in scope");
  breaks(a.program(stmt(Store{a.x, 0, a.zero32, {}})), "no store to the input x");
  p = a.program(a.store(0));
  p.params[1].access = Access::Stream;
  holds(p);
  p.body = stmt(Store{a.y, 0, load(a.y, 1), {}});
  breaks(p, "plain stores to the stream y");
  p.body = stmt(Accumulate{Reducer::Sum, a.y, 0, a.zero32, {}});
  breaks(p, "plain stores to the stream y");
}

TEST(Verify, Scopes) {
  Parts a;
  breaks(a.program(a.store(var(a.i))), "a variable in scope");
  breaks(a.program(stmt(Store{a.y, 0, load(make_buffer("other", DType::F32, Space::Global, 1), 0), {}})),
         "a buffer in scope");
  breaks(a.program(loop(a.j, 4, LoopKind::Serial, loop(a.j, 4, LoopKind::Serial, a.store(var(a.j))))),
         "a variable bound once");
  const auto twice = loop(a.j, 4, LoopKind::Serial, a.store(var(a.j)));
  holds(a.program(block({twice, twice})));
  const Stmt let = stmt(Let{a.f, a.zero32}), use = stmt(Store{a.y, 0, var(a.f), {}});
  holds(a.program(block({let, use})));
  breaks(a.program(block({loop(a.j, 4, LoopKind::Serial, block({let, a.store(var(a.j))})), use})),
         "a variable in scope");
  breaks(a.program(block({let, let, use})), "a variable bound once");
}

TEST(Verify, Types) {
  Parts a;
  breaks(a.program(stmt(Store{a.y, 0, constant(DType::F64, 0.0), {}})), "float32 in store y");
  breaks(a.program(stmt(Store{a.y, constant(DType::I32, 0.0), a.zero32, {}})), "int64 in index");
  breaks(a.program(stmt(Store{a.y, 0, a.zero32, a.zero32})), "bool in predicate");
  breaks(a.program(stmt(If{a.zero32, a.store(0), nullptr})), "bool in if");
  breaks(a.program(stmt(Let{a.f, Expr(1)})), "float32 in let f");
  breaks(a.program(stmt(Assert{constant(DType::Bool, 0.0), 2})), "an assert's code");
  holds(a.program(stmt(Assert{constant(DType::Bool, 0.0), 1})));
  breaks(a.program(stmt(Accumulate{Reducer::Or, a.y, 0, a.zero32, {}})), "bool or integer");
  const Var r = loop_var("r", a.n);
  breaks(a.program(stmt(Store{a.y, 0, reduce(Reducer::Sum, {{r, a.n}}, load(a.x, var(r))), {}})),
         "no reduction");
  breaks(a.program(stmt(Store{a.y, 0, Expr(), {}})), "an expression");
  const Var f32 = make_var("f32", DType::F32);
  breaks(a.program(loop(f32, 4, LoopKind::Serial, a.store(0))), "an int64 variable");
}

TEST(Verify, Extents) {
  Parts a;
  breaks(a.program(a.store(-1)), "an index of y from 0");
  breaks(a.program(stmt(Store{a.state, var(a.k), Expr(0), {}})), "a variable in scope");
  breaks(a.program(loop(a.k, 8, LoopKind::Serial, stmt(Store{a.state, var(a.k) + 4, Expr(0), {}}))),
         "below 4");
  holds(a.program(loop(a.k, 8, LoopKind::Serial, stmt(Store{a.state, var(a.k) + 4, Expr(0), var(a.k) < 0}))));
}

TEST(Verify, LoopKinds) {
  Parts a;
  const Expr at = var(a.i) * 4 + var(a.j);
  holds(a.program(loop(a.i, a.n, LoopKind::Parallel, loop(a.j, 4, LoopKind::Vector, a.store(at)))));
  breaks(a.program(loop(a.j, 4, LoopKind::Serial, loop(a.i, a.n, LoopKind::Parallel, a.store(at)))),
         "at top level only");
  breaks(a.program(loop(a.j, 4, LoopKind::Vector, loop(a.i, a.n, LoopKind::Vector, a.store(at)))),
         "no vector loop in a vector loop");
  breaks(a.program(loop(a.i, a.n, LoopKind::Unrolled, loop(a.j, 4, LoopKind::Serial, a.store(at)))),
         "a constant extent");
  breaks(a.program(loop(a.j, 4, LoopKind::Thread, a.store(var(a.j)))), "a thread loop in a block loop");
  breaks(a.program(loop(a.j, 4, LoopKind::Block, loop(a.i, a.n, LoopKind::Thread, a.store(at)))),
         "a constant extent");
  breaks(a.program(loop(a.j, 4, LoopKind::Serial, loop(a.i, a.n, LoopKind::Block, a.store(at)))),
         "a block loop at top level");
  holds(a.program(loop(a.i, a.n, LoopKind::Block, loop(a.j, 4, LoopKind::Block, a.store(at)))));
  const Stmt spin = stmt(While{load(a.state, 0) > 0, a.store(at)});
  breaks(a.program(loop(a.i, a.n, LoopKind::Serial, loop(a.j, 4, LoopKind::Vector, spin))),
         "no while in a vector loop");
  const Var inner = loop_var("inner", var(a.j) + 1);
  breaks(a.program(
             loop(a.j, 4, LoopKind::Vector, loop(inner, var(a.j) + 1, LoopKind::Serial, a.store(var(a.j))))),
         "a uniform extent");
  breaks(a.program(loop(a.i, load(a.state, 0), LoopKind::Parallel, a.store(var(a.i)))),
         "a grid over symbols");
  breaks(a.program(loop(a.j, 4, LoopKind::Block,
                        loop(a.k, 8, LoopKind::Vector, loop(a.i, 2, LoopKind::Thread, a.store(at))))),
         "no thread loop in a vector loop");
}

TEST(Verify, LaneRaces) {
  Parts a;
  breaks(a.program(loop(a.j, 4, LoopKind::Vector, a.store(0))), "depends on the lane j");
  holds(a.program(loop(a.j, 4, LoopKind::Vector, stmt(Accumulate{Reducer::Sum, a.y, 0, a.zero32, {}}))));
  holds(a.program(loop(a.j, 4, LoopKind::Vector, stmt(Store{a.y, 0, a.zero32, var(a.j) == 0}))));
  holds(a.program(loop(a.j, 4, LoopKind::Vector, stmt(If{var(a.j) == 0, a.store(0), nullptr}))));
  const Var t = make_var("t");
  holds(a.program(loop(a.j, 4, LoopKind::Vector, block({stmt(Let{t, var(a.j) * 2}), a.store(var(t))}))));
  const Buffer r = make_buffer("r", DType::F32, Space::Register, 1);
  holds(a.program(loop(a.j, 4, LoopKind::Vector, block({stmt(Alloc{r}), stmt(Store{r, 0, a.zero32, {}})}))));
  breaks(a.program(block({stmt(Alloc{r}), loop(a.j, 4, LoopKind::Vector, stmt(Store{r, 0, a.zero32, {}}))})),
         "depends on the lane");
}

TEST(Verify, IterationAndThreadRaces) {
  Parts a;
  breaks(a.program(loop(a.i, a.n, LoopKind::Parallel, a.store(3))), "depends on the iteration i");
  breaks(a.program(loop(a.i, a.n, LoopKind::Parallel, stmt(Accumulate{Reducer::Sum, a.y, 0, a.zero32, {}}))),
         "depends on the iteration i");
  const Buffer s = make_buffer("s", DType::F32, Space::Shared, 4);
  const auto threads = [&](Expr index) {
    return a.program(loop(a.i, a.n, LoopKind::Block,
                          block({stmt(Alloc{s}), loop(a.j, 4, LoopKind::Thread,
                                                      stmt(Store{s, std::move(index), a.zero32, {}}))})));
  };
  holds(threads(var(a.j)));
  breaks(threads(0), "depends on the thread j");
}

TEST(Verify, Memory) {
  Parts a;
  const Buffer global = make_buffer("g", DType::F32, Space::Global, 4),
               dynamic = make_buffer("d", DType::F32, Space::Register, a.n);
  breaks(a.program(stmt(Alloc{global})), "an alloc in shared memory or registers");
  breaks(a.program(stmt(Alloc{dynamic})), "a constant extent of the register buffer d");
  const Buffer shared = make_buffer("s", DType::F32, Space::Shared, 4);
  breaks(a.program(loop(a.i, a.n, LoopKind::Block, loop(a.j, 4, LoopKind::Thread, stmt(Alloc{shared})))),
         "outside thread and vector loops");
}

TEST(Verify, TopLevelIsRepeatedInEachPhase) {
  Parts a;
  const Buffer s = make_buffer("s", DType::F32, Space::Shared, 4);
  const Stmt fill = stmt(Store{s, 0, a.zero32, {}}), read = stmt(Store{a.y, 0, load(s, 0), {}});
  const Stmt parallel = loop(a.i, a.n, LoopKind::Parallel, a.store(var(a.i)));
  holds(a.program(block({stmt(Alloc{s}), fill, read, parallel})));
  breaks(a.program(block({stmt(Alloc{s}), fill, parallel, read})), "a top-level alloc used in one phase");
  const Var t = make_var("t");
  const Stmt let = stmt(Let{t, load(a.state, 0)});
  holds(a.program(block({let, a.store(var(t))})));
  breaks(a.program(block({let, parallel, a.store(var(t))})), "a top-level let that phases may repeat");
}

TEST(Verify, Tiles) {
  Parts a;
  const auto tile = [](const char* name, DType t, std::int64_t r, std::int64_t c) {
    return std::make_shared<const TileNode>(TileNode{name, t, r, c});
  };
  const Tile m = tile("m", DType::F32, 4, 8), n = tile("n", DType::F32, 8, 2),
             c = tile("c", DType::F32, 4, 2);
  const Stmt declare = block({stmt(TileAlloc{m}), stmt(TileAlloc{n}), stmt(TileAlloc{c})});
  holds(a.program(block({declare, stmt(TileMma{c, m, n})})));
  breaks(a.program(block({declare, stmt(TileMma{c, n, m})})), "tiles that multiply");
  breaks(a.program(stmt(TileFill{c, a.zero32})), "a tile in scope");
  breaks(a.program(block({declare, declare})), "a tile declared once");
  breaks(a.program(stmt(TileAlloc{tile("z", DType::F32, 0, 1)})), "a tile of at least one element");
  breaks(a.program(block({declare, stmt(TileFill{c, Expr(1)})})), "float32 in fill c");
  breaks(a.program(block({declare, stmt(TileLoad{c, a.state, 0, 1, 1, 1, 1})})), "a tile of int64");
  holds(a.program(block({declare, stmt(TileLoad{c, a.x, 0, 1, 1, 1, 1, 2})})));
  breaks(a.program(block({declare, stmt(TileLoad{c, a.x, 0, 1, 1, 1, 1, 3})})), "groups that divide");
  breaks(a.program(loop(a.j, 4, LoopKind::Vector, stmt(TileAlloc{c}))), "no tile in a vector loop");
  const Var i = loop_var("ti", 4), j = loop_var("tj", 2), x = make_var("tx", DType::F32),
            wrong = make_var("w", DType::F64);
  holds(a.program(block(
      {declare, stmt(TileStore{c, i, j, x, 4, 2, stmt(Store{a.y, var(i) * 2 + var(j), var(x), {}})})})));
  breaks(a.program(block({declare, stmt(TileMap{c, i, j, wrong, var(wrong)})})), "an element of c");
  breaks(a.program(block({declare, stmt(TileMap{c, a.f, j, x, var(x)})})), "int64 coordinates");
  breaks(a.program(
             block({declare, stmt(TileStore{c, i, j, x, 4, 2, loop(a.k, 8, LoopKind::Serial, a.store(0))})})),
         "stores and lets");
}

TEST(Verify, CopiesAndBarriers) {
  Parts a;
  const Buffer s = make_buffer("s", DType::F32, Space::Shared, 4),
               wrong = make_buffer("w", DType::F64, Space::Shared, 4);
  const Var token = make_var("token");
  const auto copy = [&](const Buffer& to, const Buffer& from) {
    return stmt(CopyAsync{to, 0, 4, from, 0, 4, 1, 4, token});
  };
  holds(a.program(block({stmt(Alloc{s}), copy(s, a.x), stmt(Wait{token})})));
  breaks(a.program(block({stmt(Alloc{s}), stmt(Wait{token})})), "a wait for a copy's token");
  breaks(a.program(block({stmt(Alloc{wrong}), copy(wrong, a.x), stmt(Wait{token})})), "a copy of one type");
  breaks(a.program(block({stmt(Alloc{s}), copy(a.x, s), stmt(Wait{token})})), "no copy to the input");
  breaks(a.program(stmt(Barrier{})), "a barrier in a block loop");
  holds(a.program(stmt(Prefetch{a.x, -5})));
  breaks(a.program(loop(a.k, 8, LoopKind::Vector, stmt(Prefetch{a.x, 0}))), "no prefetch in a vector loop");
  const auto at_barrier = [&](Stmt inner) {
    return a.program(loop(a.i, a.n, LoopKind::Block, loop(a.j, 4, LoopKind::Thread, std::move(inner))));
  };
  holds(at_barrier(stmt(Barrier{})));
  breaks(at_barrier(stmt(If{var(a.j) == 0, stmt(Barrier{}), nullptr})), "a barrier that all threads reach");
  breaks(at_barrier(loop(a.k, var(a.j), LoopKind::Serial, stmt(Barrier{}))),
         "a barrier that all threads reach");
  breaks(at_barrier(loop(a.k, 8, LoopKind::Vector, stmt(Barrier{}))), "no barrier in a vector loop");
}

}  // namespace
}  // namespace deepseek::loops
