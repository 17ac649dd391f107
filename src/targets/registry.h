// The targets that this machine has.
#pragma once

#include <memory>
#include <string_view>

#include "targets/target.h"

namespace deepseek {

// "auto" and "cpu": the CPU, capped at `isa` when that is not empty; "interpreter": the reference. Null when this
// machine or this build has no such target; throws Error{InvalidArgument} for a name that no target has.
std::shared_ptr<Target> find_target(std::string_view name, std::string_view isa);

}  // namespace deepseek
