// Host arrays: dtype, dims and shared ownership of row-major contiguous memory.
#pragma once

#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepseek/dtype.h"
#include "deepseek/error.h"
#include "deepseek/shape.h"

namespace deepseek {

// Copies share memory. The bytes belong to whoever holds a Tensor (or, for `wrap`, to `owner`).
class Tensor {
 public:
  Tensor() = default;
  // Uninitialised memory, aligned to 64 bytes (but see guard.h). Throws Error{ResourceExhausted} when there is none.
  Tensor(DType dtype, Dims dims);
  // Memory of someone else, kept alive by `owner`.
  static Tensor wrap(DType dtype, Dims dims, void* data, std::shared_ptr<void> owner);
  static Tensor zeros(DType dtype, Dims dims);
  // The same dtype and dims at another address, which nothing keeps alive; allocates nothing. Not null.
  void point_to(void* data) { data_ = std::shared_ptr<void>(std::shared_ptr<void>(), data); }
  template <class T>
  static Tensor of(DType dtype, Dims dims, std::span<const T> values) {
    Tensor t(dtype, std::move(dims));
    check(t.bytes() == values.size_bytes(), "Tensor::of: as many values as elements");
    if (!values.empty()) std::memcpy(t.data(), values.data(), values.size_bytes());
    return t;
  }
  static Tensor of_int64(std::vector<std::int64_t> values);  // one-dimensional I64

  bool defined() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Dims& dims() const { return dims_; }
  std::int64_t numel() const { return deepseek::numel(dims_); }
  std::size_t bytes() const { return static_cast<std::size_t>(deepseek::bytes(dtype_, numel())); }
  void* data() const { return data_.get(); }
  // Whom the memory belongs to; tensors that keep the same memory alive compare equal by std::owner_less.
  std::weak_ptr<void> owner() const { return data_; }
  template <class T>
  std::span<T> as() const {
    return {static_cast<T*>(data()), bytes() / sizeof(T)};
  }
  // Elements of an integer or bool tensor as int64; throws Error{InvalidArgument} for other types.
  std::vector<std::int64_t> to_int64() const;
  // The element as a double, whatever the (real) dtype; for printing and constant folding, not for kernels.
  double at(std::int64_t flat_index) const;
  void set(std::int64_t flat_index, double value);
  Tensor reshaped(Dims dims) const;  // shares memory; element counts must agree

 private:
  DType dtype_ = DType::F32;
  Dims dims_;
  std::shared_ptr<void> data_;
};

}  // namespace deepseek
