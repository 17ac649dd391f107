// Windows of convolutions and pools: what their attributes say, paddings made explicit.
#pragma once

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

inline constexpr std::int64_t kMaxListed = std::int64_t{1} << 31;  // of one number in the lists of an op

struct Windows {
  Ints taps, strides, dilations, low, high;  // by spatial dim
  Ints extra;  // beyond the padding, where ceil_mode lets the last window hang over
};

// A list attribute with one entry per spatial dim; throws when it has another length.
Ints spatial_list(Context& c, const char* name, Ints otherwise);
// Reads kernel_shape (else `taps`), strides, dilations, pads, auto_pad and ceil_mode for input x [N, C, spatial...].
Windows read_windows(Context& c, Value x, const Shape& taps);
// Conv with the node's attributes.
Value convolve(Context& c, Value x, Value w, Value bias);

}  // namespace deepseek::onnx_import
