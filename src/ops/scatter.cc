// Ops that write to places that tensors of indices name. Where two updates meet one element they are applied in
// row-major order of the updates.
#include "ops/loop_writer.h"
#include "ops/shape_ops.h"

namespace deepseek {
namespace {

void copy_phase(ProgramBuilder& p, const loops::Buffer& to, const loops::Buffer& from, const Dim& count) {
  p.phase(
      for_each(p.dim(count), kCopyBlock, [&](const Expr& i) { return store(to, i, loops::load(from, i)); }));
}

// The element after an update.
Expr updated(const std::string& reduction, const Expr& old, const Expr& update) {
  if (reduction == "add") return old + update;
  if (reduction == "mul") return old * update;
  if (reduction == "max") return loops::max(old, update);
  if (reduction == "min") return loops::min(old, update);
  return update;
}
void check_reduction(const Node& n) {
  const std::string& r = text(n, "reduction");
  if (r != "none" && r != "add" && r != "mul" && r != "max" && r != "min")
    bad_input(n, "reduction none, add, mul, max or min", "'" + r + "'");
}

// A checked index, negatives counted from the end: statements that define it, its value, whether it is valid.
struct Place {
  Stmt before;
  Expr at, valid;
};
Place place(ProgramBuilder& p, const Node& n, const Expr& raw, const Expr& size) {
  const Named i = let("index", raw);
  const Named at = let("at", loops::select(i.value < Expr(0), i.value + size, i.value));
  const Expr valid = inside(at.value, size);
  return {loops::block(
              {i.let, at.let, p.require(valid, std::string(n.op_name()) + ": an index is out of range")}),
          at.value, valid};
}

// -- scatter_elements ------------------------------------------------------------------------------------------

std::vector<Type> infer_scatter_elements(const Node& n) {
  const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
  check_reduction(n);
  if (n.in(1).rank() != n.in(0).rank() || n.in(2).rank() != n.in(0).rank())
    bad_input(n, "indices and updates of rank " + std::to_string(n.in(0).rank()),
              str(n.in(1).type()) + ", " + str(n.in(2).type()));
  for (int i = 0; i < n.in(0).rank(); ++i) {
    const Dim& k = n.in(1).dim(i);
    if (!may_equal(k, n.in(2).dim(i))) bad_input(n, "updates " + str(n.in(1).shape()), str(n.in(2).type()));
    if (i != axis && !may_be_at_most(k, n.in(0).dim(i)))
      bad_input(n, "indices no larger than x but for axis " + std::to_string(axis), str(n.in(1).type()));
  }
  return same_as()(n);
}

void scatter_elements(const Node& n, ProgramBuilder& p) {
  const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
  const Shape &to = n.in(0).shape(), &from = n.in(1).shape();
  const loops::Buffer out = p.output(0), indices = p.input(1), updates = p.input(2);
  copy_phase(p, out, p.input(0), numel(to));
  Shape others = from;
  others[axis] = Dim(1);
  // Different columns meet different elements, so columns are independent.
  p.phase(parallel("column", p.dim(numel(others)), [&](const Expr& column) {
    std::vector<Expr> coords(from.size());
    Expr rest = column;
    for (std::size_t i = from.size(); i-- > 0;) {
      if (i == axis) continue;
      coords[i] = loops::mod(rest, p.dim(from[i]));
      rest = loops::floordiv(rest, p.dim(from[i]));
    }
    const auto flat = [&](const Shape& shape, const Expr& along) {
      Expr f(0);
      for (std::size_t i = 0; i < shape.size(); ++i)
        f = f * p.dim(shape[i]) + (i == axis ? along : coords[i]);
      return f;
    };
    return serial("i", p.dim(from[axis]), [&](const Expr& i) {
      const Named source = let("source", flat(from, i));
      const Place target = place(p, n, read_index(indices, source.value), p.dim(to[axis]));
      const Named slot = let("slot", flat(to, target.at));
      const Expr value = updated(text(n, "reduction"), read(out, slot.value), read(updates, source.value));
      return loops::block({source.let, target.before,
                           when(target.valid, loops::block({slot.let, store(out, slot.value, value)}))});
    });
  }));
}

std::vector<Value> scatter_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                    const std::vector<bool>& needed, std::string_view take,
                                    const Attrs& attrs) {
  std::vector<Value> result(3);
  if (!dys[0]) return result;
  const std::string& reduction = text(n, "reduction");
  if (reduction != "none" && reduction != "add")
    throw Error(Code::Unsupported, n.op->name, n.source, "a gradient with reduction none or add",
                "'" + reduction + "'");
  GraphBuilder g(graph);
  if (needed[0]) {
    Attrs same = n.attrs;
    result[0] =
        reduction == "add" ? dys[0] : g.op(n.op->name, {dys[0], n.in(1), g.full_like(n.in(2), 0.0)}, same);
  }
  if (needed[2]) result[2] = g.op(take, {dys[0], n.in(1)}, attrs);
  return result;
}

void add_scatter_elements(OpTable& t) {
  t.add("scatter_elements")
      .doc(
          "x with y[indices[i][j]][j] = updates[i][j] for axis 0, and so on, or combined with what is there "
          "by `reduction`. Negative indices count from the end; one out of range is an error at run time.")
      .input("x", Accepts::Real)
      .input_free("indices", Accepts::Index)
      .input("updates", Accepts::Real)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis that the indices replace.")
      .attr("reduction", AttrKind::String, std::string("none"), "none, add, mul, max or min.")
      .infer(infer_scatter_elements)
      .program(scatter_elements)
      .gradient([](Graph& g, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        return scatter_gradient(g, n, dys, needed, "gather_elements", {{"axis", integer(n, "axis")}});
      });
}

// -- scatter_nd --------------------------------------------------------------------------------------------------

std::vector<Type> infer_scatter_nd(const Node& n) {
  check_reduction(n);
  const int index_rank = n.in(1).rank();
  if (index_rank < 1 || !n.in(1).dim(-1).is_static())
    bad_input(n, "indices whose last dim is known", str(n.in(1).type()));
  const std::int64_t count = n.in(1).dim(-1).value();
  if (count > n.in(0).rank())
    bad_input(n, "at most " + std::to_string(n.in(0).rank()) + " coordinates", std::to_string(count));
  Shape shape(n.in(1).shape().begin(), n.in(1).shape().end() - 1);
  shape.insert(shape.end(), n.in(0).shape().begin() + count, n.in(0).shape().end());
  bool fits = shape.size() == n.in(2).shape().size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = may_equal(shape[i], n.in(2).shape()[i]);
  if (!fits) bad_input(n, "updates " + str(shape), str(n.in(2).type()));
  return same_as()(n);
}

void scatter_nd(const Node& n, ProgramBuilder& p) {
  const Shape& to = n.in(0).shape();
  const auto count = static_cast<std::size_t>(n.in(1).dim(-1).value());
  const loops::Buffer out = p.output(0), indices = p.input(1), updates = p.input(2);
  copy_phase(p, out, p.input(0), numel(to));
  const Expr slice = p.dim(numel(Shape(to.begin() + static_cast<std::ptrdiff_t>(count), to.end())));
  const Expr rows = p.dim(numel(Shape(n.in(1).shape().begin(), n.in(1).shape().end() - 1)));
  p.phase(serial("row", rows, [&](const Expr& row) {
    std::vector<Stmt> body;
    Expr base(0), valid = loops::constant(DType::Bool, std::int64_t{1});
    for (std::size_t k = 0; k < count; ++k) {
      const Expr at = row * Expr(static_cast<std::int64_t>(count)) + Expr(static_cast<std::int64_t>(k));
      const Place one = place(p, n, read_index(indices, at), p.dim(to[k]));
      body.push_back(one.before);
      base = base * p.dim(to[k]) + one.at;
      valid = valid && one.valid;
    }
    const Named first = let("first", base * slice);
    body.push_back(first.let);
    body.push_back(when(valid, lanes("j", slice, [&](const Expr& j) {
                          const Expr slot = first.value + j;
                          return store(
                              out, slot,
                              updated(text(n, "reduction"), read(out, slot), read(updates, row * slice + j)));
                        })));
    return loops::block(body);
  }));
}

void add_scatter_nd(OpTable& t) {
  t.add("scatter_nd")
      .doc(
          "x with the slices whose first coordinates are the vectors along the last axis of `indices` "
          "replaced by updates, or combined with them by `reduction`. Negative indices count from the end; "
          "one out of range is an error at run time.")
      .input("x", Accepts::Real)
      .input_free("indices", Accepts::Index)
      .input("updates", Accepts::Real)
      .attr("reduction", AttrKind::String, std::string("none"), "none, add, mul, max or min.")
      .infer(infer_scatter_nd)
      .program(scatter_nd)
      .gradient([](Graph& g, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        return scatter_gradient(g, n, dys, needed, "gather_nd", {});
      });
}

// -- index_add -----------------------------------------------------------------------------------------------------

void add_index_add(OpTable& t) {
  t.add("index_add")
      .doc(
          "Zeros with the slices of x along an axis added at `indices`: the gradient of gather. Negative "
          "indices count from the end; one out of range is an error at run time.")
      .input("x", Accepts::Number)
      .input_free("indices", Accepts::Index)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis.")
      .attr("size", AttrKind::Shape, "The axis's size in the result: a list of one.")
      .infer([](const Node& n) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        if (shape_attr(n, "size").size() != 1) bad_input(n, "one size", str(shape_attr(n, "size")));
        if (n.in(1).rank() != 1 || !may_equal(n.in(1).dim(0), n.in(0).dim(axis)))
          bad_input(n, "indices [" + n.in(0).dim(axis).str() + "]", str(n.in(1).type()));
        Shape shape = n.in(0).shape();
        shape[static_cast<std::size_t>(axis)] = shape_attr(n, "size")[0];
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .program([](const Node& n, ProgramBuilder& p) {
        const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
        const Shape& from = n.in(0).shape();
        const auto dim = [&](const Dim& d) { return p.dim(d); };
        const Expr outer = count_of(dim, from, 0, axis), inner = count_of(dim, from, axis + 1, from.size());
        const Expr count = p.dim(from[axis]), size = p.dim(shape_attr(n, "size")[0]);
        const loops::Buffer out = p.output(0), x = p.input(0), indices = p.input(1);
        p.phase(for_each(p.dim(numel(n.outputs[0].shape)), kCopyBlock, [&](const Expr& i) {
          return store(out, i, loops::zero(compute_type(out->dtype)));
        }));
        const Expr blocks = ceil_div(inner, kColumnBlock);
        p.phase(parallel("block", outer * blocks, [&](const Expr& b) {
          const Expr o = loops::floordiv(b, blocks), first = loops::mod(b, blocks) * Expr(kColumnBlock);
          return serial("k", count, [&](const Expr& k) {
            const Place target = place(p, n, read_index(indices, k), size);
            const Stmt add = lanes("j", loops::min(Expr(kColumnBlock), inner - first), [&](const Expr& j) {
              const Expr slot = (o * size + target.at) * inner + first + j;
              return store(out, slot, read(out, slot) + read(x, (o * count + k) * inner + first + j));
            });
            return loops::block({target.before, when(target.valid, add)});
          });
        }));
      })
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(2);
        GraphBuilder g(graph);
        if (needed[0] && dys[0])
          result[0] = g.op("gather", {dys[0], n.in(1)}, {{"axis", integer(n, "axis")}});
        return result;
      });
}

}  // namespace

void add_scatter_ops(OpTable& t) {
  add_scatter_elements(t);
  add_scatter_nd(t);
  add_index_add(t);
}

}  // namespace deepseek
