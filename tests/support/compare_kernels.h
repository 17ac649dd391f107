// What a target makes of a program beside what the interpreter gives.
#pragma once

#include <random>

#include "support/run_kernel.h"

namespace deepseek::testing {

using Random = std::mt19937_64;

// Bytes of n elements: ordinary values, and a share of those that make trouble.
std::vector<std::byte> draw_elements(Random& r, DType t, std::int64_t n);

// Every parameter that p writes has the same bits in both runs; NaN is NaN, -0 is 0, and floats may differ by
// `tolerance` relative to the larger of 1 and the value wanted.
void expect_same(const loops::Program& p, const KernelRun& got, const KernelRun& want,
                 const std::string& what, double tolerance = 0);

}  // namespace deepseek::testing
