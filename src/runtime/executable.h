// What a compiled graph is: values and steps as the builder made them, and what link() derives from them
// once.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "deepseek/executable.h"
#include "runtime/bind_rules.h"
#include "runtime/step.h"

namespace deepseek {

// Steps between two points where symbols become known. Everything of a segment is planned when it begins.
struct Segment {
  int begin = 0, end = 0;      // steps
  std::vector<ValueId> temps;  // those that begin to live here
  std::vector<int>
      new_outputs;  // outputs that the caller's memory holds and whose dims are known from here on
};

struct TempLife {
  int segment = 0, position = 0;  // Segment::temps[position]
  int first = 0, last = 0;        // steps
};

// Memory of the caller's that a step is the first or the last to name.
struct StepPorts {
  std::vector<int> first_of_outputs, last_of_inputs;
};

// What derives from parameters, for one state of them. Immutable.
struct Prepared {
  std::vector<std::pair<const void*, std::uint64_t>> key;  // address and version of each Parameter input
  std::vector<Tensor> parameters;  // held, so that no address comes back as another array
  std::vector<Tensor> values;      // by ValueInfo::index
};

struct ExecutableData {
  // As built; saved.
  std::vector<Port> inputs, outputs;
  std::vector<ValueInfo> values;
  std::vector<ValueId> input_values, output_values;
  std::vector<Tensor> constants;
  std::vector<Step> prepare,
      steps;  // `prepare`: what needs parameters; what needs constants alone has been done
  int prepared_count = 0, held_count = 0;
  std::vector<EqualDims> equalities;
  int threads = 0;
  std::string target;
  std::vector<std::string> notes;

  // Derived by link().
  std::vector<BindRule> input_rules;
  std::map<int, std::vector<BindRule>> step_rules;       // of steps with Held outputs
  std::map<int, std::vector<std::string>> step_symbols;  // that a step defines
  std::vector<Segment> segments;
  std::vector<TempLife> temps;   // by value id; meaningful for Temps
  std::vector<StepPorts> ports;  // by step

  // Shared by the contexts.
  struct Shared {
    std::mutex mutex;
    std::shared_ptr<const Prepared> prepared;  // the last
    std::vector<std::unique_ptr<Context>> idle;
  };
  std::unique_ptr<Shared> shared = std::make_unique<Shared>();
};

// Derives segments, lifetimes and rules. Throws Error{InvalidArgument} for a symbol that nothing defines.
void link(ExecutableData& data);

// The value whose memory `v` shares in the end (itself unless an alias).
ValueId root(const std::vector<ValueInfo>& values, ValueId v);
// Every value that a step names, kWorkspace left out.
std::vector<ValueId> values_of(const Step& step);
// Outputs that a step makes itself (branches, loops, host steps); empty for others.
std::span<const ValueId> held_outputs(const Step& step);

}  // namespace deepseek
