// From a graph that went through the pipeline to an executable on a target.
#pragma once

#include <string>
#include <vector>

#include "deepseek/executable.h"
#include "deepseek/graph.h"
#include "kernels/lowered.h"
#include "targets/target.h"

namespace deepseek {

struct LowerOptions {
  std::vector<std::string> disabled;  // ways and passes to leave out
  bool fuse = true;
  bool freeze = true;  // keep what derives from parameters
  int threads = 0;
  kernels::Precision precision = kernels::Precision::Fp32;
};

// Throws Error that names the op and its source.
Executable lower(const Graph& graph, Target& target, const LowerOptions& options);

}  // namespace deepseek
