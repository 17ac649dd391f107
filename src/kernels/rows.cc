// Rows: reductions over the trailing axes with what is elementwise around them (softmax, layer norm) as one
// kernel. A row is computed by one thread in stages, a vector loop over the row for each reduction and one
// for the results; what several stages need and is costly, or is a result anyway, is kept from the first
// stage on. Rows that come from memory are computed in turn: stages ask for lines of the next row, and one loop stores a
// row's results and begins with the next, so that memory is read and written all the time.
#include "kernels/rows.h"

#include <algorithm>
#include <set>
#include <utility>

#include "kernels/assembly.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

// Elements of a row that are computed between asking for lines of the next.
constexpr std::int64_t kChunk = 256;
constexpr std::int64_t kRowsInTurn = 16, kTasksPerThread = 8;

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
    std::vector<Stmt> stmts = std::move(allocs_);
    if (x_.in_turn) {
      rows_in_turn(stmts);
    } else {
      for (Stage& s : stages_) append(s.before, s.loops, s.after, stmts);
    }
    return stmts;
  }

 private:
  struct Item {  // a store, or (without an index) the stage's accumulation
    Buffer buffer;
    Expr index, value;
    std::vector<Stmt> checks = {};  // run before the store; they may read what earlier items stored
    std::optional<Var> name = {};   // the value's, for the items after it
  };

  struct Stage {
    std::vector<Stmt> before;
    Stmt loops;               // null: none
    std::optional<Axis> row;  // where it is a single loop, and its body
    Stmt body;
    std::vector<Stmt> after;
  };
  static void append(const std::vector<Stmt>& before, const Stmt& loops, const std::vector<Stmt>& after,
                     std::vector<Stmt>& to) {
    to.insert(to.end(), before.begin(), before.end());
    if (loops) to.push_back(loops);
    to.insert(to.end(), after.begin(), after.end());
  }

  bool is_full(const Node& n) const { return !is_reduction(n) && n.outputs[0].shape == g_.domain; }
  bool is_output(const Node& n) const {
    return std::any_of(g_.outputs.begin(), g_.outputs.end(), [&](const Value& v) { return v.node == &n; });
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
    allocs_.push_back(stmt(Alloc{buffer}));
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

  // The loops of a stage.
  void nest(std::vector<Axis> row, std::vector<Item> items, std::optional<Reducer> reducer, Stage& stage) {
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
    if (row.size() == 1) {
      stage.row = row[0];
      stage.body = s;
    }
    for (std::size_t i = row.size(); i-- > 0;)
      s = loop(row[i], i + 1 == row.size() ? LoopKind::Vector : LoopKind::Serial, std::move(s));
    stage.loops = split_on_predicates(s);
  }

  struct Line {  // of memory, at element k of a row
    Buffer buffer;
    Expr index;
    Var k;
  };
  static std::vector<Line> lines_read(const Stage& s) {
    std::vector<Line> read;
    visit_stmts(s.body, [&](const Stmt& one) {
      visit_exprs(one, [&](const Expr& e) {
        visit(e, [&](const Expr& x) {
          if (x.op() == Op::Load) read.push_back({x->buffer, x->args[0], s.row->var});
        });
      });
    });
    return read;
  }

  // The loop over a row in pieces, between which lines of the next row are asked for: of those written here, and the
  // `share` of `shares` of those that are `read`, so that memory is as busy in each stage.
  Stmt in_chunks(const Axis& row, const Stmt& body, std::span<const Line> read, std::int64_t share,
                 std::int64_t shares) const {
    const Var& row_index = x_.in_turn->row;
    const Axis chunk = make_axis("chunk", floordiv(row.extent, kChunk)), in_chunk = make_axis("k", kChunk);
    const Expr first = var(chunk.var) * kChunk;
    std::vector<Stmt> stmts;
    const auto ask = [&](const Line& x, std::int64_t part, std::int64_t parts) {
      if (x.buffer->space != Space::Global || !uses(x.index, row_index) || !uses(x.index, x.k)) return;
      const std::int64_t elements = kLineBytes * 8 / bits(x.buffer->dtype);
      const std::int64_t lines = std::max<std::int64_t>(1, kChunk / elements);
      const std::int64_t begin = lines * part / parts, end = lines * (part + 1) / parts;
      if (begin == end) return;
      const Axis line = make_axis("line", end - begin);
      const Var from[] = {row_index, x.k};
      const Expr to[] = {var(row_index) + 1, first + (var(line.var) + begin) * elements};
      stmts.push_back(
          loop(line, LoopKind::Unrolled, stmt(Prefetch{x.buffer, substitute(x.index, from, to)})));
    };
    visit_stmts(body, [&](const Stmt& s) {
      if (const auto* store = as<Store>(s)) ask({store->buffer, store->index, row.var}, 0, 1);
    });
    for (const Line& x : read) ask(x, share, shares);
    stmts.push_back(split_on_predicates(
        loop(in_chunk, LoopKind::Vector, substitute(body, row.var, first + var(in_chunk.var)))));
    return loop(chunk, LoopKind::Serial, block(std::move(stmts)));
  }

  // The rows one after another: the last stage of a row, which stores results, and the first one of the next are one loop.
  void rows_in_turn(std::vector<Stmt>& stmts) {
    const auto& [row, first, count] = *x_.in_turn;
    const bool in_rows =
        std::all_of(stages_.begin(), stages_.end(), [](const Stage& s) { return !s.loops || s.row; });
    const bool overlaps = in_rows && stages_.size() > 1 && stages_.back().loops;
    Stage last;
    if (overlaps || !stages_.back().loops) {
      last = std::move(stages_.back());
      stages_.pop_back();
    }
    const std::vector<Line> read = in_rows ? lines_read(stages_.front()) : std::vector<Line>{};
    const std::int64_t shares = std::ssize(stages_);
    const auto loops_of = [&](const Stage& s, std::int64_t share) {
      return in_rows ? in_chunks(*s.row, s.body, read, share, shares) : s.loops;
    };

    std::vector<Stmt> before_last, keep;  // the totals of the row before
    Stmt body = last.body;
    for (const Var& total : totals_) {
      if (!overlaps) break;
      const Buffer kept = make_buffer("kept_" + total->name, total->dtype, Space::Register, 1);
      const Var old = make_var(total->name, total->dtype);
      stmts.push_back(stmt(Alloc{kept}));
      keep.push_back(stmt(Store{kept, 0, var(total), {}}));
      before_last.push_back(stmt(Let{old, load(kept, 0)}));
      body = substitute(body, total, var(old));
    }
    const auto with_last = [&](Stmt loops) {
      std::vector<Stmt> all = before_last;
      all.push_back(std::move(loops));
      return block(std::move(all));
    };
    if (overlaps) body = substitute(body, row, var(row) - 1);

    const Axis r = make_axis("r", count);
    std::vector<Stmt> one = {stmt(Let{row, first + var(r.var)})};
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      const Stage& s = stages_[k];
      Stmt loops = loops_of(s, static_cast<std::int64_t>(k));
      if (overlaps && k == 0) {
        const Stmt both = block({substitute(body, last.row->var, var(s.row->var)), s.body});
        loops = stmt(If{Expr(0) < var(r.var), with_last(in_chunks(*s.row, both, read, 0, shares)), loops});
      }
      append(s.before, loops, s.after, one);
    }
    append(last.before, nullptr, keep, one);
    stmts.push_back(loop(r, LoopKind::Serial, block(std::move(one))));
    if (overlaps)
      stmts.push_back(substitute(with_last(in_chunks(*last.row, body, {}, 0, 1)), row, first + count));
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
    allocs_.push_back(stmt(Alloc{acc}));
    Stage& now = stages_.emplace_back();
    now.before.push_back(stmt(Store{acc, 0, identity(r, acc_type), {}}));
    nest(row, std::move(items), r, now);
    for (const auto& [v, place] : std::exchange(stored_, {}))
      x_.scope->bind(v, [place = place](std::span<const Expr> c, const Expr&) {
        return load(place.buffer, place.index(c));
      });
    const Var result = make_var("s" + std::to_string(stage), n.outputs[0].dtype);
    Expr total = load(acc, 0);
    if (n.op->name == "mean") total = total / cast(acc_type, expr_of(numel(row_shape_)));
    now.after.push_back(stmt(Let{result, cast(n.outputs[0].dtype, total)}));
    totals_.push_back(result);
    x_.scope->bind(n.out(), [result](std::span<const Expr>, const Expr&) { return var(result); });
  }

  void results() {
    const std::vector<Axis> row = make_axes("k", extents_of(row_shape_));
    const std::vector<Expr> coords = full_coords(row);
    std::vector<Item> items;
    Stage& last = stages_.emplace_back();
    for (const Value& v : g_.outputs) {
      if (kept_.contains(v.node)) continue;
      const RowPlace place = x_.place(v, false);
      if (is_full(*v.node)) {
        const Expr value = x_.scope->at(v, coords);
        items.push_back({place.buffer, place.index(coords), value, x_.scope->take_checks()});
      } else {
        const Expr value = x_.scope->at(v, row_coords());
        for (Stmt& c : x_.scope->take_checks()) last.before.push_back(std::move(c));
        last.before.push_back(stmt(Store{place.buffer, place.index(row_coords()), value, {}}));
      }
    }
    if (!items.empty()) nest(row, std::move(items), std::nullopt, last);
  }

  const Group& g_;
  RowContext x_;
  Shape row_shape_;
  std::vector<const Node*> reductions_;
  std::set<const Node*> kept_;
  std::vector<std::pair<Value, RowPlace>> stored_;  // by this stage: later ones read them there
  std::vector<Stmt> allocs_;
  std::vector<Stage> stages_;
  std::vector<Var> totals_;  // of the reductions
};

// Whether rows come from memory.
bool read_from_memory(const Group& g, const TargetInfo& target) {
  const Dim elements = numel(g.domain);
  return !target.gpu_mapped && g.domain.size() > g.reduced.size() && elements.is_static() &&
         elements.value() * 4 > 2 * target.l2_bytes && numel(row_shape_of(g)).value() % kChunk == 0;
}

}  // namespace

Reducer reducer_of(const Node& n) {
  const std::string& op = n.op->name;
  if (op == "sum" || op == "mean") return Reducer::Sum;
  if (op == "prod") return Reducer::Prod;
  if (op == "max") return Reducer::Max;
  if (op == "min") return Reducer::Min;
  return op == "any" ? Reducer::Or : Reducer::And;
}

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
  std::vector<Axis> axes = make_axes("i", extents_of(leading));
  RowContext rows{&a.scope(), coords_of(axes), [&a](Value v, bool read_back) {
                    return RowPlace{
                        read_back ? a.output_read_back(v) : a.output(v),
                        [shape = v.shape()](std::span<const Expr> c) { return flat_index(shape, c); }};
                  }};
  if (read_from_memory(group, context.target)) {
    const std::int64_t count = leading.back().value();
    const std::int64_t share = numel(leading).value() / (kTasksPerThread * context.threads);
    const std::int64_t each = std::clamp<std::int64_t>(share, 1, std::min(count, kRowsInTurn));
    const Var row = axes.back().var;
    axes.back() = make_axis("rows", ceil_of(count, each));
    const Expr first = var(axes.back().var) * each;
    rows.in_turn = {row, first, count % each == 0 ? Expr(each) : loops::min(Expr(each), count - first)};
  }
  a.phase(parallel_over(axes, block(row_stages(group, std::move(rows)))));
  Lowered result;
  result.calls.push_back(a.finish(group.name()));
  result.way = "rows";
  return result;
}

}  // namespace deepseek::kernels
