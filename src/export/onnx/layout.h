// Layouts such as "N01C" at the border to ONNX's, which are "NC01" and "OI01"; poolings and convolutions share this.
#pragma once

#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

std::string batch_first(int rank);   // "NC01" for rank 4
std::string kernel_first(int rank);  // "OI01" for rank 4
// perm of a transpose from one layout to another.
Ints between(const std::string& from, const std::string& to);
// The shape of a tensor in another layout.
Shape shape_in(const Shape& shape, const std::string& from, const std::string& to);
// pads of Pad for the last axes: `low` and `high` where they are of the sign asked for, else 0.
std::string padded(Writer& w, const std::string& x, int rank, const Ints& low, const Ints& high,
                   const std::string& value);
// x with `gap` constants between neighbours along an axis; `shape` is x's and becomes the result's.
std::string spread(Writer& w, std::string x, Shape& shape, int axis, std::int64_t gap,
                   const std::string& value);
Ints joined(const Ints& low, const Ints& high);
bool all_zero(const Ints& v);

}  // namespace deepseek::onnx_export
