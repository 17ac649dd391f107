// A target turns loop programs into kernels and says what it has, so that schedules fit it. Nothing outside a
// target's folder knows an ISA.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "deepseek/dtype.h"
#include "loops/ir.h"
#include "runtime/kernel.h"

namespace deepseek {

// A tile multiply that the target has: c[m,n] += a[m,k] * b[k,n].
struct TileShape {
  DType operands, accumulator;
  std::int64_t m, n, k;
  bool any_rows = false;  // any number of rows up to m, and any n that is a multiple of the lanes up to n
  loops::Space operands_in = loops::Space::Global;  // where TileLoad may read from
  std::int64_t group = 1;  // rows of b that lie interleaved, as in TileLoad; divides k
  DType right = operands;  // of b
  std::int64_t steps = 1;  // groups that vector registers take together, k in all

  // Summed in vector registers, rather than by a unit that takes whole matrices.
  bool in_vectors() const { return k == group * steps; }
  // Fastest where neighbours among a's numbers are small: it looks at a step's before it multiplies them.
  bool wants_small() const { return steps > 1; }
};

struct TargetInfo {
  std::string name;       // "cpu", "gpu", "npu"
  std::string isa;        // "avx512", "avx2", "neon", "interpreter", ...
  bool runs_here = true;  // false: kernels are for another machine, to be saved
  std::int64_t vector_bytes = 32;
  std::int64_t l1_bytes = 32 << 10, l2_bytes = 1 << 20;
  std::int64_t kept_bytes = 8 << 20;  // what caches hold between a kernel and the one that reads its results
  bool gpu_mapped = false;            // wants Block and Thread loops instead of Parallel and Vector
  std::vector<TileShape> tiles;       // best first
};

class Target {
 public:
  virtual ~Target() = default;
  virtual const TargetInfo& info() const = 0;
  // Compiles (or finds in its cache) one kernel per program. Programs are verified. Thread-safe.
  virtual std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> programs) = 0;
  // What was found out about this machine, kept between processes where the target can: a text under a key.
  virtual std::optional<std::string> recall(const std::string& /*key*/) const { return std::nullopt; }
  virtual void remember(const std::string& /*key*/, const std::string& /*text*/) {}
};

}  // namespace deepseek
