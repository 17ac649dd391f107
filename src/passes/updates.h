// Inputs that a run writes: an output that is the new value of an input is stored where that input lies.
#pragma once

#include <set>
#include <span>
#include <utility>
#include <vector>

#include "deepseek/graph.h"
#include "kernels/lowered.h"
#include "passes/groups.h"

namespace deepseek {

struct Update {
  int output;   // which of the graph's
  Value value;  // its
  Value input;  // an argument, of the same type
};

// Output and input numbers as Updates. Throws Error{InvalidArgument} for pairs that no run could keep to.
std::vector<Update> updates_of(const Graph& graph, std::span<const std::pair<int, int>> pairs);

// Updates whose values groups store over the elements that they replace, as nobody reads an old element after that.
// What has been `lowered` of those groups then has one argument for both: the value's memory. `fixed` values, and those
// with a place already, are left alone.
std::vector<Update> store_in_place(std::span<const Update> updates, std::span<const Group> groups,
                                   std::vector<kernels::Lowered>& lowered, const std::set<const Node*>& fixed,
                                   const std::set<std::pair<const Node*, int>>& placed);

}  // namespace deepseek
