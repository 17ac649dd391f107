#include "deepseek/give_back.h"

#include <cstdint>
#include <cstdlib>

#ifdef __GLIBC__
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <string_view>
#endif

namespace deepseek {

#ifdef __GLIBC__
namespace {

bool holds(const dl_phdr_info& object, const ElfW(Phdr) & segment, std::uintptr_t address) {
  const std::uintptr_t begin = object.dlpi_addr + segment.p_vaddr;
  return segment.p_type == PT_LOAD && address >= begin && address - begin < segment.p_memsz;
}

// Of the object with this function: segments that nobody may write are as the file has them.
int drop_code(dl_phdr_info* object, std::size_t /*size*/, void* /*unused*/) {
  const auto here = reinterpret_cast<std::uintptr_t>(&drop_code);
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const ElfW(Phdr)* const segments = object->dlpi_phdr;
  bool ours = false;
  for (int i = 0; i < object->dlpi_phnum; ++i) ours = ours || holds(*object, segments[i], here);
  if (!ours) return 0;
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr) & s = segments[i];
    if (s.p_type != PT_LOAD || (s.p_flags & PF_W) != 0) continue;
    const std::uintptr_t begin = (object->dlpi_addr + s.p_vaddr + page - 1) / page * page;
    const std::uintptr_t end = (object->dlpi_addr + s.p_vaddr + s.p_memsz) / page * page;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 1;
}

// The C library's own thresholds follow what a process frees up to kNeverFromHeap; so much of its heap stays free then.
constexpr std::size_t kStaysAnyway = 2 * kNeverFromHeap;

struct Heap {
  std::mutex mutex;
  std::size_t kept = 0;
  bool is_told = false;
};

Heap& heap() {
  static Heap* const instance = new Heap;  // outlives what ends with the process
  return *instance;
}

bool has_user_chosen() {
  static const bool chosen = [] {
    const char* const tunables = std::getenv("GLIBC_TUNABLES");
    return std::getenv("MALLOC_TRIM_THRESHOLD_") || std::getenv("MALLOC_MMAP_THRESHOLD_") ||
           (tunables && std::string_view(tunables).find("glibc.malloc.") != std::string_view::npos);
  }();
  return chosen;
}

// Once told, the C library moves neither threshold by itself.
void tell(Heap& to) {
  if (!to.is_told) mallopt(M_MMAP_THRESHOLD, static_cast<int>(kNeverFromHeap));
  to.is_told = true;
  const std::size_t most = std::numeric_limits<int>::max();
  mallopt(M_TRIM_THRESHOLD, static_cast<int>(std::clamp(2 * to.kept, kStaysAnyway, most)));
}

}  // namespace

void give_back_heap() { malloc_trim(0); }

void give_back_memory() {
  give_back_heap();
  dl_iterate_phdr(drop_code, nullptr);
}

StaysInHeap::StaysInHeap(std::size_t bytes) : bytes_(bytes < kStaysAnyway || has_user_chosen() ? 0 : bytes) {
  if (bytes_ == 0) return;
  const std::lock_guard lock(heap().mutex);
  heap().kept += bytes_;
  tell(heap());
}

StaysInHeap::~StaysInHeap() {
  if (bytes_ == 0) return;
  const std::lock_guard lock(heap().mutex);
  heap().kept -= bytes_;
  tell(heap());
  give_back_heap();
}
#else
void give_back_heap() {}
void give_back_memory() {}
StaysInHeap::StaysInHeap(std::size_t bytes) : bytes_(bytes) {}
StaysInHeap::~StaysInHeap() = default;
#endif

}  // namespace deepseek
