// Which way each contraction takes: the cheapest by price or, where prices are close, the one measured fastest;
// memory that a way keeps counts as time (kernels::kSecondsPerKeptByte).
#pragma once

#include <span>
#include <vector>

#include "kernels/lowered.h"
#include "passes/groups.h"
#include "passes/lower.h"
#include "targets/target.h"

namespace deepseek {

struct TriedWay {
  const kernels::Way* way;
  double cost;         // its price, in multiply-adds
  double kept_bytes;   // of what it prepares
  double seconds = 0;  // of a run with its weights out of the caches; 0: not measured
  // What is compared: the time, and what is kept at its price.
  double weighed() const { return seconds + kept_bytes * kernels::kSecondsPerKeptByte; }
};

struct Choice {
  const kernels::Way* way = nullptr;  // null: no way with a price takes the group
  std::vector<TriedWay> ways;         // every way with a price, cheapest first
  std::string apart;  // "apart 0.21 ms, cascade 0.22 ms": of a group that ends a cascade which was not chosen
  // "winograd 4x4 0.21 ms 9.4 MB, gemm 0.56 ms 2.4 MB": what was chosen from, and what each keeps; empty where there was
  // no choice.
  std::string str() const;
};

// One choice per group. Measures as options.tune says; what was measured once is remembered by the target.
std::vector<Choice> choose_ways(std::span<const Group> groups, const kernels::LoweringContext& context,
                                Target& target, const LowerOptions& options);

}  // namespace deepseek
