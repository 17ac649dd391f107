#include "runtime/launch.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>

#include "runtime/recorder.h"

namespace deepseek {
namespace {

// Below this a loop runs on the caller alone: waking a thread costs about as much.
constexpr double kWorthDividingNs = 4000;
// The least work in one piece of a divided loop.
constexpr double kPieceNs = 2000;
// What a core does at least, as a guess: 16 GFLOP/s, 8 GB/s.
constexpr double kFlopsPerNs = 16, kBytesPerNs = 8;

}  // namespace

std::int64_t most_scratch(const KernelShape& shape) {
  std::int64_t most = 0;
  for (const std::int64_t bytes : shape.scratch_bytes) most = std::max(most, bytes);
  return most;
}

double work_ns(double flops, double bytes) { return std::max(flops / kFlopsPerNs, bytes / kBytesPerNs); }

std::int32_t launch(const Kernel& kernel, const KernelShape& shape, const std::int64_t* dims,
                    void* const* buffers, Executor& executor, const Scratch& scratch, double work,
                    Recorder* recorder) {
  const bool spans = recorder && recorder->wants_spans;
  std::atomic<std::int32_t> failed{0};
  std::atomic<bool> threw{false};
  std::exception_ptr exception;
  const int phases = static_cast<int>(shape.grid.size());
  for (int phase = 0; phase < phases && failed.load() == 0; ++phase) {
    const std::int64_t grid = shape.grid[static_cast<std::size_t>(phase)];
    const auto run = [&](std::int64_t begin, std::int64_t end, int worker) {
      std::int32_t status = 0;
      const std::int64_t started = spans ? now_ns() : 0;
      try {
        kernel.run(phase, buffers, dims, begin, end, scratch.of(worker), &status);
      } catch (...) {
        if (!threw.exchange(true)) exception = std::current_exception();
      }
      if (spans) recorder->span(worker, started, now_ns());
      std::int32_t none = 0;
      if (status != 0) failed.compare_exchange_strong(none, status);
    };
    if (grid <= 1 || (work > 0 && work < kWorthDividingNs)) {
      if (grid > 0) run(0, grid, 0);
    } else {
      std::int64_t grain = 1;
      if (work > 0)
        grain = std::clamp<std::int64_t>(
            static_cast<std::int64_t>(std::ceil(static_cast<double>(grid) * kPieceNs / work)), 1,
            std::max<std::int64_t>(1, grid / executor.threads()));
      executor.parallel_for(grid, grain, run);
    }
    if (exception) std::rethrow_exception(exception);
  }
  return failed.load();
}

void throw_status(const StepInfo& info, const std::vector<std::string>& messages, std::int32_t code) {
  const bool named = code >= 1 && code <= static_cast<std::int32_t>(messages.size());
  throw Error(
      Code::InvalidArgument, info.op.empty() ? info.name : info.op, info.source,
      named ? messages[static_cast<std::size_t>(code) - 1] : "data that pass check " + std::to_string(code),
      "data that break it");
}

}  // namespace deepseek
