#include "deepseek/huge_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace deepseek {
namespace {

// Whether huge pages were asked for where `address` lies.
bool asked_for(const std::byte* address) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream fields(line);
    if (fields >> std::hex >> begin >> dash >> end && dash == '-') here = begin <= wanted && wanted < end;
    if (here && line.starts_with("VmFlags:")) return line.find(" hg") != std::string::npos;
  }
  return false;
}

class HugePages : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) GTEST_SKIP() << "the system has none";
    void* const p =
        mmap(nullptr, kSize + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const auto all = reinterpret_cast<std::uintptr_t>(p);
    mapped_ = static_cast<std::byte*>(p);
    memory_ = mapped_ + ((all + kHugePage - 1) / kHugePage * kHugePage - all);
  }
  ~HugePages() override {
    if (mapped_) munmap(mapped_, kSize + kHugePage);
  }

  static constexpr std::size_t kSize = 6 * kHugePage;
  std::byte* mapped_ = nullptr;
  std::byte* memory_ = nullptr;  // begins with a huge page
};

TEST_F(HugePages, AreAskedForWithin) {
  ask_for_huge_pages(memory_ + 64, 3 * kHugePage);
  EXPECT_FALSE(asked_for(memory_ + 64));
  EXPECT_TRUE(asked_for(memory_ + kHugePage));
  EXPECT_TRUE(asked_for(memory_ + 3 * kHugePage - 1));
  EXPECT_FALSE(asked_for(memory_ + 3 * kHugePage));
}

TEST_F(HugePages, AreNotForLittle) {
  ask_for_huge_pages(memory_, kWantsHugePages - 1);
  EXPECT_FALSE(asked_for(memory_));
  ask_for_huge_pages(memory_, kWantsHugePages);
  EXPECT_TRUE(asked_for(memory_));
}

TEST_F(HugePages, OfNoMemoryAreNone) { ask_for_huge_pages(nullptr, 0); }

}  // namespace
}  // namespace deepseek
