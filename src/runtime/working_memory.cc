#include "runtime/working_memory.h"

#include <algorithm>
#include <atomic>
#include <mutex>

namespace deepseek {
namespace {

struct Idle {
  std::mutex mutex;
  std::vector<std::unique_ptr<WorkingMemory>> memory;
};

Idle& idle() {
  static Idle* const instance = new Idle;  // outlives contexts that end with the process
  return *instance;
}

}  // namespace

bool GrowingMemory::reserve(std::int64_t bytes) {
  if (bytes <= bytes_ && memory_.defined()) return false;
  memory_ = {};
  memory_ = Tensor(DType::U8, {bytes});
  bytes_ = bytes;
  return true;
}

void Scratch::reserve(std::int64_t bytes_per_worker, int workers) {
  memory_.resize(std::max(memory_.size(), static_cast<std::size_t>(workers)));
  for (GrowingMemory& m : memory_) m.reserve(bytes_per_worker);
}

void Scratch::warm() const {
  for (const GrowingMemory& m : memory_) read_lines(m.data(), m.bytes());
}

void WorkingMemory::reserve(std::size_t segment, std::int64_t arena_bytes, std::int64_t scratch_bytes,
                            int workers) {
  static std::atomic<std::uint64_t> stamps{0};
  arenas_.resize(std::max(arenas_.size(), segment + 1));
  if (arenas_[segment].reserve(arena_bytes)) stamp_ = ++stamps;
  scratch_.reserve(scratch_bytes, workers);
}

Lease::Lease(std::uint64_t stamp) {
  Idle& from = idle();
  const std::lock_guard lock(from.mutex);
  if (from.memory.empty()) {
    memory_ = std::make_unique<WorkingMemory>();
    return;
  }
  const auto known = std::find_if(from.memory.begin(), from.memory.end(),
                                  [&](const auto& memory) { return memory->stamp() == stamp; });
  if (known != from.memory.end()) std::swap(*known, from.memory.back());
  memory_ = std::move(from.memory.back());
  from.memory.pop_back();
}

Lease::~Lease() {
  Idle& to = idle();
  const std::lock_guard lock(to.mutex);
  to.memory.push_back(std::move(memory_));
}

void free_idle_memory() {
  std::vector<std::unique_ptr<WorkingMemory>> freed;
  Idle& from = idle();
  const std::lock_guard lock(from.mutex);
  freed.swap(from.memory);
}

void read_lines(const std::byte* data, std::int64_t bytes) {
  constexpr std::int64_t kLine = 64;
  const volatile std::byte* line = data;
  for (std::int64_t i = 0; i < bytes; i += kLine) (void)line[i];
}

}  // namespace deepseek
