// From a graph that went through the pipeline to an executable on a target.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepseek/executable.h"
#include "deepseek/graph.h"
#include "kernels/lowered.h"
#include "targets/target.h"

namespace deepseek {

// How much time goes into measuring ways: none, about a second for a model, as much as it takes.
enum class Tune : std::uint8_t { Off, Fast, Full };

struct LowerOptions {
  std::vector<std::string> disabled;  // ways and passes to leave out
  bool fuse = true;
  bool freeze = true;  // keep what derives from parameters
  int threads = 0;
  kernels::Precision precision = kernels::Precision::Fp32;
  double rtol = kernels::kDefaultRtol;
  Tune tune = Tune::Off;
  std::string_view way;  // taken wherever it can be
  // Outputs that are new values of inputs, and those: as in CompileOptions.
  std::vector<std::pair<int, int>> updates;
};

// Throws Error that names the op and its source.
Executable lower(const Graph& graph, Target& target, const LowerOptions& options);

}  // namespace deepseek
