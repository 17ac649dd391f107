// A compiled loop program as the runtime sees it, whichever target made it. No compiler type appears here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace deepseek {

// What a kernel needs at given dims.
struct KernelShape {
  std::vector<std::int64_t> grid;  // of each phase: the extent of its Parallel loop, 1 when it has none
  std::vector<std::int64_t> scratch_bytes;    // of each phase: per thread
  std::vector<std::int64_t> workspace_bytes;  // of each Workspace parameter, in order
};

// A kernel as it is saved. `format` says who loads it: "elf": a relocatable object that defines the functions
// below and imports nothing; others are registered with register_kernel_loader (src/runtime/kernel_loader.h).
struct KernelImage {
  std::string format;
  std::string name;  // of the program
  int phases = 0;
  int workspaces = 0;
  std::string triple;                                  // "x86_64-unknown-linux-gnu"
  std::string features;                                // that the code needs: "avx2,fma"
  std::shared_ptr<const std::vector<std::byte>> code;  // kernels of one object share it
};

// Immutable; may run on many threads at once.
class Kernel {
 public:
  virtual ~Kernel() = default;
  // `dims`: values of Program::symbols, in order.
  virtual KernelShape shape(std::span<const std::int64_t> dims) const = 0;
  // Runs iterations [begin, end) of a phase. `buffers`: one address per parameter. `scratch`:
  // scratch_bytes[phase], 64-byte aligned, this thread's. `status`: the first failed Assert's code is left
  // there, 0 means none.
  virtual void run(int phase, void* const* buffers, const std::int64_t* dims, std::int64_t begin,
                   std::int64_t end, std::byte* scratch, std::int32_t* status) const = 0;
  // False: code for another machine, to be saved. shape() and run() throw Error{Unsupported}.
  virtual bool runs_here() const { return true; }
  // What to write into a saved executable; nothing when this kernel cannot be saved.
  virtual std::optional<KernelImage> image() const { return std::nullopt; }
};

// The C ABI of emitted code. For a program NAME an object defines NAME_extents and NAME_phase0, NAME_phase1,
// ...; it imports nothing.
using PhaseFn = void (*)(void* const* buffers, const std::int64_t* dims, std::int64_t begin, std::int64_t end,
                         std::byte* scratch, std::int32_t* status);
// Writes grid of every phase, then scratch bytes of every phase, then bytes of every workspace.
using ExtentsFn = void (*)(const std::int64_t* dims, std::int64_t* out);

}  // namespace deepseek
