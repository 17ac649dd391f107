// Concatenations that take no time: where pieces follow each other in memory, as along the first axis, whoever makes a
// piece writes it where it belongs.
#pragma once

#include <set>
#include <span>
#include <vector>

#include "passes/groups.h"

namespace deepseek {

struct PlacedPiece {
  Value value;          // what a group writes
  Value whole;          // the concatenation
  std::int64_t offset;  // in elements of `whole`
};

struct InPlace {
  std::set<std::size_t> groups;     // concatenations that need no kernel
  std::vector<PlacedPiece> pieces;  // those of a concatenation after the one that it is itself a piece of
};

// All pieces of such a concatenation are results of other groups in each run (`fixed`: nodes that are known before), each
// a piece of one alone, and begin at whole cache lines.
InPlace find_in_place(std::span<const Group> groups, const std::set<const Node*>& fixed);

}  // namespace deepseek
