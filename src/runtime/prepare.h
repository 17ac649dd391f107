// Running prepare steps: what derives from constants and parameters, computed into tensors of its own.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "deepseek/executor.h"
#include "runtime/executable.h"

namespace deepseek {

// The values that are known, by id: constants and parameters to begin with, then what the steps wrote. Values
// of prepare steps have static dims.
using KnownValues = std::map<ValueId, Tensor>;

// Runs the steps in order and adds what they wrote to `known`.
void run_prepare_steps(const std::vector<ValueInfo>& values, std::span<const Step> steps, KnownValues& known,
                       Executor& executor);

// The executable's prepared values for these parameters (one per input, Arguments undefined), from the shared
// cache when every parameter has the address and version that it was made for. `versions`: one per input; an
// input in `fresh` is always computed anew.
std::shared_ptr<const Prepared> prepared_for(const ExecutableData& data, std::span<const Tensor> inputs,
                                             std::span<const std::uint64_t> versions, bool fresh,
                                             Executor& executor);

}  // namespace deepseek
