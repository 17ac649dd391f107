// Loops whose state is a tensor that each iteration writes a part of: the results of a recurrent layer, a list.
#pragma once

#include <vector>

#include "deepseek/graph.h"

namespace deepseek {

// The body of a loop as LoopStep (runtime/step.h) wants it.
struct BodyOfParts {
  Graph graph;
  std::vector<int> parts;
};

// Of states that the body only puts through one dynamic_update_slice it gives what that writes, and where.
BodyOfParts give_parts(const Graph& body, int carried);

}  // namespace deepseek
