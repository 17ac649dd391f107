// Pages of 2 MiB for large memory, where the system has them: fewer faults when it is first touched, and fewer misses of
// the TLB when it streams through.
#pragma once

#include <cstddef>

namespace deepseek {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kWantsHugePages = 2 * kHugePage;  // bytes

// Asks for those that lie wholly within `size` bytes at `memory`, so that no more is taken than is used. Less than
// kWantsHugePages stays as it is. Refusal costs only speed.
void ask_for_huge_pages(void* memory, std::size_t size);

}  // namespace deepseek
