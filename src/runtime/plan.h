// Where temporaries live in the arena, decided before the run: two buffers share memory when they are never
// alive at the same step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace deepseek {

// The alignment of every buffer in an arena, and of arenas themselves: a cache line, and the widest vector.
inline constexpr std::int64_t kArenaAlignment = 64;

struct Lifetime {
  std::int64_t bytes = 0;
  int first = 0, last = 0;  // steps, both inclusive
};

struct MemoryPlan {
  std::vector<std::int64_t> offsets;  // one per buffer, multiples of kArenaAlignment
  std::int64_t arena_bytes = 0;
  std::int64_t lower_bound = 0;  // the most bytes alive at one step: no plan can need less
};

// Largest first, each into the tightest gap between those alive at the same time. Empty buffers get offset 0.
MemoryPlan plan_memory(std::span<const Lifetime> buffers);

}  // namespace deepseek
