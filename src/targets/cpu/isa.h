// The CPU's instruction sets that code is emitted for, chosen by features (names of new chips are unreliable).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "targets/llvm/machine.h"
#include "targets/target.h"

namespace deepseek {

struct CpuIsa {
  TargetInfo info;
  codegen::Machine machine;
  std::string features;  // that its code needs, as in KernelImage
};

// "amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2_vnni", "avx2" or "neon". Throws Error{InvalidArgument} for another name.
CpuIsa cpu_isa(std::string_view name);
// The best that this machine has, capped by DEEPSEEK_CPU_ISA. Throws Error{Unsupported} when it has none, or when
// the variable asks for one that the machine lacks.
CpuIsa host_cpu_isa();
// What this machine has, best first.
std::vector<std::string> host_isas();
// Whether this machine can run code for `name`.
bool host_has(std::string_view name);

}  // namespace deepseek
