// A buffer between two pages that must not be touched: a kernel that leaves it faults at once.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "deepseek/guard.h"

namespace deepseek::testing {

class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes, Guard side = Guard::End)
      : data_(guarded_memory(bytes, side)), bytes_(bytes) {
    if (!data_) throw std::bad_alloc();
  }

  void* data() const { return data_.get(); }
  std::size_t size() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }

 private:
  std::shared_ptr<void> data_;
  std::size_t bytes_;
};

}  // namespace deepseek::testing
