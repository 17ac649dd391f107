#include "kernels/assembly.h"

#include <algorithm>
#include <numeric>

namespace deepseek::kernels {

using namespace loops;

namespace {
// A loop without outer axes is cut into pieces of this many elements for the threads.
constexpr std::int64_t kChunk = 4096;
// A reduction goes along memory in vectors where it reads at least so many neighbours.
constexpr std::int64_t kNeighbours = 16;

std::string identifier(const std::string& hint) {
  std::string name;
  for (const char c : hint) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name.empty() ? "p" : name;
}
}  // namespace

Assembly::Assembly(const Group& group) {
  for (const Value& v : group.inputs) {
    if (v.node->is_constant() && v.node->data.numel() == 1) continue;
    scope_.bind(v, [this, v](std::span<const Expr> coords, const Expr& predicate) {
      const Expr index = flat_index(v.shape(), coords);
      const Buffer b = input(v);
      return predicate ? load(b, index, predicate, zero(v.dtype())) : load(b, index);
    });
  }
}

Buffer Assembly::param(const std::string& hint, DType t, Expr extent, Access access, Arg arg) {
  const Buffer b =
      make_buffer(identifier(hint) + "_" + std::to_string(args_.size()), t, Space::Global, std::move(extent));
  program_.params.push_back({b, access});
  args_.push_back(arg);
  return b;
}

Buffer Assembly::input(Value v) {
  Buffer& b = inputs_[key(v)];
  if (!b) b = param("in", v.dtype(), expr_of(numel(v.shape())), Access::Read, v);
  return b;
}
Buffer Assembly::output(Value v) {
  Buffer& b = outputs_[key(v)];
  if (!b) b = param("out", v.dtype(), expr_of(numel(v.shape())), Access::Write, v);
  return b;
}
Buffer Assembly::output_read_back(Value v) {
  const Buffer b = output(v);
  for (Param& p : program_.params)
    if (p.buffer == b) p.access = Access::ReadWrite;
  return b;
}
Buffer Assembly::temp(int index, const Type& type, Access access) {
  return param("temp", type.dtype, expr_of(numel(type.shape)), access, TempArg{index});
}
Buffer Assembly::workspace(std::string name, DType t, Expr extent) {
  return param(name, t, std::move(extent), Access::Workspace, WorkspaceArg{});
}
void Assembly::phase(Stmt s) { phases_.push_back(std::move(s)); }

Call Assembly::finish(std::string name) {
  program_.name = identifier(name);
  program_.messages = scope_.messages();
  program_.body = block(std::move(phases_));
  program_.symbols = collect_symbols(program_);
  return {std::move(program_), std::move(args_)};
}

std::vector<Stored> stored_outputs(const Group& group) {
  std::vector<Stored> result;
  for (const Value& v : group.outputs) {
    const Node& n = *v.node;
    if (n.op->name == "concat" && group.kind != GroupKind::Concat) {
      const int axis = normalize_axis(n, n.attr<std::int64_t>("axis"), v.rank());
      Dim offset = 0;
      for (const Value& piece : n.inputs) {
        result.push_back({piece, v, {}, axis, offset});
        offset = offset + piece.dim(axis);
      }
      continue;
    }
    Stored s{v, v, {}};
    const bool permuted =
        n.op->name == "transpose" && n.in(0).node->op &&
        std::find(group.members.begin(), group.members.end(), n.in(0).node) != group.members.end();
    if (permuted) {
      s.value = n.in(0);
      for (const std::int64_t p : n.attr<std::vector<std::int64_t>>("perm"))
        s.perm.push_back(static_cast<int>(p));
    }
    result.push_back(std::move(s));
  }
  return result;
}

Expr stored_index(const Stored& s, std::span<const Expr> coords) {
  std::vector<Expr> at(coords.begin(), coords.end());
  for (std::size_t d = 0; d < s.perm.size(); ++d) at[d] = coords[static_cast<std::size_t>(s.perm[d])];
  if (!(s.offset == Dim(0))) {
    Expr& moved = at[static_cast<std::size_t>(s.axis)];
    moved = moved + expr_of(s.offset);
  }
  return flat_index(s.memory.shape(), at);
}

std::vector<Stmt> store_outputs(Assembly& a, const Group& group, std::span<const Expr> coords) {
  std::vector<Stmt> stmts;
  for (const Stored& s : stored_outputs(group)) {
    const Expr value = a.scope().at(s.value, coords);
    for (Stmt& check : a.scope().take_checks()) stmts.push_back(std::move(check));
    stmts.push_back(stmt(Store{a.output(s.memory), stored_index(s, coords), value, {}}));
  }
  return stmts;
}

Stmt parallel_over(std::span<const Axis> axes, Stmt body) {
  if (axes.size() == 1) return loop(axes[0], LoopKind::Parallel, std::move(body));
  const Axis all = make_axis("p", product(axes));
  std::vector<Expr> extents;
  for (const Axis& a : axes) extents.push_back(a.extent);
  const std::vector<Expr> coords = unflatten(var(all.var), extents);
  std::vector<Stmt> stmts;
  for (std::size_t i = 0; i < axes.size(); ++i) stmts.push_back(stmt(Let{axes[i].var, coords[i]}));
  stmts.push_back(std::move(body));
  return loop(all, LoopKind::Parallel, block(std::move(stmts)));
}

// Whether vectors are better taken along the reductions of `e` than along `axis` of its results: neighbours in memory
// are summed, and neighbours in the result lie apart.
static bool reduces_along_memory(const Expr& e, const Var& axis) {
  bool any = false, all = true;
  visit(e, [&](const Expr& x) {
    if (x.op() != Op::Reduce) return;
    const std::vector<Axis>& axes = x->reduction->axes;
    visit(x->args[0], [&](const Expr& inside) {
      if (inside.op() == Op::Reduce) all = false;  // vectors do not nest
      if (inside.op() != Op::Load) return;
      any = true;
      const auto apart = coefficient(inside->args[0], axis);
      std::int64_t neighbours = 1;
      for (std::size_t i = axes.size(); i-- > 0;) {
        const auto step = coefficient(inside->args[0], axes[i].var);
        if (!step || step->int_value() != neighbours || !axes[i].extent.int_value()) break;
        neighbours *= *axes[i].extent.int_value();
      }
      all = all && neighbours >= kNeighbours && apart && apart->int_value() && *apart->int_value() > 1;
    });
  });
  return any && all;
}

Stmt map_phase(Assembly& a, const Shape& domain, std::span<const Stored> stored,
               const std::function<Expr(const Stored&, std::span<const Expr>)>& index) {
  std::vector<Axis> axes = make_axes("i", extents_of(domain));
  const std::vector<Expr> coords = coords_of(axes);
  struct One {
    Buffer buffer;
    Expr index, value;
  };
  std::vector<One> ones;
  std::vector<Stmt> checks;
  for (const Stored& s : stored) {
    ones.push_back({a.output(s.memory), index(s, coords), a.scope().at(s.value, coords)});
    for (Stmt& c : a.scope().take_checks()) checks.push_back(std::move(c));
  }
  std::vector<Expr> conditions;
  for (const Stmt& c : checks) conditions.push_back(as<Assert>(c)->condition);
  std::vector<Expr*> exprs;
  for (One& o : ones) exprs.insert(exprs.end(), {&o.index, &o.value});
  for (Expr& c : conditions) exprs.push_back(&c);
  if (axes.empty()) axes.push_back(make_axis("i", 1));
  merge_axes(axes, exprs);
  for (std::size_t i = 0; i < checks.size(); ++i)
    checks[i] = stmt(Assert{conditions[i], as<Assert>(checks[i])->code});

  Axis inner = axes.back();
  const bool along = std::all_of(ones.begin(), ones.end(),
                                 [&](const One& o) { return reduces_along_memory(o.value, inner.var); });
  std::vector<Stmt> stmts;
  std::vector<Computed> computed;
  for (const One& o : ones) computed.push_back(expand_reductions(o.value, along, checks));
  stmts.insert(stmts.end(), checks.begin(), checks.end());
  for (std::size_t i = 0; i < ones.size(); ++i) {
    stmts.insert(stmts.end(), computed[i].stmts.begin(), computed[i].stmts.end());
    stmts.push_back(stmt(Store{ones[i].buffer, ones[i].index, computed[i].value, {}}));
  }
  Stmt body = block(std::move(stmts));
  if (along) return parallel_over(axes, split_on_predicates(body));

  axes.pop_back();
  const std::optional<std::int64_t> length = inner.extent.int_value();
  const bool cut = axes.empty() && (!length || *length > kChunk);
  if (!cut) return parallel_over(axes, split_on_predicates(loop(inner, LoopKind::Vector, std::move(body))));

  const Axis pieces = make_axis("piece", floordiv(inner.extent + (kChunk - 1), kChunk));
  const Expr base = var(pieces.var) * kChunk;
  const Expr rest =
      length && *length % kChunk == 0 ? Expr(kChunk) : loops::min(Expr(kChunk), inner.extent - base);
  const Axis lane = make_axis("v", rest);
  const Stmt inside = substitute(body, inner.var, base + var(lane.var));
  return loop(pieces, LoopKind::Parallel, split_on_predicates(loop(lane, LoopKind::Vector, inside)));
}

}  // namespace deepseek::kernels
