// Columns: a sum over the leading axes of rows (the statistics of a batch norm, the gradient of a bias). Rows are cut
// into parts, each summed by one thread with its rows in the first cache while vectors go along the columns; then the
// parts' sums are summed. The number of parts depends on the shape alone, and so do the result's bits.
#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/register_tile.h"
#include "ops/op.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kLeastColumns = 8, kLeastRows = 64;
constexpr std::int64_t kLeastElements = 1 << 14;  // of fewer the definition is done before threads are
constexpr std::int64_t kPart = 1 << 13;           // elements of a part, where that gives few parts
constexpr std::int64_t kMostParts = 256;

const Node* summing(const Group& group) {
  const Node* found = nullptr;
  for (const Node* n : group.members) {
    if (!is_reduction(*n)) continue;
    if (found || !(n->op->name == "sum" || n->op->name == "mean")) return nullptr;
    found = n;
  }
  return found;
}

struct Box {
  std::vector<Axis> rows, columns;
  std::vector<Expr> coords;
};

// The axes of what is summed, where it is summed over leading axes; those of one element count as neither.
std::optional<Box> box_of(const Node& n) {
  const Shape& shape = n.in(0).shape();
  const auto reduced = normalize_axes(n, n.attr<std::vector<std::int64_t>>("axes"), n.in(0).rank());
  Box box;
  for (int i = 0; i < n.in(0).rank(); ++i) {
    const Dim& d = shape[static_cast<std::size_t>(i)];
    if (!d.is_static()) return std::nullopt;
    const Axis axis = make_axis("x" + std::to_string(i), d.value());
    box.coords.push_back(d == Dim(1) ? Expr(0) : var(axis.var));
    if (d == Dim(1)) continue;
    const bool is_row = std::find(reduced.begin(), reduced.end(), i) != reduced.end();
    if (is_row && !box.columns.empty()) return std::nullopt;
    (is_row ? box.rows : box.columns).push_back(axis);
  }
  return box;
}

// Whether everything is read along the columns, or not at all along them.
bool lies_along(const Expr& value, const Var& column) {
  bool along = true;
  visit(value, [&](const Expr& x) {
    if (x.op() == Op::Reduce) along = false;
    if (x.op() != Op::Load) return;
    const auto step = coefficient(x->args[0], column);
    along = along && step && (step->int_value() == 0 || step->int_value() == 1);
  });
  return along;
}

std::int64_t rows_of_part(std::int64_t rows, std::int64_t columns) {
  const std::int64_t length = std::max(kPart / columns, ceil_of(rows, kMostParts));
  for (std::int64_t l = length; l > length / 2; --l)
    if (rows % l == 0) return l;
  return std::max<std::int64_t>(1, length);
}

}  // namespace

std::optional<Lowered> lower_columns(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Map || context.target.gpu_mapped) return std::nullopt;
  const Node* n = summing(group);
  if (!n || n->in(0).dtype() != DType::F32 || !n->attr<bool>("keepdims")) return std::nullopt;
  auto box = box_of(*n);
  if (!box || box->rows.empty() || box->columns.empty()) return std::nullopt;

  Assembly a(group);
  Expr value = a.scope().at(n->in(0), box->coords);
  if (!a.scope().take_checks().empty()) return std::nullopt;
  Expr* exprs[] = {&value};
  merge_axes(box->rows, exprs);
  merge_axes(box->columns, exprs);
  if (box->rows.size() != 1 || box->columns.size() != 1) return std::nullopt;
  const Axis row = box->rows[0], column = box->columns[0];
  const std::int64_t rows = *row.extent.int_value(), columns = *column.extent.int_value();
  if (rows < kLeastRows || columns < kLeastColumns || rows * columns < kLeastElements ||
      !lies_along(value, column.var))
    return std::nullopt;

  const std::int64_t length = rows_of_part(rows, columns), parts = ceil_of(rows, length);
  const Buffer sums = a.workspace("sums", DType::F32, parts * columns);
  const Axis part = make_axis("part", parts);
  const Expr first = var(part.var) * length;
  const Axis in_part =
      make_axis("r", rows % length == 0 ? Expr(length) : loops::min(Expr(length), rows - first));
  const Var from[] = {row.var};
  const Expr to[] = {first + var(in_part.var)};
  std::vector<Stmt> checks;
  Computed sum =
      expand_reductions(reduce(Reducer::Sum, {in_part}, substitute(value, from, to)), false, checks);
  sum.stmts.push_back(stmt(Store{sums, var(part.var) * columns + var(column.var), sum.value, {}}));
  a.phase(loop(part, LoopKind::Parallel, loop(column, LoopKind::Vector, block(std::move(sum.stmts)))));

  a.scope().bind(n->out(), [&](std::span<const Expr> coords, const Expr&) -> Expr {
    const Axis each = make_axis("p", parts);
    const Expr at = flat_index(n->outputs[0].shape, coords);
    const Expr total = reduce(Reducer::Sum, {each}, load(sums, var(each.var) * columns + at));
    return n->op->name == "mean" ? total / constant(DType::F32, static_cast<double>(rows)) : total;
  });
  a.phase(map_phase(a, group.domain, stored_outputs(group), stored_index));
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = "columns";
  return result;
}

}  // namespace deepseek::kernels
