#include "unit/support.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/lowered.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/interpreter/interpreter_target.h"
#include "targets/registry.h"
#include "toy/toy_target.h"

namespace deepseek::testing {

Tensor random_tensor(Dims dims, unsigned seed) {
  Tensor t(DType::F32, std::move(dims));
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& x : t.as<float>()) x = uniform(rng);
  return t;
}

std::shared_ptr<Target> interpreter(bool gpu) {
  InterpreterTargetOptions options;
  options.gpu_mapped = gpu;
  options.interpreter.check = true;
  return std::make_shared<InterpreterTarget>(options);
}

const std::vector<NamedTarget>& every_target() {
  static const std::vector<NamedTarget> targets = {
      {"cpu", [] { return find_target("cpu", ""); }},
      {"cpu_avx2", [] { return find_target("cpu", "avx2"); }},
      {"interpreter", [] { return interpreter(false); }},
      {"interpreter_gpu", [] { return interpreter(true); }},
  };
  return targets;
}

const std::vector<NamedTarget>& every_target_and_toy() {
  static const std::vector<NamedTarget> targets = [] {
    std::vector<NamedTarget> all = every_target();
    all.push_back({"toy", [] { return std::make_shared<toy::ToyTarget>(); }});
    return all;
  }();
  return targets;
}

std::string target_name(const ::testing::TestParamInfo<NamedTarget>& info) { return info.param.name; }

Executable compile_for(const Graph& g, Target& target, const std::vector<std::string>& disabled,
                       kernels::Precision precision) {
  const PassOptions passes{.disabled = disabled,
                           .quantise = precision == kernels::Precision::Int8,
                           .bf16 = precision == kernels::Precision::Bf16};
  return lower(run_pipeline(g, passes), target,
               {.disabled = disabled, .fuse = passes.allows("form_groups"), .precision = precision});
}

NamedTensors reference(const Graph& g, const NamedTensors& inputs) {
  static const std::vector<std::string> everything = [] {
    std::vector<std::string> names = {"form_groups", "simplify", "byte_products", "channels_last",
                                      "merge_common"};
    for (const kernels::Way& way : kernels::ways())
      if (!way.required) names.emplace_back(way.name);
    return names;
  }();
  return compile_for(g, *interpreter(false), everything).run(inputs);
}

void expect_close(const Tensor& got, const Tensor& want, double tolerance) {
  ASSERT_EQ(got.dtype(), want.dtype());
  ASSERT_EQ(got.dims(), want.dims());
  double largest = 0, worst = 0;
  for (std::int64_t i = 0; i < want.numel(); ++i) {
    ASSERT_FALSE(std::isnan(got.at(i)) && !std::isnan(want.at(i))) << "element " << i;
    largest = std::max(largest, std::abs(want.at(i)));
    worst = std::max(worst, std::abs(want.at(i) - got.at(i)));
  }
  EXPECT_LE(worst, tolerance * largest);
}

void expect_like_reference(const Executable& e, const Graph& g, const NamedTensors& inputs,
                           double tolerance) {
  const NamedTensors want = reference(g, inputs), got = e.run(inputs);
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, tensor] : want) {
    SCOPED_TRACE(name);
    expect_close(got.at(name), tensor, tolerance);
  }
}

}  // namespace deepseek::testing
