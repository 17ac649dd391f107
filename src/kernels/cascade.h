// A depthwise convolution with the 1x1 convolutions before and after it as one kernel.
#pragma once

#include "kernels/lowered.h"

namespace deepseek::kernels {

// Whether groups of kind Cascade can be lowered there.
bool takes_cascades(const LoweringContext& context);

}  // namespace deepseek::kernels
