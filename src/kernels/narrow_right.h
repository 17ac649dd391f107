// The right operand of a product in fewer bits than it is multiplied in: whole numbers in panels, and in panels of their
// own what makes floats of them. Register tiles widen them where they multiply.
#pragma once

#include <optional>
#include <vector>

#include "kernels/assembly.h"
#include "kernels/contraction.h"

namespace deepseek::kernels {

struct NarrowRight {
  DType stored;
  Value operand;  // the product's, float32
  // Where that is dequantize_blocks along the depth: its inputs (`zero` may be absent) and how many rows share a scale.
  Value whole, scale, zero;
  std::int64_t block = 1;

  std::int64_t in_word() const { return bits(stored) < 8 ? 32 / bits(stored) : 1; }  // rows that share one
  bool has_blocks() const { return static_cast<bool>(scale); }
};
// How the group's anchor reads its right operand, where register tiles of float32 can widen that.
std::optional<NarrowRight> narrow_right_of(const Group& group);

// What the contraction reads as its right operand becomes the whole numbers.
void bind_whole(Scope& scope, const NarrowRight& right);

// Temporaries for scales and, where there are any, zero points: [batch][panel][block][nr].
std::vector<Type> block_temps(const NarrowRight& right, const Contraction& c, std::int64_t nr);
// Writes those, which are the group's from `temp` on.
Call pack_blocks(const Group& group, const NarrowRight& right, const Contraction& c, std::int64_t nr,
                 int temp);

// Makes floats of a tile of whole numbers whose first row is `depth` of panel `panel` (counted through all batches).
Stmt apply_blocks(Assembly& a, const NarrowRight& right, const Contraction& c, std::int64_t nr, int temp,
                  const loops::Tile& tile, const Expr& panel, const Expr& depth);

}  // namespace deepseek::kernels
