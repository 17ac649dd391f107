// Tensors in NumPy's .npy files, row-major.
#pragma once

#include <string>

#include "deepseek/tensor.h"

namespace deepseek {

// `dtype`: what the reader wants. Types that NumPy lacks (bfloat16, fp8) are stored as raw bytes of their size ("|V2").
// Throws Error{NotFound, DataLoss} for the file and Error{InvalidArgument} for one of another dtype.
Tensor read_npy(const std::string& path, DType dtype);
void write_npy(const std::string& path, const Tensor& tensor);

}  // namespace deepseek
