// Inverted residuals as one kernel (kernels/cascade.cc), where that costs less than their parts.
#pragma once

#include <span>
#include <vector>

#include "deepseek/graph.h"
#include "passes/groups.h"
#include "passes/tune.h"

namespace deepseek {

// Groups of kind Cascade that would stand for some of `groups`; none belongs to two.
std::vector<Group> find_cascades(const Graph& graph, std::span<const Group> groups);

// Cascades stand behind the other groups, from `first` on, each with its choice: those chosen take the place of their
// parts, and the others leave a note there.
void settle_cascades(std::vector<Group>& groups, std::vector<Choice>& choices, std::size_t first);

}  // namespace deepseek
