// What compiling or loading took and running does not need goes back to the system; what every run takes stays.
#pragma once

#include <cstddef>

namespace deepseek {

// Free pages of the heap. Takes less than a millisecond where few are free.
void give_back_heap();

// The same, and the pages of this library's code and constants (LLVM's above all), which are the file's: whoever needs
// them again finds them in the page cache. Takes less than a millisecond. Any thread may be compiling meanwhile.
void give_back_memory();

// Bytes: pieces from here on the C library takes from the system each time, in pages that are touched first by whoever
// asked for them.
inline constexpr std::size_t kNeverFromHeap = std::size_t{32} << 20;

// While one lives, so many bytes of the heap more stay the process's when they are free: those of results that come
// and go with every run, whose pages the C library would otherwise give back, and the system clear again, each time.
// Nothing changes for less than 64 MB, which the C library keeps by itself, nor where the user has chosen the C
// library's thresholds (MALLOC_..., tunables).
class StaysInHeap {
 public:
  explicit StaysInHeap(std::size_t bytes);
  ~StaysInHeap();
  StaysInHeap(const StaysInHeap&) = delete;
  StaysInHeap& operator=(const StaysInHeap&) = delete;

 private:
  std::size_t bytes_;
};

}  // namespace deepseek
