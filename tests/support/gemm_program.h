// A matrix multiply in register tiles, as a loop program: y = relu(a b + bias), row-major.
#pragma once

#include <optional>

#include "loops/ir.h"

namespace deepseek::testing {

struct GemmShape {
  std::int64_t m, n, k;
};

// A right operand of its own type whose rows lie interleaved: [k / group][n][group], k padded.
struct Interleaved {
  DType dtype;
  std::int64_t group;
};

// Tiles of rows x cols. Rows and columns beyond the matrices are masked; with `exact` the tiles are known to divide
// them and the masks are left out.
inline loops::Program gemm_program(const GemmShape& s, std::int64_t rows, std::int64_t cols,
                                   DType in = DType::F32, DType acc = DType::F32, std::int64_t depth = 1,
                                   std::optional<Interleaved> interleaved = {}) {
  using namespace loops;
  const auto [right, group] = interleaved.value_or(Interleaved{in, 1});
  const Buffer a = make_buffer("a", in, Space::Global, s.m * s.k),
               b = make_buffer("b", right, Space::Global, (s.k + group - 1) / group * group * s.n);
  const Buffer bias = make_buffer("bias", acc, Space::Global, s.n),
               y = make_buffer("y", acc, Space::Global, s.m * s.n);
  const Tile c = std::make_shared<const TileNode>(TileNode{"c", acc, rows, cols});
  const Tile ta = std::make_shared<const TileNode>(TileNode{"ta", in, rows, depth});
  const Tile tb = std::make_shared<const TileNode>(TileNode{"tb", right, depth, cols});
  const std::int64_t row_tiles = (s.m + rows - 1) / rows, col_tiles = (s.n + cols - 1) / cols;
  const Var p = loop_var("p", row_tiles), q = loop_var("q", col_tiles),
            k = loop_var("k", (s.k + depth - 1) / depth);
  const Expr row = var(p) * Expr(rows), col = var(q) * Expr(cols), at = var(k) * Expr(depth);
  const Expr rows_left = s.m % rows == 0 ? Expr(rows) : Expr(s.m) - row;
  const Expr cols_left = s.n % cols == 0 ? Expr(cols) : Expr(s.n) - col;
  const Expr depth_left = s.k % depth == 0 ? Expr(depth) : Expr(s.k) - at;
  const Stmt step = block({stmt(TileLoad{ta, a, row * Expr(s.k) + at, s.k, 1, rows_left, depth_left}),
                           stmt(TileLoad{tb, b, at * Expr(s.n) + col * Expr(group), s.n * group, group,
                                         depth_left, cols_left, group}),
                           stmt(TileMma{c, ta, tb})});
  const Var i = loop_var("i", rows), j = loop_var("j", cols), x = make_var("x", acc);
  const Expr biased = var(x) + load(bias, col + var(j));
  const Stmt put = stmt(Store{y, (row + var(i)) * Expr(s.n) + col + var(j), max(biased, zero(acc)), {}});
  const Stmt tile =
      block({stmt(TileAlloc{c}), stmt(TileAlloc{ta}), stmt(TileAlloc{tb}), stmt(TileFill{c, zero(acc)}),
             stmt(For{k, (s.k + depth - 1) / depth, LoopKind::Serial, step}),
             stmt(TileStore{c, i, j, x, rows_left, cols_left, put})});
  return {"gemm",
          {{a, Access::Read}, {b, Access::Read}, {bias, Access::Read}, {y, Access::Write}},
          {},
          {},
          stmt(For{p, row_tiles, LoopKind::Parallel, stmt(For{q, col_tiles, LoopKind::Serial, tile})})};
}

}  // namespace deepseek::testing
