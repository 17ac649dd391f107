// What compiled code depends on besides the graph and the options.
#pragma once

#include <string>

namespace deepseek {

// A key: the same in every process of this build on machines with this one's instruction set (as capped by
// DEEPSEEK_CPU_ISA). For whoever keeps executables.
std::string build_and_machine();

}  // namespace deepseek
