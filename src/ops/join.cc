// Ops that put tensors together, take them apart, or surround them.
#include "ops/shape_ops.h"

namespace deepseek {
namespace {

void add_concat(OpTable& t) {
  t.add("concat")
      .doc("The tensors one after another along an axis; the other dims agree.")
      .inputs_variadic("xs")
      .attr("axis", AttrKind::Int, "The axis to join along.")
      .infer([](const Node& n) {
        if (n.inputs.empty()) bad_input(n, "one tensor at least", "none");
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        Shape shape = n.in(0).shape();
        Dim total(0);
        for (const Value& v : n.inputs) {
          if (v.rank() != n.in(0).rank())
            bad_input(n, "tensors of one rank", str(n.in(0).type()) + ", " + str(v.type()));
          for (int i = 0; i < v.rank(); ++i)
            if (i != axis && !may_equal(v.dim(i), n.in(0).dim(i)))
              bad_input(n, "shapes that agree but for axis " + std::to_string(axis),
                        str(n.in(0).shape()) + ", " + str(v.shape()));
          total = total + v.dim(axis);
        }
        shape[static_cast<std::size_t>(axis)] = total;
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const auto axis = static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()));
        std::vector<Dim> ends;
        for (const Value& v : n.inputs)
          ends.push_back((ends.empty() ? Dim(0) : ends.back()) + v.shape()[axis]);
        const DType type = compute_type(n.in(0).dtype());
        Expr result = loops::zero(type);
        for (std::size_t i = n.inputs.size(); i-- > 0;) {
          const Expr begin = i == 0 ? Expr(0) : e.dim(ends[i - 1]);
          Expr here = i + 1 == n.inputs.size() ? loops::constant(DType::Bool, std::int64_t{1})
                                               : coords[axis] < e.dim(ends[i]);
          if (i > 0) here = begin <= coords[axis] && here;
          std::vector<Expr> source(coords.begin(), coords.end());
          source[axis] = coords[axis] - begin;
          result = element(e, n, static_cast<int>(i), source, here, result);
        }
        return result;
      })
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(n.inputs.size());
        GraphBuilder g(graph);
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        Dim begin(0);
        for (std::size_t i = 0; i < n.inputs.size(); ++i) {
          const Dim end = begin + n.inputs[i].dim(axis);
          if (needed[i] && dys[0]) result[i] = g.slice(dys[0], axis, begin, end);
          begin = end;
        }
        return result;
      });
  t.add("stack")
      .doc("Tensors of one shape along a new axis.")
      .inputs_variadic("xs")
      .attr("axis", AttrKind::Int, std::int64_t{0}, "Where the new axis stands in the result.")
      .infer([](const Node& n) {
        if (n.inputs.empty()) bad_input(n, "one tensor at least", "none");
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank() + 1);
        for (const Value& v : n.inputs)
          if (v.rank() != n.in(0).rank())
            bad_input(n, "tensors of one shape", str(n.in(0).type()) + ", " + str(v.type()));
        Shape shape = n.in(0).shape();
        shape.insert(shape.begin() + axis, Dim(static_cast<std::int64_t>(n.inputs.size())));
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank() + 1);
        std::vector<Value> parts;
        for (const Value& v : n.inputs) parts.push_back(g.unsqueeze(v, axis));
        return std::vector<Value>{g.concat(parts, axis)};
      });
  t.add("split")
      .doc("x cut along an axis into parts of the sizes given, which add up to its dim.")
      .input("x")
      .attr("sizes", AttrKind::Shape, "The parts' sizes.")
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis to cut.")
      .infer([](const Node& n) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        std::vector<Type> result;
        Dim total(0);
        for (const Dim& size : shape_attr(n, "sizes")) {
          Shape shape = n.in(0).shape();
          shape[static_cast<std::size_t>(axis)] = size;
          result.push_back({n.in(0).dtype(), shape});
          total = total + size;
        }
        if (!may_equal(total, n.in(0).dim(axis)))
          bad_input(n, "sizes that add up to " + n.in(0).dim(axis).str(), str(shape_attr(n, "sizes")));
        return result;
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        std::vector<Value> result;
        Dim begin(0);
        for (const Dim& size : shape_attr(n, "sizes")) {
          result.push_back(g.slice(n.in(0), axis, begin, begin + size));
          begin = begin + size;
        }
        return result;
      });
}

// -- pad
// -----------------------------------------------------------------------------------------------------

constexpr std::int64_t kMaxInner = std::int64_t{1} << 40;

std::int64_t inner_of(const Node& n, std::size_t axis) {
  const auto& inner = ints(n, "inner");
  return inner.empty() ? 0 : inner[axis];
}
// Size of an axis with the inner padding put in.
Dim spread(const Dim& d, std::int64_t inner) {
  return inner == 0 ? d : max(Dim(0), (d - 1) * Dim(inner + 1) + 1);
}

std::vector<Type> infer_pad(const Node& n) {
  const Shape &low = shape_attr(n, "low"), &high = shape_attr(n, "high");
  const auto rank = static_cast<std::size_t>(n.in(0).rank());
  const std::string& mode = text(n, "mode");
  if (low.size() != rank || high.size() != rank ||
      (!ints(n, "inner").empty() && ints(n, "inner").size() != rank))
    bad_input(n, "paddings for " + std::to_string(rank) + " axes", str(low) + ", " + str(high));
  const bool constant = mode == "constant";
  if (!constant && mode != "reflect" && mode != "symmetric" && mode != "edge" && mode != "wrap")
    bad_input(n, "mode constant, reflect, symmetric, edge or wrap", "'" + mode + "'");
  for (const std::int64_t inner : ints(n, "inner"))
    if (inner < 0 || inner > kMaxInner) bad_input(n, "'inner' from 0 to 2^40", str(ints(n, "inner")));
  if (!constant && !ints(n, "inner").empty()) bad_input(n, "inner padding with constant mode only", mode);
  Shape shape;
  for (std::size_t i = 0; i < rank; ++i) {
    const Dim& d = n.in(0).shape()[i];
    const Dim padded = low[i] + spread(d, inner_of(n, i)) + high[i];
    if (padded.is_static() && padded.value() < 0) bad_input(n, "a result of at least size 0", padded.str());
    if (!constant && !(low[i] == Dim(0) && high[i] == Dim(0)) && !(padded == Dim(0)) && !may_be_at_most(1, d))
      bad_input(n, "something to repeat", "size 0 on axis " + std::to_string(i));
    shape.push_back(padded);
  }
  return {{n.in(0).dtype(), shape}};
}

// The coordinate that stands at x, which may lie outside [0, d).
Expr fold_back(const std::string& mode, const Expr& x, const Expr& d) {
  if (mode == "edge") return loops::min(loops::max(x, Expr(0)), d - Expr(1));
  if (mode == "wrap") return loops::mod(x, d);
  const Expr period = mode == "reflect" ? d * Expr(2) - Expr(2) : d * Expr(2);
  const Expr at = loops::mod(x, period);  // mod by 0 is 0: the one element of a size-1 axis
  return loops::min(at, (mode == "reflect" ? period : period - Expr(1)) - at);
}

Expr pad_element(const Node& n, Elements& e, std::span<const Expr> coords) {
  const Shape &low = shape_attr(n, "low"), &high = shape_attr(n, "high");
  const std::string& mode = text(n, "mode");
  const auto crops = [](const Dim& d) { return d.is_static() && d.value() <= 0; };
  Expr valid = loops::constant(DType::Bool, std::int64_t{1});
  std::vector<Expr> source;
  for (std::size_t i = 0; i < coords.size(); ++i) {
    Expr x = coords[i] - e.dim(low[i]);
    const Expr d = e.dim(n.in(0).shape()[i]);
    if (mode != "constant") {
      source.push_back(crops(low[i]) && crops(high[i]) ? x : fold_back(mode, x, d));
      continue;
    }
    const std::int64_t inner = inner_of(n, i);
    if (inner > 0) {
      valid = valid && loops::mod(x, Expr(inner + 1)) == Expr(0);
      x = loops::floordiv(x, Expr(inner + 1));
    }
    if (!crops(low[i])) valid = valid && Expr(0) <= x;
    if (!crops(high[i])) valid = valid && x < d;
    source.push_back(x);
  }
  return element(e, n, 0, source, valid, loops::constant(compute_type(n.in(0).dtype()), number(n, "value")));
}

// The padded axes one after another: what an axis folds back is what a gather takes, so its gradient adds.
Value folding_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const Shape& low = shape_attr(n, "low");
  for (int axis = 0; axis < n.in(0).rank(); ++axis) {
    const Dim &from = n.in(0).dim(axis), &to = n.outputs[0].shape[static_cast<std::size_t>(axis)];
    const Dim& shift = low[static_cast<std::size_t>(axis)];
    if (from == to && shift == Dim(0)) continue;
    const Value positions = g.iota({from}, DType::I64, 0);
    const Value indices = g.op("pad", {positions},
                               {{"low", Shape{shift}},
                                {"high", Shape{shape_attr(n, "high")[static_cast<std::size_t>(axis)]}},
                                {"mode", text(n, "mode")}});
    dy = g.op("index_add", {dy, indices}, {{"axis", std::int64_t{axis}}, {"size", Shape{from}}});
  }
  return dy;
}

Value pad_gradient(GraphBuilder& g, const Node& n, Value dy) {
  if (text(n, "mode") != "constant") return folding_gradient(g, n, dy);
  Shape low, high;
  std::vector<std::int64_t> steps;
  bool stepped = false;
  for (std::size_t i = 0; i < shape_attr(n, "low").size(); ++i) {
    low.push_back(Dim(0) - shape_attr(n, "low")[i]);
    high.push_back(Dim(0) - shape_attr(n, "high")[i]);
    steps.push_back(inner_of(n, i) + 1);
    stepped = stepped || steps.back() != 1;
  }
  dy = g.op("pad", {dy}, {{"low", low}, {"high", high}});
  if (!stepped) return dy;
  return g.op("slice", {dy},
              {{"starts", Shape(low.size(), Dim(0))}, {"limits", dy.shape()}, {"steps", steps}});
}

void add_pad(OpTable& t) {
  t.add("pad")
      .doc(
          "x with `low` elements before and `high` after it on every axis; negative numbers take elements "
          "away. Modes as numpy.pad: constant, reflect, symmetric, edge, wrap. `inner` puts that many "
          "constants between neighbours.")
      .input("x")
      .attr("low", AttrKind::Shape, "Elements before, by axis.")
      .attr("high", AttrKind::Shape, "Elements after, by axis.")
      .attr("inner", AttrKind::Ints, std::vector<std::int64_t>{}, "Elements between, by axis; empty: none.")
      .attr("mode", AttrKind::String, std::string("constant"), "What the new elements are.")
      .attr("value", AttrKind::Float, 0.0, "The constant.")
      .infer(infer_pad)
      .indexed(pad_element)
      .gradient(unary_gradient(pad_gradient));
}

// -- tile, roll
// ----------------------------------------------------------------------------------------------

void add_repeats(OpTable& t) {
  t.add("tile")
      .doc("x repeated as a whole along every axis.")
      .input("x")
      .attr("repeats", AttrKind::Shape, "How often, by axis.")
      .infer([](const Node& n) {
        const Shape& repeats = shape_attr(n, "repeats");
        if (static_cast<int>(repeats.size()) != n.in(0).rank())
          bad_input(n, std::to_string(n.in(0).rank()) + " repeats", str(repeats));
        Shape shape;
        for (std::size_t i = 0; i < repeats.size(); ++i) shape.push_back(n.in(0).shape()[i] * repeats[i]);
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        std::vector<Expr> source;
        for (std::size_t i = 0; i < coords.size(); ++i)
          source.push_back(shape_attr(n, "repeats")[i] == Dim(1)
                               ? coords[i]
                               : loops::mod(coords[i], e.dim(n.in(0).shape()[i])));
        return e.in(0, source);
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        Shape split;
        std::vector<std::int64_t> axes;
        for (int i = 0; i < n.in(0).rank(); ++i) {
          axes.push_back(2 * i);
          split.push_back(shape_attr(n, "repeats")[static_cast<std::size_t>(i)]);
          split.push_back(n.in(0).dim(i));
        }
        return axes.empty() ? dy : g.sum(g.reshape(dy, split), axes, false);
      }));
  t.add("roll")
      .doc("x moved along the axes given; what leaves at one end comes in at the other.")
      .input("x")
      .attr("shifts", AttrKind::Ints, "By how much, by axis given; negative: towards 0.")
      .attr("axes", AttrKind::Ints, "Which axes.")
      .infer([](const Node& n) {
        if (ints(n, "shifts").size() != ints(n, "axes").size())
          bad_input(n, "a shift for each axis", std::to_string(ints(n, "shifts").size()));
        for (const std::int64_t a : ints(n, "axes")) normalize_axis(n, a, n.in(0).rank());
        return same_as()(n);
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        std::vector<Expr> source(coords.begin(), coords.end());
        for (std::size_t i = 0; i < ints(n, "axes").size(); ++i) {
          const int axis = normalize_axis(n, ints(n, "axes")[i], n.in(0).rank());
          Expr& c = source[static_cast<std::size_t>(axis)];
          c = loops::mod(c - Expr(ints(n, "shifts")[i]), e.dim(n.in(0).dim(axis)));
        }
        return e.in(0, source);
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        std::vector<std::int64_t> back;
        for (const std::int64_t s : ints(n, "shifts")) back.push_back(-s);
        return g.op("roll", {dy}, {{"shifts", back}, {"axes", ints(n, "axes")}});
      }));
}

}  // namespace

void add_join_ops(OpTable& t) {
  add_concat(t);
  add_pad(t);
  add_repeats(t);
}

}  // namespace deepseek
