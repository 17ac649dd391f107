// A Context that several Python threads may call: they take turns. No call may hold Python's lock, which a run asks for
// when memory changes hands.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "convert.h"
#include "deepseek/executable.h"

namespace deepseek::python {

class PyContext {
 public:
  explicit PyContext(const Executable& e) : executable_(e), context_(e), set_(e.inputs().size(), false) {}

  const Executable& executable() const { return executable_; }

  // Throws Error for a number that no parameter has.
  void set_parameter(int input, const Tensor& value, std::uint64_t version) {
    const std::lock_guard lock(mutex_);
    context_.set_parameter(input, value, version);
    set_.at(static_cast<std::size_t>(input)) = true;
  }
  void run(std::span<const Tensor> inputs, std::span<Tensor> outputs) {
    const std::lock_guard lock(mutex_);
    context_.run(inputs, outputs);
  }
  void run(std::span<const Tensor> inputs, std::span<Tensor> outputs, const Handover& handover) {
    const std::lock_guard lock(mutex_);
    context_.run(inputs, outputs, handover);
  }
  bool is_set(std::size_t input) const { return set_[input]; }
  std::size_t arena_bytes() {
    const std::lock_guard lock(mutex_);
    return context_.arena_bytes();
  }

 private:
  Executable executable_;
  Context context_;
  std::vector<bool> set_;
  std::mutex mutex_;
};

// What keeps a Python object until the last copy is gone, on whichever thread that is.
inline std::shared_ptr<void> keep(const nb::object& object) {
  return {new nb::object(object), [](void* p) {
            if (!Py_IsInitialized()) return;
            const nb::gil_scoped_acquire lock;
            delete static_cast<nb::object*>(p);
          }};
}

}  // namespace deepseek::python
