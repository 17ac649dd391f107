// What compiling learns from inputs that its caller gives as samples.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "deepseek/executable.h"
#include "deepseek/graph.h"
#include "passes/pipeline.h"

namespace deepseek {

using Samples = std::span<const NamedTensors>;
using Compile = std::function<Executable(const Graph&)>;  // in fp32

// What the operands lie in that PassOptions::quantise asks about, over all samples.
std::vector<Range> measured_ranges(const Graph& graph, const PassOptions& passes, const Compile& in_fp32,
                                   Samples samples);

// A precision to choose from; the first of several is the reference.
struct Candidate {
  std::string precision;
  Executable executable;
};
// The fastest whose results stay within `tolerance` of the reference's, with a line about all of them in explain().
Executable fastest_within(std::span<const Candidate> candidates, Samples samples, double tolerance);

}  // namespace deepseek
