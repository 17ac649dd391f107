#include "deepseek/compile.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "api/samples.h"
#include "deepseek/give_back.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/registry.h"

namespace deepseek {
namespace {

// Whatever the numbers are.
bool multiplies(const TargetInfo& target, DType operands) {
  return std::any_of(target.tiles.begin(), target.tiles.end(),
                     [operands](const TileShape& t) { return t.operands == operands && !t.wants_small(); });
}

constexpr std::string_view kPrecisions[] = {"fp32", "bf16", "int8", "int8_weights", "int4_weights", "auto"};
// What "auto" chooses from.
constexpr std::string_view kCandidates[] = {"fp32", "bf16", "int8"};

int weight_bits(std::string_view precision) {
  return precision == "int8_weights" ? 8 : precision == "int4_weights" ? 4 : 0;
}

bool has_precision(const TargetInfo& target, std::string_view name) {
  return name == "fp32" || (name == "bf16" && multiplies(target, DType::BF16)) ||
         (name == "int8" && multiplies(target, DType::U8)) ||
         (weight_bits(name) != 0 && multiplies(target, DType::F32) && !target.gpu_mapped);
}

DType storage_of(const std::string& name) {
  if (name == "fp32") return DType::F32;
  if (name == "bf16") return DType::BF16;
  if (name == "fp16") return DType::F16;
  throw Error(Code::InvalidArgument, "compile", "", "storage 'fp32', 'bf16' or 'fp16'", "'" + name + "'");
}

void check_precision(const CompileOptions& options) {
  if (std::find(std::begin(kPrecisions), std::end(kPrecisions), options.precision) == std::end(kPrecisions))
    throw Error(Code::InvalidArgument, "compile", "",
                "precision 'fp32', 'bf16', 'int8', 'int8_weights', 'int4_weights' or 'auto'",
                "'" + options.precision + "'");
  if (options.precision != "auto") return;
  if (!options.updates.empty())
    throw Error(Code::InvalidArgument, "compile", "", "no updates of inputs with precision 'auto'",
                std::to_string(options.updates.size()));
  if (options.samples.empty())
    throw Error(Code::InvalidArgument, "compile", "",
                "samples, inputs to compare results and times on, for precision 'auto'", "none");
  if (!(options.tolerance >= 0))
    throw Error(Code::InvalidArgument, "compile", "", "a tolerance of 0 or more",
                std::to_string(options.tolerance));
}

Tune tune_of(const std::string& name) {
  if (name == "off") return Tune::Off;
  if (name == "fast") return Tune::Fast;
  if (name == "full") return Tune::Full;
  throw Error(Code::InvalidArgument, "compile", "", "tune 'off', 'fast' or 'full'", "'" + name + "'");
}

Executable compile_in(const std::string& precision, const Graph& graph, const CompileOptions& options,
                      Target& target) {
  std::vector<std::string> disabled = options.disable;
  const bool bytes = multiplies(target.info(), DType::U8), words = multiplies(target.info(), DType::I16);
  if (!bytes && !words) disabled.emplace_back("byte_products");
  PassOptions passes{.disabled = disabled,
                     .quantise = precision == "int8",
                     .bf16 = precision == "bf16",
                     .stored = storage_of(options.storage),
                     .bytes_in_words = !bytes,
                     .weight_bits = weight_bits(precision)};
  using Updates = std::vector<std::pair<int, int>>;
  const auto lowered = [&](const Graph& ready, kernels::Precision operands, Tune tune,
                           const Updates& updates) {
    return lower(ready, target,
                 {.disabled = disabled,
                  .fuse = passes.allows("form_groups"),
                  .freeze = options.freeze,
                  .threads = options.threads,
                  .precision = operands,
                  .rtol = options.rtol,
                  .tune = tune,
                  .updates = updates});
  };
  const bool calibrates = passes.quantise && passes.allows("byte_products") && !options.samples.empty();
  std::vector<Range> ranges;
  if (calibrates) {
    const auto in_fp32 = [&](const Graph& g) {
      return lowered(run_pipeline(g, {.disabled = disabled}), kernels::Precision::Fp32, Tune::Off, {});
    };
    ranges = measured_ranges(graph, passes, in_fp32, options.samples);
    passes.ranges = ranges;
  }
  const auto operands = precision == "int8"   ? kernels::Precision::Int8
                        : precision == "bf16" ? kernels::Precision::Bf16
                                              : kernels::Precision::Fp32;
  Executable result = lowered(run_pipeline(graph, passes), operands, tune_of(options.tune), options.updates);
  if (passes.quantise)
    result.note({calibrates
                     ? "int8: the ranges of " + std::to_string(ranges.size()) + " operands are those of " +
                           std::to_string(options.samples.size()) + " samples"
                     : "int8: the ranges of operands are found as they come"});
  return result;
}

Executable compile_fastest(const Graph& graph, const CompileOptions& options, Target& target) {
  std::vector<Candidate> candidates;
  for (const std::string_view name : kCandidates)
    if (has_precision(target.info(), name)) {
      const std::string precision(name);
      candidates.push_back({precision, compile_in(precision, graph, options, target)});
    }
  return fastest_within(candidates, options.samples, options.tolerance);
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
  tune_of(options.tune);
  storage_of(options.storage);
  check_precision(options);
  if (options.precision == "auto") return compile_fastest(graph, options, *used);
  std::string precision = options.precision;
  if (!has_precision(used->info(), precision)) {
    said.warnings.push_back("precision '" + precision + "' is not used on " + used->info().name + " (" +
                            used->info().isa + "): 'fp32' is used instead");
    precision = "fp32";
  }
  Executable result = compile_in(precision, graph, options, *used);
  give_back_memory();
  return result;
}

}  // namespace deepseek
