#include "runtime/plan.h"

#include <gtest/gtest.h>

#include <random>

namespace deepseek {
namespace {

void expect_sound(const std::vector<Lifetime>& buffers, const MemoryPlan& plan) {
  ASSERT_EQ(plan.offsets.size(), buffers.size());
  EXPECT_GE(plan.arena_bytes, plan.lower_bound);
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const Lifetime& a = buffers[i];
    EXPECT_EQ(plan.offsets[i] % kArenaAlignment, 0);
    EXPECT_LE(plan.offsets[i] + a.bytes, plan.arena_bytes);
    for (std::size_t j = 0; j < i; ++j) {
      const Lifetime& b = buffers[j];
      const bool together = a.first <= b.last && b.first <= a.last && a.bytes > 0 && b.bytes > 0;
      const bool apart =
          plan.offsets[i] + a.bytes <= plan.offsets[j] || plan.offsets[j] + b.bytes <= plan.offsets[i];
      ASSERT_TRUE(!together || apart) << i << " and " << j << " overlap";
    }
  }
}

TEST(MemoryPlan, NoTwoLiveBuffersOverlap) {
  std::mt19937 rng(4);
  double worst = 1;
  for (int round = 0; round < 400; ++round) {
    const int steps = static_cast<int>(rng() % 40) + 1;
    std::vector<Lifetime> buffers(rng() % 60);
    for (Lifetime& b : buffers) {
      b.first = static_cast<int>(rng()) % steps;
      if (b.first < 0) b.first += steps;
      b.last = std::min(steps, b.first + static_cast<int>(rng() % 6));
      b.bytes = static_cast<std::int64_t>(rng() % 5 == 0 ? 0 : rng() % 10000);
    }
    const MemoryPlan plan = plan_memory(buffers);
    expect_sound(buffers, plan);
    if (plan.lower_bound > 0)
      worst = std::max(worst, static_cast<double>(plan.arena_bytes) / static_cast<double>(plan.lower_bound));
  }
  EXPECT_LT(worst, 1.6) << "greedy by size stays near the lower bound";
}

TEST(MemoryPlan, AChainNeedsTwoBuffers) {
  std::vector<Lifetime> chain;
  for (int i = 0; i < 50; ++i) chain.push_back({1 << 20, i, i + 1});
  const MemoryPlan plan = plan_memory(chain);
  expect_sound(chain, plan);
  EXPECT_EQ(plan.arena_bytes, 2 << 20);
  EXPECT_EQ(plan.lower_bound, 2 << 20);
}

TEST(MemoryPlan, NothingNeedsNothing) {
  EXPECT_EQ(plan_memory({}).arena_bytes, 0);
  const std::vector<Lifetime> empty = {{0, 0, 5}, {0, 2, 3}};
  EXPECT_EQ(plan_memory(empty).arena_bytes, 0);
}

}  // namespace
}  // namespace deepseek
