// Long rows: few rows of so many elements that one is worth several threads. Each reduction is done in parts, then over
// what they gave; what is elementwise comes last. How rows are cut depends on shape and target alone, and so do the bits.
#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/register_tile.h"
#include "kernels/rows.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kLeastLength = 1 << 16;  // a shorter row is done before further threads are
constexpr std::int64_t kLeastPart = 1 << 14, kMostRows = 32;

class LongRows {
 public:
  LongRows(const Group& g, const TargetInfo& target)
      : g_(g), target_(target), row_shape_(row_shape_of(g)), leading_(g.domain) {
    leading_.resize(leading_.size() - row_shape_.size());
    for (const Node* n : g.members)
      if (is_reduction(*n)) reductions_.push_back(n);
    one_pass_ = reductions_.size() == 1 &&
                std::none_of(g.outputs.begin(), g.outputs.end(), [&](const Value& v) { return is_full(v); });
  }

  // Rows that a core's cache holds are read from memory once by the thread that has all of one, in each pass by others.
  bool fits() const {
    const Dim all = numel(g_.domain);
    if (target_.gpu_mapped || !all.is_static() || all == Dim(0)) return false;
    const std::int64_t rows = numel(leading_).value(), length = numel(row_shape_).value();
    const bool in_cache = length * 4 <= target_.l2_bytes / 2;
    return length >= kLeastLength && rows <= (one_pass_ || !in_cache ? kMostRows : 1);
  }

  std::optional<Call> run() {
    cut();
    for (const Node* n : reductions_)
      if (!reduce(*n)) return std::nullopt;
    std::vector<Stored> full;
    for (const Stored& s : stored_outputs(g_)) {
      if (is_full(s.value))
        full.push_back(s);
      else
        a_.phase(map_phase(a_, s.value.shape(), {&s, 1}, stored_index));
    }
    if (!full.empty()) a_.phase(map_phase(a_, g_.domain, full, stored_index));
    return a_.finish(g_.name());
  }

 private:
  bool is_full(const Value& v) const { return v.shape() == g_.domain; }

  void cut() {
    const std::int64_t length = numel(row_shape_).value();
    each_ = part_length(length, kLeastPart);
    parts_ = ceil_of(length, each_);
  }

  Expr row_index(std::span<const Expr> coords) const {
    return flat_index(leading_, coords.first(leading_.size()));
  }

  bool reduce(const Node& n) {
    const DType type = n.outputs[0].dtype, acc_type = type == DType::Bool ? DType::Bool : compute_type(type);
    const std::int64_t length = numel(row_shape_).value();
    const std::string id = std::to_string(done_++);
    std::vector<Axis> axes = make_axes("i", extents_of(leading_)),
                      row = make_axes("k", extents_of(row_shape_));
    const std::vector<Expr> outer = coords_of(axes);
    std::vector<Expr> coords = outer;
    for (const Axis& k : row) coords.push_back(var(k.var));
    Expr value = cast(acc_type, a_.scope().at(n.in(0), coords));
    if (!a_.scope().take_checks().empty()) return false;
    Expr* exprs[] = {&value};
    merge_axes(row, exprs);
    if (row.size() != 1) return false;

    const Reducer reducer = reducer_of(n);
    const Buffer partial = a_.workspace("partial" + id, acc_type, numel(leading_).value() * parts_);
    const Axis part = make_axis("part", parts_);
    const Expr first = var(part.var) * each_;
    const Axis in_part =
        make_axis("k", length % each_ == 0 ? Expr(each_) : loops::min(Expr(each_), length - first));
    const Var from[] = {row[0].var};
    const Expr to[] = {first + var(in_part.var)};
    std::vector<Stmt> checks;
    Computed sum =
        expand_reductions(loops::reduce(reducer, {in_part}, substitute(value, from, to)), true, checks);
    sum.stmts.push_back(stmt(Store{partial, row_index(outer) * parts_ + var(part.var), sum.value, {}}));
    axes.push_back(part);
    a_.phase(parallel_over(axes, split_on_predicates(block(std::move(sum.stmts)))));

    const auto total = [=, this, &n](std::span<const Expr> at) {
      const Axis each = make_axis("p", parts_);
      const Expr sum = loops::reduce(reducer, {each}, load(partial, row_index(at) * parts_ + var(each.var)));
      return cast(type, n.op->name == "mean" ? sum / cast(acc_type, Expr(length)) : sum);
    };
    if (one_pass_) {
      a_.scope().bind(n.out(), [total](std::span<const Expr> at, const Expr&) { return total(at); });
      return true;
    }
    const Buffer totals = a_.workspace("total" + id, type, numel(leading_).value());
    const std::vector<Axis> rows = make_axes("i", extents_of(leading_));
    Computed all = expand_reductions(total(coords_of(rows)), false, checks);
    all.stmts.push_back(stmt(Store{totals, row_index(coords_of(rows)), all.value, {}}));
    a_.phase(parallel_over(rows, block(std::move(all.stmts))));
    a_.scope().bind(n.out(),
                    [=, this](std::span<const Expr> at, const Expr&) { return load(totals, row_index(at)); });
    return true;
  }

  const Group& g_;
  const TargetInfo& target_;
  Shape row_shape_, leading_;
  std::vector<const Node*> reductions_;
  bool one_pass_;
  Assembly a_{g_};
  std::int64_t each_ = 0, parts_ = 0;  // elements of a part, and parts of a row
  int done_ = 0;
};

}  // namespace

std::optional<Lowered> lower_long_rows(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Rows) return std::nullopt;
  LongRows rows(group, context.target);
  if (!rows.fits()) return std::nullopt;
  std::optional<Call> call = rows.run();
  if (!call) return std::nullopt;
  Lowered result;
  result.calls.push_back(*std::move(call));
  result.way = "long rows";
  return result;
}

}  // namespace deepseek::kernels
