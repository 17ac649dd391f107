// Concatenation: one phase per piece, each copying (through views) into its slice of the result.
#include "kernels/assembly.h"

namespace deepseek::kernels {

std::optional<Lowered> lower_concat(const Group& group, const LoweringContext&) {
  if (group.kind != GroupKind::Concat) return std::nullopt;
  const Node& n = *group.anchor;
  const Value whole = n.out();
  const auto axis = static_cast<std::size_t>(normalize_axis(n, n.attr<std::int64_t>("axis"), whole.rank()));
  Assembly a(group);
  Dim offset = 0;
  for (const Value& piece : n.inputs) {
    const Expr shift = expr_of(offset);
    const Stored stored[] = {{piece, whole, {}}};
    if (!(piece.shape()[axis] == Dim(0)))
      a.phase(map_phase(a, piece.shape(), stored, [&](const Stored&, std::span<const Expr> coords) {
        std::vector<Expr> at(coords.begin(), coords.end());
        at[axis] = at[axis] + shift;
        return flat_index(whole.shape(), at);
      }));
    offset = offset + piece.shape()[axis];
  }
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = "concat";
  return result;
}

}  // namespace deepseek::kernels
