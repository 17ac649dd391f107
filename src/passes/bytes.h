// What the passes over quantised tensors share.
#pragma once

#include <optional>
#include <vector>

#include "passes/rewrite.h"

namespace deepseek {

constexpr double kHalfOfByte = 128;  // of its values

// The number that every element of v is, when that is known; 0 for none.
std::optional<double> uniform(Value v);
// Whether v is known before a run.
bool is_weight(Value v);
inline bool is_one_number(Value v) { return !v || numel(v.shape()) == Dim(1); }

// Whether v is elements of another value, elsewhere.
bool moves_elements(Value v);

// Whether v is elements of a table of 256 bytes.
bool is_byte_lookup(Value v);
// The rule that makes such.
std::vector<Value> byte_table(Graph& graph, const Node& n);

}  // namespace deepseek
