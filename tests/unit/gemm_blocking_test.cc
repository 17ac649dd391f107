#include "kernels/gemm_blocking.h"

#include <gtest/gtest.h>

#include "targets/target.h"

namespace deepseek::kernels {
namespace {

constexpr TileShape kTile{
    .operands = DType::F32, .accumulator = DType::F32, .m = 14, .n = 32, .k = 1, .any_rows = true};

TargetInfo wide_target() {
  TargetInfo target;
  target.vector_bytes = 64;
  target.l2_bytes = 1 << 21;
  return target;
}

TEST(GemmBlocking, RowsThatNoCacheHoldsAreReadOnce) {
  const Blocking b = block_for(2048, 2048, 2048, 2048, 1, kTile, wide_target(), 2, true, true);
  EXPECT_GE(b.row_blocks.int_value().value_or(0), 8);
  EXPECT_EQ(b.panel_groups.int_value(), 1);
}

TEST(GemmBlocking, ManyColumnsOfLittleDepthGoInGroupsThatTheSecondCacheHolds) {
  const TargetInfo target = wide_target();
  for (const std::int64_t n : {2000, 20000, 50257}) {
    const Blocking b = block_for(512, 512, n, 192, 1, kTile, target, 2, true, true);
    const std::int64_t panels = b.panels_per_group.int_value().value_or(target.l2_bytes);
    EXPECT_LE(panels * b.nr * 192 * 4, target.l2_bytes / 2) << n;
    EXPECT_GE(panels * b.panel_groups.int_value().value_or(0) * b.nr, n);
  }
}

TEST(GemmBlocking, RowsOfUnknownNumberAreMultipliedInManyTasks) {
  const TargetInfo target = wide_target();
  const auto groups = [&](const Dim& m, std::int64_t n, bool in_place) {
    const Blocking b = block_for(m, m, n, 768, 1, kTile, target, 2, false, in_place);
    return b.panel_groups.int_value().value_or(-1);
  };
  const Dim some = Dim::symbol("batch") * Dim::symbol("length");
  EXPECT_EQ(groups(some, 768, true), groups(37, 768, true));
  EXPECT_GE(groups(some, 768, true), 8);
  EXPECT_EQ(groups(some, 32, true), 1);
  // What one task packs is not packed by another again.
  EXPECT_EQ(groups(some, 768, false), 1);
  // An image has rows enough.
  EXPECT_EQ(groups(Dim::symbol("batch") * Dim(112 * 112), 768, true), 1);
}

}  // namespace
}  // namespace deepseek::kernels
