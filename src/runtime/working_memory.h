// Memory that runs lend each other: what is in it is dead between runs, so that all executables of a process
// compute in as many pieces of it as runs go on at once.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "deepseek/tensor.h"

namespace deepseek {

// Memory that only grows: an arena, scratch.
class GrowingMemory {
 public:
  // Whether the memory moved. Contents are not kept.
  bool reserve(std::int64_t bytes);
  std::byte* data() const { return static_cast<std::byte*>(memory_.data()); }
  std::int64_t bytes() const { return bytes_; }

 private:
  Tensor memory_;
  std::int64_t bytes_ = 0;
};

// Memory of each worker.
class Scratch {
 public:
  void reserve(std::int64_t bytes_per_worker, int workers);
  std::byte* of(int worker) const { return memory_[static_cast<std::size_t>(worker)].data(); }
  void warm() const;

 private:
  std::vector<GrowingMemory> memory_;
};

class WorkingMemory {
 public:
  void reserve(std::size_t segment, std::int64_t arena_bytes, std::int64_t scratch_bytes, int workers);
  std::byte* arena(std::size_t segment) const { return arenas_[segment].data(); }
  const Scratch& scratch() const { return scratch_; }
  // Tells one state of all arenas of the process from every other: addresses in them hold as long as it does.
  std::uint64_t stamp() const { return stamp_; }

 private:
  std::vector<GrowingMemory> arenas_;  // by segment of the executable that runs
  Scratch scratch_;
  std::uint64_t stamp_ = 0;
};

// Working memory for as long as this lives: of what is idle the one with that stamp, where there is one; new where
// nothing is idle.
class Lease {
 public:
  explicit Lease(std::uint64_t stamp);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  WorkingMemory& operator*() const { return *memory_; }
  WorkingMemory* operator->() const { return memory_.get(); }

 private:
  std::unique_ptr<WorkingMemory> memory_;
};

// Frees what is idle. Called when a context ends, which may have been the one that needed so much.
void free_idle_memory();

// Reads every cache line.
void read_lines(const std::byte* data, std::int64_t bytes);

}  // namespace deepseek
