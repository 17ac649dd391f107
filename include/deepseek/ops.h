// The op table as data: what Python's methods, the op reference and tools are made from.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepseek/graph.h"

namespace deepseek {

enum class AttrKind : std::uint8_t { Bool, Int, Float, String, Ints, Floats, DType, Shape, Tensor, Graph };

struct OpInputInfo {
  std::string name;
  bool optional = false;
  bool variadic = false;  // the last one only: any number of values
};

struct OpAttrInfo {
  std::string name;
  AttrKind kind = AttrKind::Int;
  std::optional<Attr> default_value;  // none: required
  std::string doc;
};

struct OpInfo {
  std::string name, doc;
  std::vector<OpInputInfo> inputs;
  std::vector<OpAttrInfo> attrs;
  bool differentiable = false;
};

// Every op, by name.
const std::vector<OpInfo>& op_infos();

// Adds to `graph` the gradients of the inputs of op(inputs, attrs) for gradients `dys` of its outputs (an empty Value:
// zero). Inputs that are not `needed`, and those that no gradient reaches, give an empty Value. Throws
// Error{Unsupported} for an op that has no gradient.
std::vector<Value> gradient(Graph& graph, std::string_view op, std::vector<Value> inputs, Attrs attrs,
                            std::span<const Value> dys, const std::vector<bool>& needed);

// Adds to `graph` the gradients of the sum of ys[i] * dys[i] over their elements, for each of xs; an empty Value
// where the ys do not depend on it. An empty dy stands for ones. Throws Error{Unsupported} at an op on the way that
// has no gradient.
std::vector<Value> gradients(Graph& graph, std::span<const Value> ys, std::span<const Value> dys,
                             std::span<const Value> xs);

}  // namespace deepseek
