// The right operand of a matrix product in panels of `nr` columns, [batch][panel][k][nr]: what register tiles read.
#pragma once

#include <optional>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/in_memory.h"
#include "kernels/lowered.h"
#include "kernels/narrow_right.h"

namespace deepseek::kernels {

Type panels_type(const Contraction& c, std::int64_t nr, DType stored);
// Writes the panels of the group's contraction `c` to its temporary `temp`; of whole numbers where it is `narrow`.
Call pack_panels(const Group& group, const Contraction& c, std::int64_t nr, const Type& packed, int temp,
                 const TargetInfo& target, const std::optional<NarrowRight>& narrow = {});
// A panel's steps [first, first + count) of the depth, which is all of it where it has several axes.
struct PanelPart {
  Expr batch, panel, first, count;
};
// Writes it to `to`, where it begins with row `first`.
loops::Stmt packed_panel(Assembly& a, const Contraction& c, std::int64_t nr, const PanelPart& part,
                         const loops::Buffer& to, const Expr& first, const TargetInfo& target);
// As pack_panels where so many neighbours in the depth, padded with zeros to `depth`, fill a word of 32 bits:
// [batch][panel][k/in_word][nr] words, which are what is stored.
struct Words {
  DType element;
  Dim depth;
  std::int64_t in_word;
};
Call pack_words(const Group& group, const Contraction& c, std::int64_t nr, const Words& words, int temp,
                const std::optional<NarrowRight>& narrow = {});

}  // namespace deepseek::kernels
