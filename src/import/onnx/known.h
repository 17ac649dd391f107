// Values that are known while a model is imported: small integer, bool and float tensors. Integer elements are
// Dims, so what derives from symbolic shapes is known as well.
#pragma once

#include <optional>
#include <vector>

#include "deepseek/tensor.h"

namespace deepseek::onnx_import {

// Larger tensors are never followed: shape arithmetic is small.
inline constexpr std::int64_t kMaxKnown = 1 << 16;

struct Known {
  DType dtype = DType::I64;
  Dims dims;
  std::vector<Dim> ints;      // elements where dtype is an integer or Bool
  std::vector<double> reals;  // elements where dtype is a float

  Known() = default;
  Known(DType t, Dims d);                           // zeros
  static std::optional<Known> of(const Tensor& t);  // nothing for large ones, complex and strings
  static Known vector(std::vector<Dim> values);     // one-dimensional I64
  static Known scalar(DType t, double value);

  bool real() const { return is_float(dtype); }
  std::int64_t numel() const { return deepseek::numel(dims); }
  bool is_static() const;
  double at(std::size_t i) const {
    return real() ? reals[i] : static_cast<double>(ints[i].value());
  }  // static
  void set(std::size_t i, const Known& from, std::size_t j);  // copies an element of the same kind
  Tensor tensor() const;                                      // of a static one
};

// -1, 0 or 1 where it is the same for every value (>= 0) of the symbols.
std::optional<int> compare(const Dim& a, const Dim& b);

}  // namespace deepseek::onnx_import
