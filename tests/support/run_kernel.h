// Runs a kernel over guarded memory, as the runtime would.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "loops/ir.h"
#include "runtime/kernel.h"
#include "support/guarded_memory.h"

namespace deepseek::testing {

struct KernelRun {
  std::vector<GuardedMemory> buffers;  // one for each parameter, workspaces included
  std::int32_t status = 0;

  template <class T>
  std::vector<T> values(std::size_t param) const {
    const GuardedMemory& m = buffers[param];
    const auto count = static_cast<std::ptrdiff_t>(m.size() / sizeof(T));
    return {m.as<T>(), m.as<T>() + count};
  }
};

// `inputs`: the bytes of each parameter before the run (workspaces: ignored). `parts`: into how many ranges a
// divided phase is cut.
KernelRun run_kernel(const Kernel& kernel, const loops::Program& p,
                     const std::vector<std::vector<std::byte>>& inputs,
                     std::span<const std::int64_t> dims = {}, Guard side = Guard::End,
                     std::int64_t parts = 1);

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& v) {
  const auto s = std::as_bytes(std::span(v));
  return {s.begin(), s.end()};
}

}  // namespace deepseek::testing
