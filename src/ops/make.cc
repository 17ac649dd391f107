// Tensors made from attributes, coordinates and dims rather than from other tensors' elements.
#include "ops/shape_ops.h"

namespace deepseek {
namespace {

InferFn made() {
  return [](const Node& n) {
    for (const Dim& d : shape_attr(n, "shape"))
      if (d.is_static() && d.value() < 0)
        bad_input(n, "a shape without negative dims", str(shape_attr(n, "shape")));
    return std::vector<Type>{{n.attr<DType>("dtype"), shape_attr(n, "shape")}};
  };
}

Expr bool_constant(bool b) { return loops::constant(DType::Bool, std::int64_t{b}); }

// A number of any dtype as a constant of the type that the dtype computes in.
Expr constant_of(DType t, double v) {
  if (t == DType::Bool) return bool_constant(v != 0);
  const DType c = compute_type(t);
  return is_float(c) ? loops::constant(c, v) : loops::constant(c, static_cast<std::int64_t>(v));
}

void add_sources(OpTable& t) {
  t.add("full")
      .doc("A tensor whose elements are all `value`.")
      .attr("shape", AttrKind::Shape, "The shape.")
      .attr("value", AttrKind::Float, "The value.")
      .attr("dtype", AttrKind::DType, DType::F32, "The dtype.")
      .infer(made())
      .indexed([](const Node& n, Elements&, std::span<const Expr>) {
        return constant_of(n.attr<DType>("dtype"), number(n, "value"));
      });
  t.add("iota")
      .doc("Each element is its coordinate along `axis`.")
      .attr("shape", AttrKind::Shape, "The shape.")
      .attr("dtype", AttrKind::DType, DType::I64, "The dtype.")
      .attr("axis", AttrKind::Int, std::int64_t{0}, "Which coordinate.")
      .infer([](const Node& n) {
        normalize_axis(n, integer(n, "axis"), static_cast<int>(shape_attr(n, "shape").size()));
        return made()(n);
      })
      .indexed([](const Node& n, Elements&, std::span<const Expr> coords) {
        const int axis = normalize_axis(n, integer(n, "axis"), static_cast<int>(coords.size()));
        return loops::cast(compute_type(n.attr<DType>("dtype")), coords[static_cast<std::size_t>(axis)]);
      });
  t.add("dim_value")
      .doc("The value of a dim as a scalar.")
      .attr("dim", AttrKind::Shape, "The dim: a list of one.")
      .attr("dtype", AttrKind::DType, DType::I64, "The dtype.")
      .infer([](const Node& n) {
        if (shape_attr(n, "dim").size() != 1) bad_input(n, "one dim", str(shape_attr(n, "dim")));
        return std::vector<Type>{{n.attr<DType>("dtype"), Shape{}}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr>) {
        return loops::cast(compute_type(n.attr<DType>("dtype")), e.dim(shape_attr(n, "dim")[0]));
      });
  t.add("shape_of")
      .doc("x's shape as a vector of int64.")
      .input("x")
      .infer([](const Node& n) { return std::vector<Type>{{DType::I64, Shape{Dim(n.in(0).rank())}}}; })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        Expr result(0);
        for (int i = n.in(0).rank(); i-- > 0;)
          result = loops::select(coords[0] == Expr(i), e.dim(n.in(0).dim(i)), result);
        return result;
      });
}

void add_masks(OpTable& t) {
  t.add("one_hot")
      .doc(
          "On where the coordinate along the new axis is the index, off elsewhere. Negative indices count "
          "from the end; an index beyond the depth gives a row that is off.")
      .input("indices", Accepts::Number)
      .attr("depth", AttrKind::Shape, "The size of the new axis: a list of one.")
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "Where the new axis stands in the result.")
      .attr("on", AttrKind::Float, 1.0, "The value at the index.")
      .attr("off", AttrKind::Float, 0.0, "The value elsewhere.")
      .attr("dtype", AttrKind::DType, DType::F32, "The result's dtype.")
      .infer([](const Node& n) {
        if (shape_attr(n, "depth").size() != 1) bad_input(n, "one depth", str(shape_attr(n, "depth")));
        Shape shape = n.in(0).shape();
        shape.insert(shape.begin() + normalize_axis(n, integer(n, "axis"), n.in(0).rank() + 1),
                     shape_attr(n, "depth")[0]);
        return std::vector<Type>{{n.attr<DType>("dtype"), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank() + 1);
        std::vector<Expr> at(coords.begin(), coords.end());
        at.erase(at.begin() + axis);
        const Expr raw = loops::cast(DType::I64, e.in(0, at));
        const Expr index = loops::select(raw < Expr(0), raw + e.dim(shape_attr(n, "depth")[0]), raw);
        const DType type = n.attr<DType>("dtype");
        return loops::select(index == coords[static_cast<std::size_t>(axis)],
                             constant_of(type, number(n, "on")), constant_of(type, number(n, "off")));
      });
  t.add("triangular")
      .doc("x with zeros below (upper) or above (lower) the k-th diagonal of its last two axes.")
      .input("x", Accepts::Real)
      .attr("upper", AttrKind::Bool, "Whether the upper triangle is kept.")
      .attr("k", AttrKind::Shape, Shape{Dim(0)}, "The diagonal: a list of one; positive: to the right.")
      .infer([](const Node& n) {
        if (n.in(0).rank() < 2) bad_input(n, "a matrix or more", str(n.in(0).type()));
        if (shape_attr(n, "k").size() != 1) bad_input(n, "one diagonal", str(shape_attr(n, "k")));
        return same_as()(n);
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Expr diagonal = coords[coords.size() - 2] + e.dim(shape_attr(n, "k")[0]);
        const Expr& column = coords[coords.size() - 1];
        const Expr kept = flag(n, "upper") ? diagonal <= column : column <= diagonal;
        return element(e, n, 0, coords, kept, constant_of(n.in(0).dtype(), 0));
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        return g.op("triangular", {dy}, {{"upper", flag(n, "upper")}, {"k", shape_attr(n, "k")}});
      }));
}

}  // namespace

void add_make_ops(OpTable& t) {
  add_sources(t);
  add_masks(t);
}

}  // namespace deepseek
