// Sorting, and positions of what is not zero.
#include "ops/loop_writer.h"

namespace deepseek {
namespace {

using loops::Buffer;

Expr is_nan(const Expr& x) {
  return is_float(x.type()) ? loops::make(loops::Op::IsNan, {x})
                            : loops::constant(DType::Bool, std::int64_t{0});
}
// Whether a stands strictly before b; NaN counts as larger than every number.
Expr before(const Expr& a, const Expr& b, bool descending) {
  return descending ? (b < a || (is_nan(a) && !is_nan(b))) : (a < b || (is_nan(b) && !is_nan(a)));
}

// Where the rows along an axis lie: row r's element i is at base(r) + i*stride.
struct Rows {
  Expr count, length, stride;
  Expr base(const Expr& r) const {
    return loops::floordiv(r, stride) * length * stride + loops::mod(r, stride);
  }
};
Rows rows_of(ProgramBuilder& p, const Shape& shape, std::size_t axis) {
  const auto dim = [&](const Dim& d) { return p.dim(d); };
  Shape others = shape;
  others[axis] = Dim(1);
  return {p.dim(numel(others)), p.dim(shape[axis]), count_of(dim, shape, axis + 1, shape.size())};
}

// Keys and the positions that they came from.
struct Pairs {
  Buffer keys, positions;
  Stmt declare() const {
    return loops::block({loops::stmt(loops::Alloc{keys}), loops::stmt(loops::Alloc{positions})});
  }
};
Pairs make_pairs(const std::string& name, DType t, const Expr& length) {
  return {loops::make_buffer(name + "_keys", t, loops::Space::Shared, length),
          loops::make_buffer(name + "_positions", DType::I64, loops::Space::Shared, length)};
}
Stmt move(const Pairs& to, const Expr& at, const Pairs& from, const Expr& source) {
  return loops::block({store(to.keys, at, loops::load(from.keys, source)),
                       store(to.positions, at, loops::load(from.positions, source))});
}

// Merges from[low, middle) and from[middle, high), both in order, into to[low, high). Equal keys keep their order.
Stmt merge(const Pairs& to, const Pairs& from, const Expr& low, const Expr& middle, const Expr& high,
           bool descending) {
  const Cell left("left", DType::I64), right("right", DType::I64);
  const Stmt steps = serial("k", high - low, [&](const Expr& k) {
    const Named i = let("i", left.get()), j = let("j", right.get());
    const Expr left_over = i.value < middle, right_over = j.value < high, both = left_over && right_over;
    const Expr nothing = loops::zero(from.keys->dtype);
    const DType type = compute_type(from.keys->dtype);
    const Expr a = loops::cast(type, loops::load(from.keys, i.value, both, nothing));
    const Expr b = loops::cast(type, loops::load(from.keys, j.value, both, nothing));
    const Named take_right = let("take_right", right_over && (!left_over || before(b, a, descending)));
    return loops::block(
        {i.let, j.let, take_right.let,
         when(take_right.value,
              loops::block({move(to, low + k, from, j.value), right.set(j.value + Expr(1))}),
              loops::block({move(to, low + k, from, i.value), left.set(i.value + Expr(1))}))});
  });
  return loops::block({left.declare(low), right.declare(middle), steps});
}

// Bottom-up merge sort of pairs[0, length), stable.
Stmt sort_pairs(const Pairs& pairs, const Pairs& spare, const Expr& length, bool descending) {
  const Cell width("width", DType::I64);
  const Named w = let("w", width.get());
  const Stmt merges =
      serial("pair", loops::floordiv(length + w.value * Expr(2) - Expr(1), w.value * Expr(2)),
             [&](const Expr& pair) {
               const Named low = let("low", pair * w.value * Expr(2));
               const Named middle = let("middle", loops::min(low.value + w.value, length));
               const Named high = let("high", loops::min(middle.value + w.value, length));
               return loops::block({low.let, middle.let, high.let,
                                    merge(spare, pairs, low.value, middle.value, high.value, descending)});
             });
  const Stmt back = lanes("i", length, [&](const Expr& i) { return move(pairs, i, spare, i); });
  return loops::block(
      {width.declare(Expr(1)),
       loops::stmt(loops::While{width.get() < length,
                                loops::block({w.let, merges, back, width.set(w.value * Expr(2))})})});
}

// Sorts every row of input 0 along an axis and writes the first `kept` pairs to outputs 0 and 1.
void sort_rows(const Node& n, ProgramBuilder& p, bool descending, const Dim& kept) {
  const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
  const Rows from = rows_of(p, n.in(0).shape(), axis), to = rows_of(p, n.outputs[0].shape, axis);
  const Buffer x = p.input(0), values = p.output(0), indices = p.output(1);
  p.phase(parallel("row", from.count, [&](const Expr& row) {
    const Pairs pairs = make_pairs("sorted", x->dtype, from.length),
                spare = make_pairs("spare", x->dtype, from.length);
    const Named source = let("source", from.base(row)), target = let("target", to.base(row));
    const Stmt fill = lanes("i", from.length, [&](const Expr& i) {
      return loops::block({store(pairs.keys, i, loops::load(x, source.value + i * from.stride)),
                           store(pairs.positions, i, i)});
    });
    const Stmt write = lanes("i", p.dim(kept), [&](const Expr& i) {
      const Expr at = target.value + i * to.stride;
      return loops::block({store(values, at, loops::load(pairs.keys, i)),
                           store(indices, at, loops::load(pairs.positions, i))});
    });
    return loops::block({source.let, target.let, pairs.declare(), spare.declare(), fill,
                         sort_pairs(pairs, spare, from.length, descending), write});
  }));
}

// The gradient of values picked along an axis: dy goes back to where they came from.
std::vector<Value> pick_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                 const std::vector<bool>& needed) {
  std::vector<Value> result(1);
  GraphBuilder g(graph);
  if (needed[0] && dys[0])
    result[0] = g.op("scatter_elements", {g.full_like(n.in(0), 0.0), n.out(1), dys[0]},
                     {{"axis", integer(n, "axis")}, {"reduction", std::string("add")}});
  return result;
}

void add_sorts(OpTable& t) {
  t.add("sort")
      .doc(
          "x in order along an axis, and where each element came from. NaN counts as larger than every "
          "number; equal elements keep their order.")
      .input("x", Accepts::Number)
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The axis.")
      .attr("descending", AttrKind::Bool, false, "Largest first.")
      .infer([](const Node& n) {
        normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        return std::vector<Type>{n.in(0).type(), {DType::I64, n.in(0).shape()}};
      })
      .program([](const Node& n, ProgramBuilder& p) {
        sort_rows(n, p, flag(n, "descending"),
                  n.in(0).dim(normalize_axis(n, integer(n, "axis"), n.in(0).rank())));
      })
      .gradient(pick_gradient);
  t.add("topk")
      .doc(
          "The k largest (or smallest) elements along an axis, in order, and where they came from. NaN "
          "counts as larger than every number; of equal elements the first ones win.")
      .input("x", Accepts::Number)
      .attr("k", AttrKind::Shape, "How many: a list of one.")
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The axis.")
      .attr("largest", AttrKind::Bool, true,
            "The largest elements, largest first; else the smallest, smallest first.")
      .infer([](const Node& n) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        if (shape_attr(n, "k").size() != 1) bad_input(n, "one k", str(shape_attr(n, "k")));
        const Dim &k = shape_attr(n, "k")[0], &d = n.in(0).dim(axis);
        if (!may_be_at_most(0, k) || !may_be_at_most(k, d))
          bad_input(n, "k within [0, " + d.str() + "]", k.str());
        Shape shape = n.in(0).shape();
        shape[static_cast<std::size_t>(axis)] = k;
        return std::vector<Type>{{n.in(0).dtype(), shape}, {DType::I64, shape}};
      })
      .program([](const Node& n, ProgramBuilder& p) {
        sort_rows(n, p, flag(n, "largest"), shape_attr(n, "k")[0]);
      })
      .gradient(pick_gradient);
}

Expr is_set(const Buffer& x, const Expr& i) {
  const Expr v = read(x, i);
  return v.type() == DType::Bool ? v : v != loops::zero(v.type());
}

// body(i, position) for every element that is not zero, position counting them.
Stmt over_nonzero(const Buffer& x, const Expr& count, const Cell& position,
                  const std::function<Stmt(const Expr&, const Expr&)>& body) {
  const Stmt walk = serial("i", count, [&](const Expr& i) {
    const Named at = let("position", position.get());
    return when(is_set(x, i), loops::block({at.let, body(i, at.value), position.set(at.value + Expr(1))}));
  });
  return loops::block({position.declare(Expr(0)), walk});
}

void add_nonzero(OpTable& t) {
  t.add("nonzero")
      .doc(
          "The coordinates of the elements that are not zero, in row-major order, as int64 [rank, count]; "
          "`symbol` names the count, which is known at run time.")
      .input("x", Accepts::Real)
      .attr("symbol", AttrKind::String, std::string(),
            "The name of the count's dim; made up where it is empty.")
      .infer([](const Node& n) {
        if (text(n, "symbol").empty()) bad_input(n, "a symbol for the count", "none");
        return std::vector<Type>{{DType::I64, {Dim(n.in(0).rank()), Dim::symbol(text(n, "symbol"))}}};
      })
      .program(
          [](const Node& n, ProgramBuilder& p) {
            const Shape& shape = n.in(0).shape();
            const Expr count = p.dim(n.outputs[0].shape[1]);
            const Buffer x = p.input(0), out = p.output(0);
            const Cell position("position", DType::I64);
            p.phase(over_nonzero(x, p.dim(numel(shape)), position, [&](const Expr& i, const Expr& at) {
              std::vector<Stmt> stores;
              Expr rest = i;
              for (std::size_t k = shape.size(); k-- > 0;) {
                const Expr coordinate = k == 0 ? rest : loops::mod(rest, p.dim(shape[k]));
                stores.push_back(store(out, Expr(static_cast<std::int64_t>(k)) * count + at, coordinate));
                if (k > 0) rest = loops::floordiv(rest, p.dim(shape[k]));
              }
              return loops::block(stores);
            }));
          },
          [](const Node& n, ProgramBuilder& p) {
            const Buffer x = p.input(0), counts = p.output(0);
            const Cell position("position", DType::I64);
            const Stmt walk = over_nonzero(x, p.dim(numel(n.in(0).shape())), position,
                                           [](const Expr&, const Expr&) { return Stmt(); });
            p.phase(loops::block({walk, store(counts, Expr(0), position.get())}));
          });
}

}  // namespace

void add_sort_ops(OpTable& t) {
  add_sorts(t);
  add_nonzero(t);
}

}  // namespace deepseek
