#include "deepseek/compile.h"

#include <algorithm>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/registry.h"

namespace deepseek {

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
  const PassOptions passes{options.disable};
  const Graph ready = run_pipeline(graph, passes);
  return lower(ready, *used,
               {.disabled = options.disable,
                .fuse = passes.allows("form_groups"),
                .freeze = options.freeze,
                .threads = options.threads});
}

}  // namespace deepseek
