#include "deepseek/guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "deepseek/error.h"

namespace deepseek {
namespace {

constexpr int kUntouched = 0xff;

Guard from_environment() {
  const char* text = std::getenv("DEEPSEEK_GUARD");
  const std::string_view side = text ? text : "";
  if (side.empty()) return Guard::None;
  if (side == "end") return Guard::End;
  if (side == "begin") return Guard::Begin;
  throw Error(Code::InvalidArgument, "DEEPSEEK_GUARD", "", "\"end\" or \"begin\"",
              "\"" + std::string(side) + "\"");
}

std::atomic<Guard>& setting() {
  static std::atomic<Guard> side = from_environment();
  return side;
}

}  // namespace

void set_guard(Guard side) { setting().store(side, std::memory_order_relaxed); }

Guard guard() { return setting().load(std::memory_order_relaxed); }

std::shared_ptr<void> guarded_memory(std::size_t bytes, Guard side) {
  check(side != Guard::None, "guarded_memory: a side");
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t inside = (bytes + page - 1) / page * page, mapped = inside + 2 * page;
  void* map = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  std::byte* first = static_cast<std::byte*>(map) + page;
  if (inside != 0 && mprotect(first, inside, PROT_READ | PROT_WRITE) != 0) {
    munmap(map, mapped);
    return nullptr;
  }
  if (inside != 0) std::memset(first, kUntouched, inside);
  return {side == Guard::End ? first + (inside - bytes) : first, [=](void*) { munmap(map, mapped); }};
}

}  // namespace deepseek
