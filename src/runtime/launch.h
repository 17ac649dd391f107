// Running one kernel on an executor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepseek/executor.h"
#include "deepseek/tensor.h"
#include "runtime/kernel.h"
#include "runtime/step.h"

namespace deepseek {

class Recorder;

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

// Reads every cache line.
void read_lines(const std::byte* data, std::int64_t bytes);

std::int64_t most_scratch(const KernelShape& shape);

// A rough time on one thread, to tell what is worth dividing. 0 when nothing is known.
double work_ns(double flops, double bytes);

// Runs every phase. `buffers`: one address per parameter. Returns 0 or the code of a failed check. Throws
// what the kernel throws (emitted code throws nothing). `recorder`: told what each worker does; may be null.
std::int32_t launch(const Kernel& kernel, const KernelShape& shape, const std::int64_t* dims,
                    void* const* buffers, Executor& executor, const Scratch& scratch, double work_ns,
                    Recorder* recorder = nullptr);

[[noreturn]] void throw_status(const StepInfo& info, const std::vector<std::string>& messages,
                               std::int32_t code);

}  // namespace deepseek
