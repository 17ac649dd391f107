// Map: every output element by itself. Also the definition's way to a contraction: loops over the result,
// each element by the op's own reduction.
#include "kernels/assembly.h"

namespace deepseek::kernels {

std::optional<Lowered> lower_map(const Group& group, const LoweringContext&) {
  if (group.kind != GroupKind::Map && group.kind != GroupKind::Contraction) return std::nullopt;
  Assembly a(group);
  const std::vector<Stored> stored = stored_outputs(group);
  a.phase(map_phase(a, group.domain, stored, [](const Stored& s, std::span<const Expr> coords) {
    std::vector<Expr> at(coords.begin(), coords.end());
    for (std::size_t d = 0; d < s.perm.size(); ++d) at[d] = coords[static_cast<std::size_t>(s.perm[d])];
    return flat_index(s.memory.shape(), at);
  }));
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = group.kind == GroupKind::Map ? "map" : "definition";
  return result;
}

}  // namespace deepseek::kernels
