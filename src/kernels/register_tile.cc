#include "kernels/register_tile.h"

#include <algorithm>

namespace deepseek::kernels {

using namespace loops;

std::int64_t tile_rows(const Dim& m, std::int64_t most) {
  if (!m.is_static()) return most;
  const std::int64_t rows = std::max<std::int64_t>(m.value(), 1);
  if (rows <= most) return rows;
  for (std::int64_t r = most; r * 3 >= most * 2; --r)
    if (rows % r == 0) return r;
  return ceil_of(rows, ceil_of(rows, most));
}

Stmt prefetch_panel(const Buffer& panels, const Expr& next, const Expr& depth, std::int64_t nr, const Expr& k,
                    const Expr& tile) {
  const std::int64_t line = kLineBytes * 8 / bits(panels->dtype),
                     lines = std::max<std::int64_t>(1, nr / line);
  return stmt(Prefetch{panels, next + (mod(tile, lines) * depth + k) * line});
}

}  // namespace deepseek::kernels
