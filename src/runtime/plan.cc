#include "runtime/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "deepseek/error.h"

namespace deepseek {
namespace {

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

std::int64_t most_alive(std::span<const Lifetime> buffers) {
  std::vector<std::pair<int, std::int64_t>> changes;
  for (const Lifetime& b : buffers) {
    changes.emplace_back(b.first, aligned(b.bytes));
    changes.emplace_back(b.last + 1, -aligned(b.bytes));
  }
  std::sort(changes.begin(), changes.end());  // at one step, what ends leaves before what begins arrives
  std::int64_t alive = 0, most = 0;
  for (const auto& [step, bytes] : changes) most = std::max(most, alive += bytes);
  return most;
}

}  // namespace

MemoryPlan plan_memory(std::span<const Lifetime> buffers) {
  MemoryPlan plan;
  plan.offsets.assign(buffers.size(), 0);
  plan.lower_bound = most_alive(buffers);
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const Lifetime &x = buffers[a], &y = buffers[b];
    if (x.bytes != y.bytes) return x.bytes > y.bytes;
    if (x.last - x.first != y.last - y.first) return x.last - x.first > y.last - y.first;
    return a < b;
  });

  std::vector<std::size_t> placed;  // by offset
  for (const std::size_t i : order) {
    const Lifetime& b = buffers[i];
    check(b.bytes >= 0 && b.first <= b.last, "plan_memory: a lifetime that ends after it begins");
    if (b.bytes == 0) continue;
    const std::int64_t size = aligned(b.bytes);
    std::int64_t best = -1, best_gap = std::numeric_limits<std::int64_t>::max(), end = 0;
    for (const std::size_t j : placed) {
      if (buffers[j].last < b.first || buffers[j].first > b.last) continue;
      const std::int64_t gap = plan.offsets[j] - end;
      if (gap >= size && gap < best_gap) {
        best = end;
        best_gap = gap;
      }
      end = std::max(end, plan.offsets[j] + aligned(buffers[j].bytes));
    }
    plan.offsets[i] = best >= 0 ? best : end;
    plan.arena_bytes = std::max(plan.arena_bytes, plan.offsets[i] + size);
    const auto where = std::upper_bound(placed.begin(), placed.end(), i, [&](std::size_t x, std::size_t y) {
      return plan.offsets[x] < plan.offsets[y];
    });
    placed.insert(where, i);
  }
  return plan;
}

}  // namespace deepseek
