#include "deepseek/compile.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/registry.h"

namespace deepseek {
namespace {

bool multiplies(const TargetInfo& target, DType operands) {
  return std::any_of(target.tiles.begin(), target.tiles.end(),
                     [operands](const TileShape& t) { return t.operands == operands; });
}

// What contractions may run in; less than fp32 is an offer that a target without such a unit does not take.
kernels::Precision precision_on(const TargetInfo& target, const std::string& wanted, CompileReport& said) {
  constexpr std::string_view kKnown[] = {"fp32", "bf16", "int8", "auto"};
  if (std::find(std::begin(kKnown), std::end(kKnown), wanted) == std::end(kKnown))
    throw Error(Code::InvalidArgument, "compile", "", "precision 'fp32', 'bf16', 'int8' or 'auto'",
                "'" + wanted + "'");
  if (wanted == "fp32" || wanted == "auto") return kernels::Precision::Fp32;
  if (wanted == "bf16" && multiplies(target, DType::BF16)) return kernels::Precision::Bf16;
  if (wanted == "int8" && multiplies(target, DType::U8)) return kernels::Precision::Int8;
  said.warnings.push_back("precision '" + wanted + "' is not used on " + target.name + " (" + target.isa +
                          "): 'fp32' is used instead");
  return kernels::Precision::Fp32;
}

Tune tune_of(const std::string& name) {
  if (name == "off") return Tune::Off;
  if (name == "fast") return Tune::Fast;
  if (name == "full") return Tune::Full;
  throw Error(Code::InvalidArgument, "compile", "", "tune 'off', 'fast' or 'full'", "'" + name + "'");
}

}  // namespace

Executable compile(const Graph& graph, const CompileOptions& options, CompileReport* report) {
  CompileReport own;
  CompileReport& said = report ? *report : own;
  const std::shared_ptr<Target> target = find_target(options.target, options.isa);
  std::shared_ptr<Target> used = target;
  if (!target) {
    if (options.strict)
      throw Error(Code::Unsupported, "compile", "", "target '" + options.target + "' on this machine",
                  "none");
    used = find_target("cpu", options.isa);
    said.warnings.push_back("target '" + options.target + "' is not on this machine: 'cpu' is used instead");
  }
  said.target = used->info().name;
  const Tune tune = tune_of(options.tune);
  const kernels::Precision precision = precision_on(used->info(), options.precision, said);
  std::vector<std::string> disabled = options.disable;
  if (!multiplies(used->info(), DType::U8)) disabled.emplace_back("byte_products");
  const PassOptions passes{disabled, precision == kernels::Precision::Int8};
  const Graph ready = run_pipeline(graph, passes);
  return lower(ready, *used,
               {.disabled = disabled,
                .fuse = passes.allows("form_groups"),
                .freeze = options.freeze,
                .threads = options.threads,
                .precision = precision,
                .rtol = options.rtol,
                .tune = tune});
}

}  // namespace deepseek
