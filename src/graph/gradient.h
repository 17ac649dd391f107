// Reverse-mode differentiation: adds the nodes that compute gradients to a graph.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "deepseek/graph.h"
#include "deepseek/ops.h"

namespace deepseek {

std::vector<Value> gradients(Graph& g, Value y, Value dy, std::span<const Value> xs);

// Gradients of a node's inputs for gradients of its outputs (empty: zero); empty where not needed or zero. An op
// without a gradient of its own that is composed is differentiated through its parts.
std::vector<Value> node_gradient(Graph& g, const Node& n, std::span<const Value> dys,
                                 const std::vector<bool>& needed);
// The same for an op that is not in the graph yet.
std::vector<Value> op_gradient(Graph& g, std::string_view op, std::vector<Value> inputs, Attrs attrs,
                               std::span<const Value> dys, const std::vector<bool>& needed);

}  // namespace deepseek
