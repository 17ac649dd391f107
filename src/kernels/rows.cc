// Rows: reductions over the trailing axes with what is elementwise around them (softmax, layer norm) as one
// kernel. A row is computed by one thread in stages, a vector loop over the row for each reduction and one
// for the results; what several stages need and is costly, or is a result anyway, is kept from the first
// stage on. Where rows come from memory, stages ask for lines of the next row while they compute.
#include "kernels/rows.h"

#include <algorithm>
#include <set>
#include <utility>

#include "kernels/assembly.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kChunk =
    256;  // elements of a row that are computed between asking for lines of the next

Reducer reducer_of(const Node& n) {
  const std::string& op = n.op->name;
  if (op == "sum" || op == "mean") return Reducer::Sum;
  if (op == "prod") return Reducer::Prod;
  if (op == "max") return Reducer::Max;
  if (op == "min") return Reducer::Min;
  return op == "any" ? Reducer::Or : Reducer::And;
}

bool is_costly(const Node& n) {
  static const std::set<std::string> names = {"exp",     "expm1", "log",  "log1p", "erf", "tanh",
                                              "sigmoid", "pow",   "gelu", "silu",  "sin", "cos"};
  return names.contains(n.op->name);
}

class RowStages {
 public:
  RowStages(const Group& g, RowContext context)
      : g_(g), x_(std::move(context)), row_shape_(row_shape_of(g)) {}

  std::vector<Stmt> run() {
    for (const Node* n : g_.members)
      if (is_reduction(*n)) reductions_.push_back(n);
    for (std::size_t s = 0; s < reductions_.size(); ++s) reduce(s);
    results();
    return std::move(stmts_);
  }

 private:
  struct Item {  // a store, or (without an index) the stage's accumulation
    Buffer buffer;
    Expr index, value;
    std::vector<Stmt> checks = {};  // run before the store; they may read what earlier items stored
    std::optional<Var> name = {};   // the value's, for the items after it
  };

  bool is_full(const Node& n) const { return !is_reduction(n) && n.outputs[0].shape == g_.domain; }
  bool is_output(const Node& n) const {
    return std::any_of(g_.outputs.begin(), g_.outputs.end(), [&](const Value& v) { return v.node == &n; });
  }

  bool has_results() const {  // a stage after the last reduction
    return std::any_of(g_.outputs.begin(), g_.outputs.end(),
                       [&](const Value& v) { return is_full(*v.node); });
  }

  std::vector<Expr> full_coords(std::span<const Axis> row) const {
    std::vector<Expr> coords = x_.row;
    for (const Axis& a : row) coords.push_back(var(a.var));
    return coords;
  }
  std::vector<Expr> row_coords() const {
    std::vector<Expr> coords = x_.row;
    coords.resize(g_.domain.size(), Expr(0));
    return coords;
  }

  // Full members that stage s needs: back from its reduction's input (the results' values for the last
  // stage).
  void needed(Value v, std::set<const Node*>& out) const {
    const Node* n = v.node;
    if (std::find(g_.members.begin(), g_.members.end(), n) == g_.members.end() || !is_full(*n) ||
        kept_.contains(n))
      return;
    if (!out.insert(n).second) return;
    for (const Value& in : n->inputs)
      if (in) needed(in, out);
  }
  std::set<const Node*> needed_at(std::size_t stage) const {
    std::set<const Node*> out;
    if (stage < reductions_.size()) {
      needed(reductions_[stage]->in(0), out);
    } else {
      for (const Value& v : g_.outputs) needed(v, out);
    }
    return out;
  }

  // One row of a member, for the later stages alone.
  RowPlace local(Value v) {
    const Buffer buffer = make_buffer("row" + std::to_string(kept_.size()), v.dtype(), Space::Shared,
                                      expr_of(numel(row_shape_)));
    stmts_.push_back(stmt(Alloc{buffer}));
    return {buffer, [shape = row_shape_](std::span<const Expr> c) {
              return flat_index(shape, c.last(shape.size()));
            }};
  }

  // Stores of members that later stages want too; from here on they are read back.
  void keep(std::size_t stage, std::span<const Axis> row, std::vector<Item>& items) {
    const std::set<const Node*> now = needed_at(stage);
    std::set<const Node*> later;
    for (std::size_t s = stage + 1; s <= reductions_.size(); ++s) later.merge(needed_at(s));
    const std::vector<Expr> coords = full_coords(row);
    for (const Node* n : g_.members) {
      if (!now.contains(n) || !later.contains(n) || !(is_costly(*n) || is_output(*n))) continue;
      const Value v = n->out();
      const RowPlace place = is_output(*n) ? x_.place(v, true) : local(v);
      const Var name = make_var("kept" + std::to_string(kept_.size()), v.dtype());
      const Expr value = x_.scope->at(v, coords);
      items.push_back({place.buffer, place.index(coords), value, x_.scope->take_checks(), name});
      x_.scope->bind(v, [name](std::span<const Expr>, const Expr&) { return var(name); });
      kept_.insert(n);
      stored_.emplace_back(v, place);
    }
  }

  // The loops of one stage.
  Stmt nest(std::vector<Axis> row, std::vector<Item> items, std::optional<Reducer> reducer) {
    std::vector<std::vector<Expr>> conditions;
    for (const Item& i : items) {
      conditions.emplace_back();
      for (const Stmt& c : i.checks) conditions.back().push_back(as<Assert>(c)->condition);
    }
    std::vector<Expr*> exprs;
    for (std::size_t k = 0; k < items.size(); ++k) {
      if (items[k].index) exprs.push_back(&items[k].index);
      exprs.push_back(&items[k].value);
      for (Expr& c : conditions[k]) exprs.push_back(&c);
    }
    merge_axes(row, exprs);
    std::vector<Stmt> body;
    for (std::size_t k = 0; k < items.size(); ++k) {
      const Item& i = items[k];
      for (std::size_t c = 0; c < i.checks.size(); ++c)
        body.push_back(stmt(Assert{conditions[k][c], as<Assert>(i.checks[c])->code}));
      if (i.name) body.push_back(stmt(Let{*i.name, i.value}));
      const Expr value = i.name ? var(*i.name) : i.value;
      body.push_back(i.index ? stmt(Store{i.buffer, i.index, value, {}})
                             : stmt(Accumulate{*reducer, i.buffer, 0, value, {}}));
    }
    Stmt s = block(std::move(body));
    if (x_.ahead && row.size() == 1) return in_chunks(row[0], s);
    for (std::size_t i = row.size(); i-- > 0;)
      s = loop(row[i], i + 1 == row.size() ? LoopKind::Vector : LoopKind::Serial, std::move(s));
    return split_on_predicates(s);
  }

  // The loop over a row in pieces, between which lines of the next row are asked for: what this stage writes and, of what
  // the first one reads, the stage's share, so that memory is as busy in each.
  Stmt in_chunks(const Axis& row, const Stmt& body) {
    const Var row_index = *x_.ahead;
    const std::int64_t stages = std::ssize(reductions_) + has_results();
    const bool is_first = stage_ == 0;
    const Axis chunk = make_axis("chunk", floordiv(row.extent, kChunk)), in_chunk = make_axis("k", kChunk);
    const Expr first = var(chunk.var) * kChunk;
    std::vector<Stmt> asked;
    const auto ask = [&](const Line& x, std::int64_t share, std::int64_t shares) {
      if (x.buffer->space != Space::Global || !uses(x.index, row_index) || !uses(x.index, x.k)) return;
      const std::int64_t elements = kLineBytes * 8 / bits(x.buffer->dtype);
      const std::int64_t lines = std::max<std::int64_t>(1, kChunk / elements);
      const std::int64_t begin = lines * share / shares, end = lines * (share + 1) / shares;
      if (begin == end) return;
      const Axis line = make_axis("line", end - begin);
      const Var from[] = {row_index, x.k};
      const Expr to[] = {var(row_index) + 1, first + (var(line.var) + begin) * elements};
      asked.push_back(
          loop(line, LoopKind::Unrolled, stmt(Prefetch{x.buffer, substitute(x.index, from, to)})));
    };
    visit_stmts(body, [&](const Stmt& s) {
      visit_exprs(s, [&](const Expr& e) {
        visit(e, [&](const Expr& x) {
          if (is_first && x.op() == Op::Load) read_.push_back({x->buffer, x->args[0], row.var});
        });
      });
      if (const auto* store = as<Store>(s)) ask({store->buffer, store->index, row.var}, 0, 1);
    });
    if (stages > 1)
      for (const Line& x : read_) ask(x, stage_, stages);
    ++stage_;
    asked.push_back(split_on_predicates(
        loop(in_chunk, LoopKind::Vector, substitute(body, row.var, first + var(in_chunk.var)))));
    return loop(chunk, LoopKind::Serial, block(std::move(asked)));
  }

  void reduce(std::size_t stage) {
    const Node& n = *reductions_[stage];
    const DType acc_type = n.outputs[0].dtype == DType::Bool ? DType::Bool : compute_type(n.outputs[0].dtype);
    const std::vector<Axis> row = make_axes("k", extents_of(row_shape_));
    std::vector<Item> items;
    keep(stage, row, items);
    const Buffer acc = make_buffer("acc" + std::to_string(stage), acc_type, Space::Register, 1);
    const Expr value = cast(acc_type, x_.scope->at(n.in(0), full_coords(row)));
    items.push_back({acc, {}, value, x_.scope->take_checks()});
    const Reducer r = reducer_of(n);
    stmts_.push_back(stmt(Alloc{acc}));
    stmts_.push_back(stmt(Store{acc, 0, identity(r, acc_type), {}}));
    stmts_.push_back(nest(row, std::move(items), r));
    for (const auto& [v, place] : std::exchange(stored_, {}))
      x_.scope->bind(v, [place = place](std::span<const Expr> c, const Expr&) {
        return load(place.buffer, place.index(c));
      });
    const Var result = make_var("s" + std::to_string(stage), n.outputs[0].dtype);
    Expr total = load(acc, 0);
    if (n.op->name == "mean") total = total / cast(acc_type, expr_of(numel(row_shape_)));
    stmts_.push_back(stmt(Let{result, cast(n.outputs[0].dtype, total)}));
    x_.scope->bind(n.out(), [result](std::span<const Expr>, const Expr&) { return var(result); });
  }

  void results() {
    const std::vector<Axis> row = make_axes("k", extents_of(row_shape_));
    const std::vector<Expr> coords = full_coords(row);
    std::vector<Item> items;
    for (const Value& v : g_.outputs) {
      if (kept_.contains(v.node)) continue;
      const RowPlace place = x_.place(v, false);
      if (is_full(*v.node)) {
        const Expr value = x_.scope->at(v, coords);
        items.push_back({place.buffer, place.index(coords), value, x_.scope->take_checks()});
      } else {
        const Expr value = x_.scope->at(v, row_coords());
        for (Stmt& c : x_.scope->take_checks()) stmts_.push_back(std::move(c));
        stmts_.push_back(stmt(Store{place.buffer, place.index(row_coords()), value, {}}));
      }
    }
    if (!items.empty()) stmts_.push_back(nest(row, std::move(items), std::nullopt));
  }

  const Group& g_;
  RowContext x_;
  Shape row_shape_;
  std::vector<const Node*> reductions_;
  std::set<const Node*> kept_;
  std::vector<std::pair<Value, RowPlace>> stored_;  // by this stage: later ones read them there
  struct Line {                                     // of memory, at element k of a row
    Buffer buffer;
    Expr index;
    Var k;
  };
  std::vector<Line> read_;  // by the first stage
  std::int64_t stage_ = 0;  // of those with a loop over the row
  std::vector<Stmt> stmts_;
};

// Whether rows come from memory: then lines of the next are asked for.
bool reads_ahead(const Group& g, const TargetInfo& target) {
  const Dim elements = numel(g.domain);
  return !target.gpu_mapped && g.domain.size() > g.reduced.size() && elements.is_static() &&
         elements.value() * 4 > 2 * target.l2_bytes && numel(row_shape_of(g)).value() % kChunk == 0;
}

}  // namespace

Shape row_shape_of(const Group& g) {
  return {g.domain.end() - static_cast<std::ptrdiff_t>(g.reduced.size()), g.domain.end()};
}

std::vector<Stmt> row_stages(const Group& group, RowContext context) {
  return RowStages(group, std::move(context)).run();
}

std::optional<Lowered> lower_rows(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Rows) return std::nullopt;
  Assembly a(group);
  Shape leading = group.domain;
  leading.resize(leading.size() - group.reduced.size());
  const std::vector<Axis> axes = make_axes("i", extents_of(leading));
  RowContext rows{&a.scope(), coords_of(axes), [&a](Value v, bool read_back) {
                    return RowPlace{
                        read_back ? a.output_read_back(v) : a.output(v),
                        [shape = v.shape()](std::span<const Expr> c) { return flat_index(shape, c); }};
                  }};
  if (reads_ahead(group, context.target)) rows.ahead = axes.back().var;
  a.phase(parallel_over(axes, block(row_stages(group, std::move(rows)))));
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = "rows";
  return result;
}

}  // namespace deepseek::kernels
