// Runs a loop program on host arrays through any kernel, one phase after another.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/kernel.h"

namespace deepseek::testing {

// `buffers`: one address per parameter, workspaces left null: they are allocated here. Gives the status word.
inline std::int32_t run_kernel(const Kernel& kernel, std::vector<void*> buffers,
                               std::vector<std::int64_t> dims = {}, std::vector<int> workspace_params = {}) {
  const KernelShape shape = kernel.shape(dims);
  std::vector<std::vector<std::byte>> workspaces;
  for (std::size_t i = 0; i < workspace_params.size(); ++i) {
    workspaces.emplace_back(static_cast<std::size_t>(shape.workspace_bytes.at(i)));
    buffers[static_cast<std::size_t>(workspace_params[i])] = workspaces.back().data();
  }
  std::int32_t status = 0;
  for (std::size_t phase = 0; phase < shape.grid.size(); ++phase) {
    const auto bytes = static_cast<std::size_t>(shape.scratch_bytes[phase]);
    std::vector<std::byte> memory(bytes + 64);
    void* scratch = memory.data();
    std::size_t room = memory.size();
    std::align(64, bytes, scratch, room);
    kernel.run(static_cast<int>(phase), buffers.data(), dims.data(), 0, shape.grid[phase],
               static_cast<std::byte*>(scratch), &status);
  }
  return status;
}

}  // namespace deepseek::testing
