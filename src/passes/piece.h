// A group as a graph of its own, to be lowered by itself or compared with others.
#pragma once

#include <set>
#include <vector>

#include "passes/groups.h"

namespace deepseek {

struct Piece {
  Graph graph;
  std::vector<Value>
      values;  // what its inputs stand for in the group's graph, in order, and then its outputs
};

// What the group reads from memory are inputs, parameters where it is known before a run (constants, and `fixed` nodes);
// scalars stay constants.
Piece piece_of(const Group& group, const std::set<const Node*>& fixed);

}  // namespace deepseek
