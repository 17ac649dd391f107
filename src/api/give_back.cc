#include "deepseek/give_back.h"

#include <cstdint>

#ifdef __GLIBC__
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>
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

}  // namespace

void give_back_memory() {
  malloc_trim(0);
  dl_iterate_phdr(drop_code, nullptr);
}
#else
void give_back_memory() {}
#endif

}  // namespace deepseek
