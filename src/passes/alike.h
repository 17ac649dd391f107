// Groups that do equal work, as the layers of a model do: one is lowered for all of them.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "kernels/lowered.h"
#include "passes/piece.h"
#include "passes/tune.h"

namespace deepseek {

class Alike {
 public:
  Alike(std::span<const Group> groups, std::span<const Choice> choices,
        const kernels::LoweringContext& context);

  // The first group that does what group i does, maybe itself.
  std::size_t first(std::size_t i) const { return first_[i]; }
  // `lowered` of that one with the arguments of group i; none where an argument is neither read nor given by the group.
  std::optional<kernels::Lowered> renamed(const kernels::Lowered& lowered, std::size_t i) const;

 private:
  std::vector<std::size_t> first_;
  std::vector<std::vector<Value>> values_;  // of each group's piece
};

}  // namespace deepseek
