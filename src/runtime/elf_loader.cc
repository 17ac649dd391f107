// A linker for one object that imports nothing: lays sections out, applies relocations, protects pages.
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "deepseek/error.h"
#include "runtime/kernel_loader.h"
#include "runtime/relocate.h"

namespace deepseek {
namespace {

#if defined(__aarch64__)
constexpr unsigned kMachine = EM_AARCH64;
#else
constexpr unsigned kMachine = EM_X86_64;
#endif

// Damage and abuse stop here: our kernels are some tens of kilobytes.
constexpr std::size_t kMaxImage = std::size_t{1} << 30;

[[noreturn]] void damaged(const char* what) {
  throw Error(Code::DataLoss, "load", "", "an object file of ours", what);
}

class Mapping {
 public:
  explicit Mapping(std::size_t bytes) : bytes_(bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)  // NOLINT: the constant is a cast
      throw Error(Code::ResourceExhausted, "load", "", std::to_string(bytes) + " bytes for code",
                  "none left");
    data_ = static_cast<std::byte*>(p);
  }
  ~Mapping() { munmap(data_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* data() const { return data_; }
  void protect(std::size_t begin, std::size_t end, int protection) const {
    if (begin < end && mprotect(data_ + begin, end - begin, protection) != 0)
      throw Error(Code::Unsupported, "load", "", "a system that lets code be loaded", "mprotect refused");
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

class Linker {
 public:
  explicit Linker(std::span<const std::byte> object) : object_(object) {}

  struct Result {
    std::unique_ptr<Mapping> memory;
    std::map<std::string, std::byte*> functions;
  };

  Result link() {
    read_headers();
    lay_out();
    for (std::size_t i = 0; i < sections_.size(); ++i)
      if (offsets_[i] && sections_[i].sh_type != SHT_NOBITS && sections_[i].sh_size > 0)
        std::memcpy(memory_->data() + *offsets_[i], bytes(sections_[i].sh_offset, sections_[i].sh_size),
                    sections_[i].sh_size);
    read_symbols();
    for (const Elf64_Shdr& s : sections_)
      if (s.sh_type == SHT_RELA) relocate(s);
    auto* code = reinterpret_cast<char*>(memory_->data());
    __builtin___clear_cache(code, code + code_end_);
    memory_->protect(0, code_end_, PROT_READ | PROT_EXEC);
    memory_->protect(code_end_, end_, PROT_READ);
    return {std::move(memory_), std::move(functions_)};
  }

 private:
  const std::byte* bytes(std::uint64_t offset, std::uint64_t size) const {
    if (offset > object_.size() || size > object_.size() - offset) damaged("a section beyond the end");
    return object_.data() + offset;
  }
  template <class T>
  T read(std::uint64_t offset) const {
    T value;
    std::memcpy(&value, bytes(offset, sizeof(T)), sizeof(T));
    return value;
  }

  void read_headers() {
    const auto header = read<Elf64_Ehdr>(0);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_type != ET_REL || header.e_shentsize != sizeof(Elf64_Shdr))
      damaged("something else");
    if (header.e_machine != kMachine)
      throw Error(Code::Unsupported, "load", "", "code for " + host_triple(),
                  "machine " + std::to_string(header.e_machine));
    for (int i = 0; i < header.e_shnum; ++i)
      sections_.push_back(
          read<Elf64_Shdr>(header.e_shoff + static_cast<std::uint64_t>(i) * sizeof(Elf64_Shdr)));
  }

  // Code first, then data that is only read, each from a page's begin.
  void lay_out() {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    offsets_.assign(sections_.size(), std::nullopt);
    for (const bool code : {true, false}) {
      for (std::size_t i = 0; i < sections_.size(); ++i) {
        const Elf64_Shdr& s = sections_[i];
        const bool wanted =
            (s.sh_flags & SHF_ALLOC) != 0 && (s.sh_type == SHT_PROGBITS || s.sh_type == SHT_NOBITS);
        if (!wanted || ((s.sh_flags & SHF_EXECINSTR) != 0) != code) continue;
        if ((s.sh_flags & SHF_WRITE) != 0 && s.sh_size > 0) damaged("data that is written");
        const std::uint64_t align = s.sh_addralign == 0 ? 1 : s.sh_addralign;
        if ((align & (align - 1)) != 0 || align > page || s.sh_size > kMaxImage)
          damaged("an impossible section");
        end_ = (end_ + align - 1) / align * align;
        offsets_[i] = end_;
        end_ += s.sh_size;
        if (end_ > kMaxImage) damaged("an impossible section");
      }
      end_ = (end_ + page - 1) / page * page;
      if (code) code_end_ = end_;
    }
    memory_ = std::make_unique<Mapping>(std::max(end_, page));
  }

  void read_symbols() {
    for (const Elf64_Shdr& s : sections_) {
      if (s.sh_type != SHT_SYMTAB) continue;
      if (s.sh_link >= sections_.size()) damaged("symbols without names");
      const Elf64_Shdr& names = sections_[s.sh_link];
      for (std::uint64_t at = 0; at + sizeof(Elf64_Sym) <= s.sh_size; at += sizeof(Elf64_Sym)) {
        const auto symbol = read<Elf64_Sym>(s.sh_offset + at);
        std::byte* address = nullptr;
        if (symbol.st_shndx < sections_.size() && offsets_[symbol.st_shndx]) {
          if (symbol.st_value > sections_[symbol.st_shndx].sh_size) damaged("a symbol beyond its section");
          address = memory_->data() + *offsets_[symbol.st_shndx] + symbol.st_value;
        }
        symbols_.push_back(address);
        if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && address) {
          if (symbol.st_name >= names.sh_size) damaged("a symbol without a name");
          const auto* name =
              reinterpret_cast<const char*>(bytes(names.sh_offset, names.sh_size)) + symbol.st_name;
          functions_[std::string(name, strnlen(name, names.sh_size - symbol.st_name))] = address;
        }
      }
    }
  }

  void relocate(const Elf64_Shdr& table) {
    if (table.sh_info >= sections_.size()) damaged("relocations of nothing");
    if (!offsets_[table.sh_info]) return;  // of a section that is not loaded
    const Elf64_Shdr& section = sections_[table.sh_info];
    for (std::uint64_t at = 0; at + sizeof(Elf64_Rela) <= table.sh_size; at += sizeof(Elf64_Rela)) {
      const auto r = read<Elf64_Rela>(table.sh_offset + at);
      const std::uint64_t index = ELF64_R_SYM(r.r_info);
      if (index >= symbols_.size()) damaged("a relocation without a symbol");
      if (!symbols_[index]) damaged("an import");
      if (r.r_offset > section.sh_size) damaged("a relocation beyond its section");
      std::byte* place = memory_->data() + *offsets_[table.sh_info] + r.r_offset;
      const auto target =
          reinterpret_cast<std::uintptr_t>(symbols_[index]) + static_cast<std::uint64_t>(r.r_addend);
      deepseek::relocate(kMachine, ELF64_R_TYPE(r.r_info), {place, section.sh_size - r.r_offset},
                         reinterpret_cast<std::uintptr_t>(place), target);
    }
  }

  std::span<const std::byte> object_;
  std::vector<Elf64_Shdr> sections_;
  std::vector<std::optional<std::size_t>> offsets_;  // in the mapping, of sections that are loaded
  std::vector<std::byte*> symbols_;
  std::map<std::string, std::byte*> functions_;
  std::unique_ptr<Mapping> memory_;
  std::size_t code_end_ = 0, end_ = 0;
};

class LoadedObject final : public ObjectCode {
 public:
  explicit LoadedObject(Linker::Result result) : result_(std::move(result)) {}
  void* find(const std::string& symbol) const override {
    const auto it = result_.functions.find(symbol);
    if (it == result_.functions.end())
      throw Error(Code::DataLoss, "load", "", "an object that defines " + symbol, "one that does not");
    return it->second;
  }

 private:
  Linker::Result result_;
};

}  // namespace

std::shared_ptr<const ObjectCode> load_elf(std::span<const std::byte> object) {
  return std::make_shared<LoadedObject>(Linker(object).link());
}

}  // namespace deepseek
