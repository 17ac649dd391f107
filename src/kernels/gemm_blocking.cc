#include "kernels/gemm_blocking.h"

#include <algorithm>

#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kGpuThreads = 32;     // rows of tiles per block of threads
constexpr std::int64_t kTasksPerThread = 4;  // enough for threads to share evenly
constexpr std::int64_t kLeastTasks = 8;
// Rows that multiply an element of the weights for longer than it takes to come from memory.
constexpr std::int64_t kRowsThatHideWeights = 64;
// A row that lies in another thread's cache costs as much to fetch as so many columns of weights from memory.
constexpr std::int64_t kColumnsPerFarRow = 6;
// Sums in as many vectors hide the latency of a multiply-add: 4 cycles, two begin in each.
constexpr std::int64_t kSumsInFlight = 8;
constexpr std::int64_t kMostVectors = 4;  // in a row of a tile
constexpr std::int64_t kPanelShare =
    4;  // of the second cache, for a panel; beside it lie the next one and rows

// Few rows alone make too few sums for multiply-adds to follow each other: they get more columns, in the registers that
// the rows leave.
std::int64_t tile_columns(std::int64_t rows, const TileShape& tile, std::int64_t lanes) {
  const bool in_vectors = tile.any_rows && tile.in_vectors();
  if (!in_vectors) return tile.n;
  const std::int64_t wanted = ceil_of(kSumsInFlight, rows) * lanes;
  const std::int64_t room = (tile.m + 1) * tile.n / (rows + 1) / lanes * lanes;
  return std::max(tile.n, std::min(wanted, room));
}

// Into how many groups panels go at least, where each row of tiles goes by all of a group's (gemm.cc): results are written
// along rows then, if the second cache holds the group.
std::int64_t least_groups(std::int64_t rows, const Dim& n, const Dim& k, const TileShape& tile,
                          const TargetInfo& target) {
  const bool wide = k.is_static() && rows >= k.value() && n.value() >= 2 * k.value();
  if (!wide || target.gpu_mapped) return 1;
  return ceil_of(n.value() * k.value() * bits(tile.operands) / 8, target.l2_bytes / 2);
}

struct TileSize {
  std::int64_t mr, nr;
};

// Fewer rows of more vectors read fewer operands for as many multiplies, and may leave less over.
TileSize tile_size(const Dim& run, const Dim& n, const Dim& k, const TileShape& tile, std::int64_t lanes,
                   std::int64_t l2, std::int64_t shares) {
  if (!tile.any_rows) return {tile.m, tile_columns(tile.m, tile, lanes)};
  const std::int64_t rows = tile_rows(run, tile.m, tile.n / lanes, shares);
  TileSize best{rows, tile_columns(rows, tile, lanes)};
  if (!tile.in_vectors() || best.nr != tile.n || !run.is_static() || !n.is_static() || !k.is_static())
    return best;
  const auto cost = [&](const TileSize& s) {
    return tile_cost(run.value(), s.mr, s.nr / lanes, shares) *
           static_cast<double>(ceil_of(n.value(), s.nr) * s.nr);
  };
  for (std::int64_t nr = tile.n + lanes; nr <= kMostVectors * lanes; nr += lanes) {
    const std::int64_t most = (tile.m + 1) * tile.n / nr - 1;
    if (most < 1 || nr * k.value() * bits(tile.operands) / 8 > l2 / kPanelShare) break;
    const TileSize wider{tile_rows(run, most, nr / lanes, shares), nr};
    if (cost(wider) < cost(best)) best = wider;
  }
  return best;
}

// Among how many threads the rows are divided where the right operand is the larger one: each reads all of that, but
// finds its own rows.
std::int64_t row_shares(const Dim& m, const Dim& n, const Dim& batch, int threads) {
  if (!m.is_static() || !n.is_static() || !batch.is_static() || n.value() < m.value() ||
      n.value() > kColumnsPerFarRow * m.value())
    return 1;
  const std::int64_t most = ceil_of(threads, std::max<std::int64_t>(batch.value(), 1));
  return std::clamp<std::int64_t>(m.value() / kRowsThatHideWeights, 1, most);
}

// Of how many of `count` rows or panels a task is made, half of `most` at least, so that threads end together: each
// of `others` has as many.
std::int64_t even_share(std::int64_t count, std::int64_t most, std::int64_t others, int threads) {
  const auto longest = [&](std::int64_t each) {
    return ceil_of(ceil_of(count, each) * others, threads) * each;
  };
  std::int64_t best = most;
  for (std::int64_t each = most; each >= ceil_of(most, 2); --each)
    if (longest(each) < longest(best)) best = each;
  return best;
}

}  // namespace

Blocking block_for(const Dim& m, const Dim& run, const Dim& n, const Dim& k, const Dim& batch,
                   const TileShape& tile, const TargetInfo& target, int threads, bool packs_right,
                   bool in_place, double room) {
  Blocking b;
  const std::int64_t lanes = target.vector_bytes / 4;
  // Panels that are packed in each run stay with the thread that has packed them.
  const std::int64_t shares = packs_right ? 1 : row_shares(m, n, batch, threads);
  const TileSize size = tile_size(run, n, k, tile, lanes, target.l2_bytes, run == m ? shares : 1);
  b.mr = size.mr;
  b.nr = size.nr;
  if (tile.any_rows && n.is_static())
    b.nr = std::min(b.nr, ceil_of(std::max<std::int64_t>(n.value(), 1), lanes) * lanes);
  b.tiles_per_run = ceil_of(expr_of(run), b.mr);
  b.tiles = run == m ? b.tiles_per_run : expr_of(floordiv(m, run)) * b.tiles_per_run;
  b.panels = ceil_of(expr_of(n), b.nr);
  const std::int64_t depth = k.is_static() ? k.value() : 1024;
  const std::int64_t row_bytes = b.mr * (depth + kRowPadding) * bits(tile.operands) / 8;
  std::int64_t per_block =
      target.gpu_mapped
          ? kGpuThreads
          : std::max<std::int64_t>(
                1, static_cast<std::int64_t>(static_cast<double>(target.l2_bytes) * room) / row_bytes);
  b.panels_per_group = b.panels;
  b.panel_groups = 1;
  const bool known = m.is_static();
  if (n.is_static() && (known || in_place)) {
    const auto at_least_one = [](std::int64_t v) { return std::max<std::int64_t>(v, 1); };
    const std::int64_t rows = known ? m.value() : size_where(1, m);
    const std::int64_t tiles = at_least_one(known ? *b.tiles.int_value() : ceil_of(rows, b.mr));
    const std::int64_t panels = at_least_one(ceil_of(n.value(), b.nr));
    const std::int64_t batches = at_least_one(batch.is_static() ? batch.value() : 4);
    const std::int64_t wanted = std::max(kLeastTasks, kTasksPerThread * threads);
    // Stream the right operand, where it is the larger one, once, or once in each thread.
    const bool by_panels = n.value() >= rows;
    b.keeps_rows = by_panels && shares > 1;
    if (!by_panels)
      per_block = std::min(per_block, ceil_of(tiles * batches, wanted));
    else if (known)
      per_block = std::min(per_block, ceil_of(tiles, shares));
    if (!by_panels && known) per_block = even_share(tiles, per_block, batches, threads);
    if (known) per_block = ceil_of(tiles, ceil_of(tiles, per_block));
    const std::int64_t blocks = batches * ceil_of(tiles, per_block);
    const std::int64_t least = by_panels && known ? least_groups(rows, n, k, tile, target) : 1;
    const std::int64_t groups = std::clamp(std::max(ceil_of(wanted, blocks), least), std::int64_t{1}, panels);
    if (groups > 1) {
      const std::int64_t each = even_share(panels, ceil_of(panels, groups), blocks, threads);
      b.panels_per_group = each;
      b.panel_groups = ceil_of(panels, each);
    }
  }
  b.tiles_per_block = per_block;
  b.row_blocks = ceil_of(b.tiles, per_block);
  return b;
}

}  // namespace deepseek::kernels
