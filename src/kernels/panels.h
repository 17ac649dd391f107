// The right operand of a matrix product in panels of `nr` columns, [batch][panel][k][nr]: what register tiles read.
#pragma once

#include "kernels/contraction.h"
#include "kernels/lowered.h"

namespace deepseek::kernels {

Dim product_of(const std::vector<Dim>& dims);

Type panels_type(const Contraction& c, std::int64_t nr, DType stored);
// Writes the panels of the group's contraction `c` to its temporary `temp`.
Call pack_panels(const Group& group, const Contraction& c, std::int64_t nr, const Type& packed, int temp,
                 const TargetInfo& target);

}  // namespace deepseek::kernels
