// Which nodes become one kernel. Views (transpose, slice, broadcast_to, ...) belong to no group: whoever
// reads them reads through them. Reshapes are aliases of memory, or views where they split the dims of a view.
// Everything else is a member of exactly one group.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "deepseek/graph.h"

namespace deepseek {

enum class GroupKind : std::uint8_t {
  Map,          // every output element by itself; members share the domain
  Rows,         // reductions over the trailing axes of the domain, with what is elementwise around them
  Contraction,  // matmul or conv, with prologue and epilogue
  Attention,  // a matmul, reductions along its rows and a matmul with those: what join_attention makes of three groups
  Cascade,  // a depthwise convolution with a 1x1 convolution before it, after it or both: what find_cascades makes
  Concat,
  Program,  // an op that writes its own loops
  Control,  // if, while
};

struct Group {
  GroupKind kind = GroupKind::Map;
  std::vector<const Node*> members;  // topological
  const Node* anchor = nullptr;      // the contraction, concatenation, program, control node
  Shape domain;                      // of Map and Rows; the contraction's result
  std::vector<int> reduced;          // Rows: the trailing axes reduced
  std::vector<Value> inputs;         // read from memory
  // Written to memory; a transpose of a member among them is a permuted store, a concatenation of members several.
  std::vector<Value> outputs;
  std::vector<Group> parts;  // Attention: the scores' group, the rows' and the result's. Cascade: in order
  std::string name() const;  // "conv_add_relu"
};

// Groups in an order in which they can run. `fuse` off: a group per node. What derives from constants and parameters
// alone stays apart from what does not: it is computed once.
std::vector<Group> form_groups(const Graph& graph, bool fuse = true);

// Joins products with what reduces the rows of another product alone, and that product, where nobody else reads what lies
// between them.
std::vector<Group> join_attention(const Graph& graph, std::vector<Group> groups);

// Nodes whose results derive from constants alone, or from constants and parameters.
std::set<const Node*> fixed_nodes(const Graph& graph, bool parameters);

// The groups at these places as one: what the last one gives, from what none of them gives.
Group join_parts(std::span<const Group> groups, std::span<const std::size_t> places);
// Whether the group's members read v itself: no view of it, which would be other elements.
bool is_read_as_it_is(const Group& g, Value v);

bool is_view(const Node& n);   // read through
bool is_alias(const Node& n);  // another reshape: the same memory
bool is_contraction(const Node& n);
// A contraction over the images of a batch: what the gradient of a 2-d convolution's kernel is. x's channels are read as
// neighbours; few of either side's channels are not meant.
bool is_kernel_gradient(const Node& n);
bool is_reduction(const Node& n);  // along axes: sum, mean, max, ...
// Where the value's memory is: through reshapes.
Value memory_of(Value v);

}  // namespace deepseek
