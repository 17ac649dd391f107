// Which instruction sets tests of vector code run on: those of one width differ in their tile multiplies alone.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "targets/cpu/isa.h"

namespace deepseek::testing {

// The best of each width that this machine has.
inline std::vector<std::string> vector_isas() {
  std::vector<std::string> found;
  std::set<int> widths;
  for (const std::string& name : host_isas())
    if (widths.insert(cpu_isa(name).machine.lanes).second) found.push_back(name);
  return found;
}

}  // namespace deepseek::testing
