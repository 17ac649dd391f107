#include "deepseek/compile.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/registry.h"

namespace deepseek {
namespace {

// Lower precision is an offer to the compiler, which so far takes it nowhere: results are fp32's, and it says so.
void check_precision(const std::string& precision, CompileReport& said) {
  constexpr std::string_view kKnown[] = {"fp32", "bf16", "int8", "auto"};
  if (std::find(std::begin(kKnown), std::end(kKnown), precision) == std::end(kKnown))
    throw Error(Code::InvalidArgument, "compile", "", "precision 'fp32', 'bf16', 'int8' or 'auto'",
                "'" + precision + "'");
  if (precision == "bf16" || precision == "int8")
    said.warnings.push_back("precision '" + precision +
                            "' is not used on this target: 'fp32' is used instead");
}

}  // namespace

Executable compile(const Graph& graph, const CompileOptions& options, CompileReport* report) {
  CompileReport own;
  CompileReport& said = report ? *report : own;
  check_precision(options.precision, said);
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
  const PassOptions passes{options.disable};
  const Graph ready = run_pipeline(graph, passes);
  return lower(ready, *used,
               {.disabled = options.disable,
                .fuse = passes.allows("form_groups"),
                .freeze = options.freeze,
                .threads = options.threads});
}

}  // namespace deepseek
