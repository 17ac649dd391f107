// A graph for sizes that are known.
#pragma once

#include "deepseek/graph.h"

namespace deepseek {

// A copy of the graph in which these symbols are their values; the others stay. Data of constants is shared. The values
// must be sizes that the graph can have: nothing is inferred anew. Throws Error{Unsupported} for control flow, whose
// sub-graphs have symbols of their own, unless `known` is empty.
Graph bind_dims(const Graph& graph, const DimEnv& known);

}  // namespace deepseek
