// Convolution's windows read where they lie: no patch is gathered, rows of a tile are neighbouring windows.
#pragma once

#include <optional>
#include <vector>

#include "kernels/assembly.h"
#include "kernels/contraction.h"

namespace deepseek::kernels {

// The left operand, when element (m, k) lies at base(m) + offset(k) of a buffer, both linear: m's last loop is a run of
// windows `row_step` apart, and `depth` says how k's loops step. A tile's rows come from one run.
struct Windows {
  struct Step {
    std::int64_t extent, stride;
  };
  std::int64_t run, row_step;
  std::vector<Step> depth;  // outer to inner
  bool bordered;  // read from a copy with its border of zeros written out, else from the input itself
  Dim copied;     // elements of that copy
};

std::optional<Windows> windows_of(const Group& group, const Contraction& c, DType operands);

// Adds the phase that writes c.bordered into a workspace, row-major.
loops::Buffer bordered_copy(Assembly& a, const Contraction& c, DType operands);

// Where they are read: element (m, k) of the operand is buffer[base + m's last * row_step + offset(k)].
struct WindowBuffer {
  loops::Buffer buffer;
  std::function<Expr(std::span<const Expr> batch, std::span<const Expr> m)> base;
};
// Adds the phase that writes the copy, where one is needed.
WindowBuffer read_windows(Assembly& a, const Contraction& c, const Windows& w, DType operands);

}  // namespace deepseek::kernels
