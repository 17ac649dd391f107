// Attention as one kernel.
#pragma once

#include "kernels/lowered.h"

namespace deepseek::kernels {

// Whether groups of kind Attention can be lowered there.
bool takes_attention(const LoweringContext& context);

}  // namespace deepseek::kernels
