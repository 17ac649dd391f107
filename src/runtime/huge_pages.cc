#include "deepseek/huge_pages.h"

#include <sys/mman.h>

#include <cstdint>

namespace deepseek {

void ask_for_huge_pages(void* memory, std::size_t size) {
  if (size < kWantsHugePages) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage,
                       end = (begin + size) / kHugePage * kHugePage;
  madvise(static_cast<std::byte*>(memory) + (first - begin), end - first, MADV_HUGEPAGE);
}

}  // namespace deepseek
