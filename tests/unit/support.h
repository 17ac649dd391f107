// What the tests of whole graphs share: the targets that they run on, tensors drawn at random, the reference.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "deepseek/executable.h"
#include "deepseek/graph.h"
#include "kernels/lowered.h"
#include "targets/target.h"

namespace deepseek::testing {

// Uniform in [-1, 1).
Tensor random_tensor(Dims dims, unsigned seed);

// The checking interpreter; with `gpu`, of programs mapped onto blocks and threads.
std::shared_ptr<Target> interpreter(bool gpu);

struct NamedTarget {
  std::string name;
  std::function<std::shared_ptr<Target>()> make;
  friend std::ostream& operator<<(std::ostream& out, const NamedTarget& t) { return out << t.name; }
};
// The CPU with everything that this machine has, the CPU capped at AVX2, both interpreters.
const std::vector<NamedTarget>& every_target();
// The same and the toy accelerator.
const std::vector<NamedTarget>& every_target_and_toy();
// For INSTANTIATE_TEST_SUITE_P.
std::string target_name(const ::testing::TestParamInfo<NamedTarget>& info);

Executable compile_for(const Graph& g, Target& target, const std::vector<std::string>& disabled = {},
                       kernels::Precision precision = kernels::Precision::Fp32);
// The definitions alone in the plain interpreter: no fusion, no rule, no way but the last.
NamedTensors reference(const Graph& g, const NamedTensors& inputs);
// max |got - want| <= tolerance * max |want|, and the same dtype and dims.
void expect_close(const Tensor& got, const Tensor& want, double tolerance = 1e-5);
// Every output of `e` is close to the reference's.
void expect_like_reference(const Executable& e, const Graph& g, const NamedTensors& inputs,
                           double tolerance = 1e-5);

}  // namespace deepseek::testing
