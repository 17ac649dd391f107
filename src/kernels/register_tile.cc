#include "kernels/register_tile.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "kernels/nest.h"

namespace deepseek::kernels {

using namespace loops;

// What a step of a tile costs beside its multiplies, in those of vectors: reading an element or a vector, going round the
// loop.
constexpr double kReadCost = 0.3, kStepCost = 1;

const TileShape* register_tile(const TargetInfo& target) {
  if (target.gpu_mapped) return nullptr;
  const auto fits = [](const TileShape& t) {
    return t.operands == DType::F32 && t.right == DType::F32 && t.k == 1 && t.any_rows &&
           t.operands_in == loops::Space::Global;
  };
  const auto it = std::find_if(target.tiles.begin(), target.tiles.end(), fits);
  return it == target.tiles.end() ? nullptr : &*it;
}

std::int64_t size_where(std::int64_t symbol, const Dim& size) {
  std::vector<std::string> symbols;
  size.symbols(symbols);
  DimEnv env;
  for (const std::string& s : symbols) env[s] = symbol;
  return std::max<std::int64_t>(size.eval(env), 1);
}

double tile_cost(std::int64_t rows, std::int64_t r, std::int64_t vectors, std::int64_t shares) {
  const auto across = static_cast<double>(vectors), down = static_cast<double>(r);
  return static_cast<double>(ceil_of(ceil_of(rows, r), shares) * shares) *
         (down + (kReadCost * (down + across) + kStepCost) / across);
}

double cost_of(double multiplies, double weights, const TargetInfo& target) {
  const double streaming = weights * static_cast<double>(target.vector_bytes) / 2;
  return std::max(multiplies, streaming) + std::min(multiplies, streaming) / 4;
}

std::int64_t tile_rows(const Dim& m, std::int64_t most, std::int64_t vectors, std::int64_t shares) {
  if (!m.is_static()) return most;
  const std::int64_t rows = std::max<std::int64_t>(m.value(), 1);
  std::int64_t best = std::min(rows, most);
  for (std::int64_t r = best; --r > 0;)
    if (tile_cost(rows, r, vectors, shares) < tile_cost(rows, best, vectors, shares)) best = r;
  return best;
}

std::int64_t steps_at_once(std::int64_t steps) { return std::gcd(steps, kStepsAtOnce); }

namespace {

// What a single tile reads comes from memory as it is read: while a window of it goes by, the next one is asked for in
// several places at a time, which memory serves side by side (one sequence of lines: 9.6 GB/s, eight: 13.0).
constexpr std::int64_t kWindowLines = 512, kPlaces = 8;

// `lines` are read in step k, from element `first` on.
Stmt prefetch_window(const Buffer& panels, const PlaceOf& at, const Expr& first, std::int64_t lines,
                     const Expr& k) {
  const std::int64_t line = kLineBytes * 8 / bits(panels->dtype);
  const std::int64_t steps = std::max<std::int64_t>(1, kWindowLines / lines),
                     places = std::gcd(lines, kPlaces), in_place = lines / places;
  const Axis one = make_axis("line", lines);
  const Expr step = mod(k, steps), place = mod(var(one.var), places);
  const Expr ahead = steps * lines - step * lines + place * (steps * in_place) + step * in_place +
                     floordiv(var(one.var), places);
  return loop(one, LoopKind::Unrolled, stmt(Prefetch{panels, at(first + ahead * line), true}));
}

}  // namespace

Stmt prefetch_panel(const Buffer& panels, const PlaceOf& next, const Expr& depth, std::int64_t nr,
                    const Expr& k, const Expr& tile, std::int64_t tiles) {
  const std::int64_t line = kLineBytes * 8 / bits(panels->dtype),
                     lines = std::max<std::int64_t>(1, nr / line);
  if (tiles == 1) return prefetch_window(panels, next, (k - depth) * nr, lines, k);
  const std::int64_t each = tiles > 0 ? ceil_of(lines, tiles) : 1;
  const auto steps = static_cast<std::int64_t>(
      std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(tiles / lines, 1))));
  const Axis one = make_axis("line", each);
  const Expr row = mod(tile, ceil_of(lines, each) * steps) * each + var(one.var);
  return loop(one, LoopKind::Unrolled, stmt(Prefetch{panels, next(floordiv(row * depth + k, steps) * line)}));
}

}  // namespace deepseek::kernels
