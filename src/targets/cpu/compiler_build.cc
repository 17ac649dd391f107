#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <llvm/Config/llvm-config.h>
#include <sys/stat.h>

#include <cstring>

#include "targets/cpu/kernel_cache.h"

namespace deepseek {
namespace {

struct Search {
  std::uintptr_t address;  // inside the library that is looked for
  std::string id;
};

std::string note_id(const char* at, const char* end) {
  const auto padded = [](std::size_t n) { return (n + 3) & ~std::size_t{3}; };
  while (at + sizeof(ElfW(Nhdr)) <= end) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof note);
    const char* name = at + sizeof note;
    const char* content = name + padded(note.n_namesz);
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0)
      return {content, note.n_descsz};
    at = content + padded(note.n_descsz);
  }
  return {};
}

int visit_library(dl_phdr_info* info, std::size_t /*size*/, void* data) {
  auto& search = *static_cast<Search*>(data);
  bool here = false;
  std::string id;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & p = info->dlpi_phdr[i];
    const std::uintptr_t start = info->dlpi_addr + p.p_vaddr;
    if (p.p_type == PT_LOAD && search.address >= start && search.address < start + p.p_memsz) here = true;
    if (p.p_type == PT_NOTE && id.empty()) {
      const auto* notes = reinterpret_cast<const char*>(start);  // NOLINT(performance-no-int-to-ptr)
      id = note_id(notes, notes + p.p_memsz);
    }
  }
  if (here) search.id = id;
  return here;
}

std::string find_build() {
  Search search{reinterpret_cast<std::uintptr_t>(&visit_library), {}};
  dl_iterate_phdr(visit_library, &search);
  std::string build = std::string("llvm ") + LLVM_VERSION_STRING + " ";
  if (!search.id.empty()) return build + search.id;
  Dl_info file{};
  struct stat info{};
  if (dladdr(reinterpret_cast<void*>(&visit_library), &file) != 0 && stat(file.dli_fname, &info) == 0)
    build += std::to_string(info.st_size) + " " + std::to_string(info.st_mtim.tv_sec) + "." +
             std::to_string(info.st_mtim.tv_nsec);
  return build;
}

}  // namespace

const std::string& compiler_build() {
  static const std::string build = find_build();
  return build;
}

}  // namespace deepseek
