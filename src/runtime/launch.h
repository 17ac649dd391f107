// Running one kernel on an executor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepseek/executor.h"
#include "runtime/kernel.h"
#include "runtime/step.h"
#include "runtime/working_memory.h"

namespace deepseek {

class Recorder;

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
