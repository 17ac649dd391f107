#include "runtime/relocate.h"

#include <elf.h>

#include <cstring>

#include "deepseek/error.h"

namespace deepseek {
namespace {

[[noreturn]] void damaged(const char* what) {
  throw Error(Code::DataLoss, "load", "", "an object file of ours", what);
}

class Place {
 public:
  Place(std::span<std::byte> bytes, std::uint64_t here) : bytes_(bytes), here_(here) {}

  void write64(std::uint64_t value) const { write(&value, sizeof value); }
  void write32(std::int64_t value) const {
    if (!fits(value, 32)) damaged("a distance beyond 2 GiB");
    write(&value, 4);
  }
  std::int64_t distance(std::uint64_t target) const { return static_cast<std::int64_t>(target - here_); }

  // Puts `count` bits of a value into the 32-bit instruction, from bit `at` on.
  void insert(std::uint64_t value, int count, int at) const {
    const std::uint32_t mask = ((std::uint32_t{1} << count) - 1) << at;
    std::uint32_t instruction = 0;
    if (bytes_.size() < sizeof instruction) damaged("a relocation beyond its section");
    std::memcpy(&instruction, bytes_.data(), sizeof instruction);
    instruction = (instruction & ~mask) | (static_cast<std::uint32_t>(value << at) & mask);
    std::memcpy(bytes_.data(), &instruction, sizeof instruction);
  }
  static bool fits(std::int64_t value, int width) { return (value >> (width - 1)) == (value < 0 ? -1 : 0); }

 private:
  void write(const void* value, std::size_t size) const {
    if (bytes_.size() < size) damaged("a relocation beyond its section");
    std::memcpy(bytes_.data(), value, size);
  }
  std::span<std::byte> bytes_;
  std::uint64_t here_;
};

void relocate_x86(std::uint32_t type, const Place& place, std::uint64_t target) {
  switch (type) {
    case R_X86_64_64:
      return place.write64(target);
    case R_X86_64_PC64:
      return place.write64(static_cast<std::uint64_t>(place.distance(target)));
    case R_X86_64_PC32:
    case R_X86_64_PLT32:
      return place.write32(place.distance(target));
    default:
      damaged("a relocation of an unknown kind");
  }
}

// Loads and stores count the offset within a page in elements.
void insert_page_offset(const Place& place, std::uint64_t target, int log_element) {
  constexpr std::uint64_t kPage = 1 << 12;
  const std::uint64_t offset = target % kPage;
  if (offset % (std::uint64_t{1} << log_element) != 0) damaged("data that is not aligned");
  place.insert(offset >> log_element, 12, 10);
}

void relocate_aarch64(std::uint32_t type, const Place& place, std::uint64_t here, std::uint64_t target) {
  switch (type) {
    case R_AARCH64_ABS64:
      return place.write64(target);
    case R_AARCH64_PREL64:
      return place.write64(static_cast<std::uint64_t>(place.distance(target)));
    case R_AARCH64_PREL32:
      return place.write32(place.distance(target));
    case R_AARCH64_ADR_PREL_PG_HI21: {
      const auto pages = static_cast<std::int64_t>((target >> 12) - (here >> 12));
      if (!Place::fits(pages, 21)) damaged("a distance beyond 4 GiB");
      place.insert(static_cast<std::uint64_t>(pages), 2, 29);
      return place.insert(static_cast<std::uint64_t>(pages) >> 2, 19, 5);
    }
    case R_AARCH64_ADD_ABS_LO12_NC:
    case R_AARCH64_LDST8_ABS_LO12_NC:
      return insert_page_offset(place, target, 0);
    case R_AARCH64_LDST16_ABS_LO12_NC:
      return insert_page_offset(place, target, 1);
    case R_AARCH64_LDST32_ABS_LO12_NC:
      return insert_page_offset(place, target, 2);
    case R_AARCH64_LDST64_ABS_LO12_NC:
      return insert_page_offset(place, target, 3);
    case R_AARCH64_LDST128_ABS_LO12_NC:
      return insert_page_offset(place, target, 4);
    case R_AARCH64_CALL26:
    case R_AARCH64_JUMP26: {
      const std::int64_t distance = place.distance(target);
      if (distance % 4 != 0 || !Place::fits(distance, 28)) damaged("a call beyond 128 MiB");
      return place.insert(static_cast<std::uint64_t>(distance) >> 2, 26, 0);
    }
    default:
      damaged("a relocation of an unknown kind");
  }
}

}  // namespace

void relocate(unsigned machine, std::uint32_t type, std::span<std::byte> section, std::uint64_t here,
              std::uint64_t target) {
  const Place place(section, here);
  if (machine == EM_AARCH64)
    relocate_aarch64(type, place, here, target);
  else
    relocate_x86(type, place, target);
}

}  // namespace deepseek
