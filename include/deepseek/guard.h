// Finding code that leaves its buffers.
//
// While a side is set, everything that the runtime allocates (tensors, what derives from constants, each thread's
// scratch, and each temporary and workspace, which then do not share an arena) has pages of its own between two
// pages that must not be touched, and begins as bytes of 0xff (NaN as floats): the first read or write beyond a
// buffer's edge on that side is a segmentation fault. Memory of callers stays where it is. Slow, and hungry for
// mappings: for tests and for hunting a crash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace deepseek {

enum class Guard : std::uint8_t {
  None,
  End,    // buffers end where the page begins that must not be touched; aligned as their elements are
  Begin,  // buffers begin where that page ends
};

// For every allocation of the process from now on; contexts keep the memory that they have. At first what
// DEEPSEEK_GUARD says: "end", "begin", or nothing.
void set_guard(Guard side);
Guard guard();

// Such memory whatever the setting; `side` is End or Begin. Null when there is none.
std::shared_ptr<void> guarded_memory(std::size_t bytes, Guard side);

}  // namespace deepseek
