// A segment of an executable at given dims: sizes, offsets, extents. Made once per dims and kept.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/executable.h"
#include "runtime/kernel.h"

namespace deepseek {

// An argument whose address is the caller's or made during the run.
struct Patch {
  int arg;
  ValueId value;  // Input, Output or Held
  std::int64_t offset;
};

struct BoundStep {
  std::vector<std::int64_t> dims;  // of KernelStep::dims
  KernelShape shape;
  std::size_t first_workspace = 0;  // Binding::address of the first; the others follow
  double flops = 0, bytes = 0, work_ns = 0;
  std::vector<void*> buffers;  // addresses; those in `patches` are filled in before each launch
  std::vector<Patch> patches;
};

struct Binding {
  DimEnv env;
  std::vector<BoundStep> steps;       // of the segment; empty ones for steps that are not kernels
  std::vector<std::int64_t> offsets;  // in the arena, of Segment::temps, then of all steps' workspaces
  std::vector<Tensor> guarded;        // what they have instead of an arena under a guard (guard.h)
  std::vector<std::pair<int, Dims>> outputs;  // dims of Segment::new_outputs
  std::int64_t arena_bytes = 0, lower_bound = 0, scratch_bytes = 0;
  std::uint64_t epoch = 0;  // the context's when `buffers` were filled in
  std::uint64_t used = 0;   // the context's run when it was last used

  std::byte* address(std::byte* arena, std::size_t i) const {
    return guarded.empty() ? arena + offsets[i] : static_cast<std::byte*>(guarded[i].data());
  }
};

// Throws Error that names the step for dims that it cannot have (negative, or too large).
Binding bind_segment(const ExecutableData& data, int segment, DimEnv env);

}  // namespace deepseek
