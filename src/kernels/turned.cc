// Turned: an elementwise group with an operand whose neighbours in memory are not the result's, as a transpose reads it.
// Element by element each line of such an operand would be fetched once for every element of it. Here squares of a
// vector's size are read along the operand's memory, turned in registers and written along the result's.
#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kSquares =
    4;  // of a task, along both axes: whole pages of neither are touched for a line each

struct Turned {
  Expr load;
  std::size_t along;    // the axis along the operand's memory; the last one is along the result's
  std::int64_t stride;  // of the operand along the last axis
};

// Whether a loop over `axis` is long enough to fill vectors.
bool fills(const Axis& axis, std::int64_t lanes) {
  const auto extent = axis.extent.int_value();
  return extent && *extent >= lanes;
}

// The one operand that lies across, where every other one is read along the result or not at all along it.
std::optional<Turned> turned_operand(const Expr& value, std::span<const Axis> axes, std::int64_t lanes) {
  std::optional<Turned> result;
  bool taken = true;
  visit(value, [&](const Expr& x) {
    if (x.op() == Op::Reduce) taken = false;
    if (x.op() != Op::Load || !taken) return;
    const auto step = coefficient(x->args[0], axes.back().var);
    if (step && (step->int_value() == 0 || step->int_value() == 1)) return;
    taken = step && step->int_value() && x->args.size() == 1 && bits(x.type()) == 32 &&
            (!result || same(result->load, x));
    if (!taken) return;
    for (std::size_t i = 0; i + 1 < axes.size(); ++i) {
      const auto own = coefficient(x->args[0], axes[i].var);
      if (own && own->int_value() == 1 && fills(axes[i], lanes)) result = {x, i, *step->int_value()};
    }
    taken = result.has_value();
  });
  return taken ? result : std::nullopt;
}

}  // namespace

std::optional<Lowered> lower_turned(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Map || context.target.gpu_mapped || !register_tile(context.target))
    return std::nullopt;
  const std::vector<Stored> stored = stored_outputs(group);
  if (stored.size() != 1 || bits(stored[0].value.dtype()) < 8) return std::nullopt;
  Assembly a(group);
  std::vector<Axis> axes = make_axes("i", extents_of(group.domain));
  const std::vector<Expr> coords = coords_of(axes);
  Expr value = a.scope().at(stored[0].value, coords), index = stored_index(stored[0], coords);
  if (axes.empty() || !a.scope().take_checks().empty()) return std::nullopt;
  Expr* exprs[] = {&index, &value};
  merge_axes(axes, exprs);
  const std::int64_t lanes = context.target.vector_bytes / 4;
  const Axis inner = axes.back();
  const auto written = coefficient(index, inner.var);
  if (lanes < 2 || !fills(inner, lanes) || !written || written->int_value() != 1) return std::nullopt;
  const auto turned = turned_operand(value, axes, lanes);
  if (!turned) return std::nullopt;
  const Axis along = axes[turned->along];

  // A task's squares; where an axis ends within one, the rest of it is neither read nor written.
  const std::int64_t side = kSquares * lanes;
  const auto cut = [&](const Axis& axis, const std::string& name) {
    const std::int64_t extent = *axis.extent.int_value();
    return std::pair(make_axis(name, ceil_of(extent, side)),
                     make_axis(name + "_square", std::min(kSquares, ceil_of(extent, lanes))));
  };
  const auto [rows, row_squares] = cut(along, "rows");
  const auto [columns, column_squares] = cut(inner, "columns");
  const auto first = [&](const Axis& task, const Axis& square) {
    return var(task.var) * side + var(square.var) * lanes;
  };
  const Expr row = first(rows, row_squares), column = first(columns, column_squares);
  const auto there = [&](const Axis& axis, const Expr& from) {
    return *axis.extent.int_value() % lanes == 0 ? Expr(lanes) : loops::min(Expr(lanes), axis.extent - from);
  };
  const Var from[] = {along.var, inner.var};
  const Expr corner[] = {row, column};
  const Tile square = std::make_shared<const TileNode>(TileNode{"square", turned->load.type(), lanes, lanes});
  const Var i = loop_var("i", lanes), j = loop_var("j", lanes), x = make_var("x", turned->load.type());
  const Expr element[] = {row + var(i), column + var(j)};
  const Expr of_element = rewrite(
      value, [&](const Expr& e) { return e.op() == Op::Load && same(e, turned->load) ? var(x) : Expr(); });
  const Stmt store = stmt(Store{a.output(stored[0].memory),
                                substitute(index, from, element),
                                substitute(of_element, from, element),
                                {}});
  Stmt body =
      block({stmt(TileAlloc{square}),
             stmt(TileLoad{square, turned->load->buffer, substitute(turned->load->args[0], from, corner), 1,
                           turned->stride, there(along, row), there(inner, column)}),
             stmt(TileStore{square, i, j, x, there(along, row), there(inner, column), store})});
  const auto inside = [&](const Axis& axis, const Expr& at, Stmt s) {
    return *axis.extent.int_value() % side == 0 ? s : stmt(If{at < axis.extent, std::move(s), nullptr});
  };
  body = loop(column_squares, LoopKind::Serial, inside(inner, column, std::move(body)));
  body = loop(row_squares, LoopKind::Serial, inside(along, row, std::move(body)));
  std::vector<Axis> grid;
  for (std::size_t k = 0; k + 1 < axes.size(); ++k)
    if (k != turned->along) grid.push_back(axes[k]);
  grid.insert(grid.end(), {rows, columns});
  a.phase(parallel_over(grid, std::move(body)));
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = "turned";
  return result;
}

}  // namespace deepseek::kernels
