// Memory between two pages that must not be touched: a kernel that leaves its buffer faults at once.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace deepseek::testing {

class GuardedMemory {
 public:
  enum class Side : std::uint8_t { End, Begin };  // which end of the buffer lies at a guard page

  explicit GuardedMemory(std::size_t bytes, Side side = Side::End) : bytes_(bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inside = (bytes + page - 1) / page * page;
    mapped_ = inside + 2 * page;
    void* p = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    map_ = static_cast<std::byte*>(p);
    if (inside != 0 && mprotect(map_ + page, inside, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    data_ = map_ + page + (side == Side::End ? inside - bytes : 0);
  }
  ~GuardedMemory() {
    if (map_) munmap(map_, mapped_);
  }
  GuardedMemory(GuardedMemory&& o) noexcept
      : map_(o.map_), data_(o.data_), mapped_(o.mapped_), bytes_(o.bytes_) {
    o.map_ = nullptr;
  }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  GuardedMemory& operator=(GuardedMemory&&) = delete;

  void* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte *map_ = nullptr, *data_ = nullptr;
  std::size_t mapped_ = 0, bytes_ = 0;
};

}  // namespace deepseek::testing
