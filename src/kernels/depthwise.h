// Depthwise convolution, channels innermost, in strips: neighbouring results of a row share the taps and the columns of
// the input that they load; vectors lie along the channels.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "kernels/contraction.h"
#include "kernels/lowered.h"
#include "kernels/nest.h"

namespace deepseek::kernels {

struct Depthwise {
  const Node* conv = nullptr;
  std::int64_t height, width, channels;  // of the result
  std::int64_t taps_y, taps_x, stride;   // the stride along a row
};

// The group as one depthwise convolution in fp32 and what is elementwise around it; nothing when it is something else.
std::optional<Depthwise> depthwise_of(const Group& group);

// Results per strip; at most the width.
std::int64_t strip_of(const Depthwise& d, const TargetInfo& target);

// The taps as strips read them, [tap][channel], in the group's temporary `temp`.
Type taps_type(const Depthwise& d);
Call pack_taps(const Group& group, const Depthwise& d, int temp);

// Appends the sums of a strip to `stmts`; they are given, one per result. `column` (y, x): of the strip's input, as tap
// row y reads it; the strip's first result begins at its column 0.
std::vector<Expr> strip_sums(const Depthwise& d, std::int64_t strip, const loops::Buffer& taps,
                             const Expr& channel,
                             const std::function<Expr(std::int64_t y, std::int64_t x)>& column,
                             std::vector<Stmt>& stmts);
// Column x of the input of a strip that begins at result (image, row, first), as tap row y reads it.
Expr strip_column(const Depthwise& d, const Contraction& c, Scope& scope, std::int64_t strip,
                  std::span<const Expr> first, const Expr& channel, std::int64_t y, std::int64_t x);
// A row in strips: `one` gives that whose first result is `first`. The last one may overlap the one before.
Stmt over_strips(const Depthwise& d, std::int64_t strip, const std::function<Stmt(const Expr& first)>& one);

}  // namespace deepseek::kernels
