#include "passes/in_place.h"

#include <algorithm>
#include <optional>

#include "ops/op.h"
#include "runtime/plan.h"

namespace deepseek {

namespace {

using Key = std::pair<const Node*, int>;
Key key(const Value& v) { return {v.node, v.index}; }

// Pieces follow each other in memory where no axis before theirs has several elements.
bool is_outermost(const Node& n) {
  const Shape& shape = n.outputs[0].shape;
  const int axis = normalize_axis(n, n.attr<std::int64_t>("axis"), static_cast<int>(shape.size()));
  return std::all_of(shape.begin(), shape.begin() + axis, [](const Dim& d) { return d == Dim(1); });
}

// The concatenation's pieces, where `made` has the memory of all of them, each once.
std::optional<std::vector<PlacedPiece>> pieces_of(const Node& n, const std::set<Key>& made) {
  const Value whole = n.out();
  const std::int64_t width = bits(whole.dtype());
  if (width < 8 || !is_outermost(n)) return std::nullopt;
  std::vector<PlacedPiece> pieces;
  std::set<Key> taken;
  std::int64_t offset = 0;
  for (const Value& v : n.inputs) {
    const Value memory = memory_of(v);
    const Dim size = numel(v.shape());
    const bool fits = size.is_static() && memory.dtype() == whole.dtype() && made.contains(key(memory)) &&
                      offset * width / 8 % kArenaAlignment == 0;
    if (!fits || !taken.insert(key(memory)).second) return std::nullopt;
    pieces.push_back({memory, whole, offset});
    offset += size.value();
  }
  return pieces;
}

}  // namespace

InPlace find_in_place(std::span<const Group> groups, const std::set<const Node*>& fixed) {
  std::set<Key> made;  // and not a piece yet
  for (const Group& g : groups)
    for (const Value& v : g.outputs)
      if (g.kind != GroupKind::Control && !fixed.contains(v.node)) made.insert(key(v));
  InPlace result;
  for (std::size_t i = groups.size(); i-- > 0;) {
    if (groups[i].kind != GroupKind::Concat || groups[i].outputs.empty()) continue;
    const auto pieces = pieces_of(*groups[i].anchor, made);
    if (!pieces) continue;
    result.groups.insert(i);
    for (const PlacedPiece& p : *pieces) made.erase(key(p.value));
    result.pieces.insert(result.pieces.end(), pieces->begin(), pieces->end());
  }
  return result;
}

}  // namespace deepseek
