#include "kernels/gradient_results.h"

#include <algorithm>

#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

GradientResults::GradientResults(const Group& group, const TargetInfo& target)
    : g_(group),
      n_(*group.anchor),
      layout_(n_.attr<std::string>("output_layout")),
      lanes_(target.vector_bytes / 4) {
  const auto size = [&](char letter) { return n_.out().dim(static_cast<int>(layout_.find(letter))).value(); };
  columns_ = size('C');
  taps_y_ = size('0');
  taps_x_ = size('1');
  taps_ = taps_y_ * taps_x_;
}

std::int64_t GradientResults::rows_of_block() const {
  constexpr std::int64_t kLines = 9;
  return ceil_of(kLines * kLineBytes / 4, taps_);
}

Buffer GradientResults::scratchpad(std::int64_t rows, std::int64_t width) const {
  return make_buffer("waiting", DType::F32, Space::Shared, rows * taps_ * width);
}

std::vector<Stmt> GradientResults::take(Assembly& a, const Block& block, const Expr& row, const Expr& column,
                                        const Expr& tap_y, const Expr& tap_x, const Expr& value) const {
  if (!are_turned()) return stored(a, block.row + row, block.column + column, tap_y, tap_x, value);
  const Expr line = row * taps_ + tap_y * taps_x_ + tap_x;
  return {stmt(Store{block.waiting, line * block.width + column, value, {}})};
}

std::vector<Stmt> GradientResults::stored(Assembly& a, const Expr& row, const Expr& column, const Expr& tap_y,
                                          const Expr& tap_x, const Expr& value) const {
  a.scope().bind(n_.out(), [value](std::span<const Expr>, const Expr&) { return value; });
  std::vector<Expr> at(layout_.size());
  at[layout_.find('N')] = row;
  at[layout_.find('C')] = column;
  at[layout_.find('0')] = tap_y;
  at[layout_.find('1')] = tap_x;
  return store_outputs(a, g_, at);
}

Stmt GradientResults::store(Assembly& a, const Block& block) const {
  if (!are_turned()) return nullptr;
  const Expr count = block.rows * taps_;
  const Axis across = make_axis("across", block.width / lanes_),
             down = make_axis("down", ceil_of(count, lanes_));
  const Expr first = var(across.var) * lanes_, line = var(down.var) * lanes_;
  const Expr columns = loops::min(Expr(lanes_), columns_ - block.column - first),
             lines = loops::min(Expr(lanes_), count - line);
  const Tile square = std::make_shared<const TileNode>(TileNode{"square", DType::F32, lanes_, lanes_});
  const Var i = loop_var("i", lanes_), j = loop_var("j", lanes_), value = make_var("value", DType::F32);
  const Expr at = line + var(j), tap = mod(at, taps_);
  const Stmt out = loops::block(stored(a, block.row + floordiv(at, taps_), block.column + first + var(i),
                                       floordiv(tap, taps_x_), mod(tap, taps_x_), var(value)));
  const Stmt turned = loop(down, LoopKind::Serial,
                           loops::block({stmt(TileAlloc{square}),
                                         stmt(TileLoad{square, block.waiting, line * block.width + first, 1,
                                                       block.width, columns, lines}),
                                         stmt(TileStore{square, i, j, value, columns, lines, out})}));
  return loop(
      across, LoopKind::Serial,
      columns_ % block.width == 0 ? turned : stmt(If{block.column + first < columns_, turned, nullptr}));
}

}  // namespace deepseek::kernels
