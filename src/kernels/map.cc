// Map: every output element by itself. Also the definition's way to contractions, rows and concatenations: loops over
// the result, each element by the ops' own reductions.
#include "kernels/assembly.h"

namespace deepseek::kernels {

std::optional<Lowered> lower_map(const Group& group, const LoweringContext&) {
  const bool rows = group.kind == GroupKind::Rows;
  if (group.kind == GroupKind::Program || group.kind == GroupKind::Control) return std::nullopt;
  Assembly a(group);
  const std::vector<Stored> stored = stored_outputs(group);
  if (rows) {  // results of several shapes: a phase for each
    for (const Stored& s : stored) a.phase(map_phase(a, s.value.shape(), {&s, 1}, stored_index));
  } else {
    a.phase(map_phase(a, group.domain, stored, stored_index));
  }
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = group.kind == GroupKind::Map ? "map" : "definition";
  return result;
}

}  // namespace deepseek::kernels
