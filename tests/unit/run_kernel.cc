#include "support/run_kernel.h"

#include <algorithm>
#include <cstring>

namespace deepseek::testing {

KernelRun run_kernel(const Kernel& kernel, const loops::Program& p,
                     const std::vector<std::vector<std::byte>>& inputs, std::span<const std::int64_t> dims,
                     Guard side, std::int64_t parts) {
  const KernelShape shape = kernel.shape(dims);
  KernelRun run;
  std::vector<void*> addresses;
  std::size_t workspace = 0;
  for (std::size_t i = 0; i < p.params.size(); ++i) {
    const bool is_workspace = p.params[i].access == loops::Access::Workspace;
    const std::size_t size =
        is_workspace ? static_cast<std::size_t>(shape.workspace_bytes[workspace++]) : inputs[i].size();
    run.buffers.emplace_back(size, side);
    if (!is_workspace && size != 0) std::memcpy(run.buffers.back().data(), inputs[i].data(), size);
    addresses.push_back(run.buffers.back().data());
  }
  constexpr std::int64_t kScratchAlign = 64;
  for (std::size_t phase = 0; phase < shape.grid.size(); ++phase) {
    const std::int64_t padded =
        (shape.scratch_bytes[phase] + kScratchAlign - 1) / kScratchAlign * kScratchAlign;
    const GuardedMemory scratch(static_cast<std::size_t>(padded));
    for (std::int64_t part = 0; part < parts; ++part)
      kernel.run(static_cast<int>(phase), addresses.data(), dims.data(), shape.grid[phase] * part / parts,
                 shape.grid[phase] * (part + 1) / parts, scratch.as<std::byte>(), &run.status);
  }
  return run;
}

}  // namespace deepseek::testing
