// Ops whose coordinates come from tensors of indices.
#include "ops/shape_ops.h"

namespace deepseek {
namespace {

// An index with negatives counted from the end; reports one that is out of range and says whether it is not.
struct Index {
  Expr at, valid;
};
Index checked_index(const Node& n, Elements& e, const Expr& raw, const Dim& size) {
  const Expr i = loops::cast(DType::I64, raw), d = e.dim(size);
  const Expr at = loops::select(i < Expr(0), i + d, i);
  const Expr valid = inside(at, d);
  e.require(valid, std::string(n.op_name()) + ": an index is out of range");
  return {at, valid};
}

void add_gather(OpTable& t) {
  t.add("gather")
      .doc(
          "The slices of x at `indices` along an axis, as numpy.take: the result has the indices' axes in "
          "the axis's "
          "place. Negative indices count from the end; an index out of range is an error at run time.")
      .input("x")
      .input_free("indices", Accepts::Index)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis of x to take from.")
      .infer([](const Node& n) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        Shape shape = n.in(0).shape();
        shape.erase(shape.begin() + axis);
        shape.insert(shape.begin() + axis, n.in(1).shape().begin(), n.in(1).shape().end());
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        const auto first = static_cast<std::size_t>(axis), count = static_cast<std::size_t>(n.in(1).rank());
        const Index index = checked_index(n, e, e.in(1, coords.subspan(first, count)), n.in(0).dim(axis));
        std::vector<Expr> source(coords.begin(), coords.begin() + axis);
        source.push_back(index.at);
        source.insert(source.end(), coords.begin() + axis + n.in(1).rank(), coords.end());
        return element(e, n, 0, source, index.valid, loops::zero(compute_type(n.in(0).dtype())));
      })
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(2);
        if (!needed[0] || !dys[0]) return result;
        GraphBuilder g(graph);
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        Shape flat = n.in(0).shape();
        flat[static_cast<std::size_t>(axis)] = numel(n.in(1).shape());
        const Value indices = g.reshape(n.in(1), {numel(n.in(1).shape())});
        result[0] = g.op("index_add", {g.reshape(dys[0], flat), indices},
                         {{"axis", std::int64_t{axis}}, {"size", Shape{n.in(0).dim(axis)}}});
        return result;
      });
  t.add("gather_elements")
      .doc(
          "y[i][j] = x[indices[i][j]][j] for axis 0, and so on: one index per element of the result, as "
          "torch.gather. Negative indices count from the end; an index out of range is an error at run time.")
      .input("x")
      .input_free("indices", Accepts::Index)
      .attr("axis", AttrKind::Int, std::int64_t{0}, "The axis that the indices replace.")
      .infer([](const Node& n) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        if (n.in(1).rank() != n.in(0).rank())
          bad_input(n, "indices of rank " + std::to_string(n.in(0).rank()), str(n.in(1).type()));
        for (int i = 0; i < n.in(0).rank(); ++i) {
          if (i != axis && !may_be_at_most(n.in(1).dim(i), n.in(0).dim(i)))
            bad_input(
                n, "indices no larger than " + str(n.in(0).shape()) + " but for axis " + std::to_string(axis),
                str(n.in(1).shape()));
        }
        return std::vector<Type>{{n.in(0).dtype(), n.in(1).shape()}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const int axis = normalize_axis(n, integer(n, "axis"), n.in(0).rank());
        const Index index = checked_index(n, e, e.in(1, coords), n.in(0).dim(axis));
        std::vector<Expr> source(coords.begin(), coords.end());
        source[static_cast<std::size_t>(axis)] = index.at;
        return element(e, n, 0, source, index.valid, loops::zero(compute_type(n.in(0).dtype())));
      })
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(2);
        if (!needed[0] || !dys[0]) return result;
        GraphBuilder g(graph);
        result[0] = g.op("scatter_elements", {g.full_like(n.in(0), 0.0), n.in(1), dys[0]},
                         {{"axis", integer(n, "axis")}, {"reduction", std::string("add")}});
        return result;
      });
}

// indices: batch dims B..., then any dims, then K coordinates. x: B..., then K dims indexed, then the
// slice's.
void add_gather_nd(OpTable& t) {
  t.add("gather_nd")
      .doc(
          "The slices of x whose first coordinates are the vectors along the last axis of `indices`; the "
          "first `batch_dims` axes are shared. Negative indices count from the end; one out of range is an "
          "error at run time.")
      .input("x")
      .input_free("indices", Accepts::Index)
      .attr("batch_dims", AttrKind::Int, std::int64_t{0}, "How many leading axes are shared.")
      .infer([](const Node& n) {
        const std::int64_t batch = integer(n, "batch_dims");
        const int rank = n.in(0).rank(), index_rank = n.in(1).rank();
        if (index_rank < 1 || !n.in(1).dim(-1).is_static())
          bad_input(n, "indices whose last dim is known", str(n.in(1).type()));
        const std::int64_t count = n.in(1).dim(-1).value();
        if (batch < 0 || batch >= index_rank || batch > rank || count > rank - batch)
          bad_input(n, "at most " + std::to_string(rank) + " shared axes and coordinates together",
                    std::to_string(batch) + " and " + std::to_string(count));
        for (int i = 0; i < batch; ++i)
          if (!may_equal(n.in(0).dim(i), n.in(1).dim(i)))
            bad_input(n, "shared axes of one size", str(n.in(0).shape()) + ", " + str(n.in(1).shape()));
        Shape shape(n.in(1).shape().begin(), n.in(1).shape().end() - 1);
        shape.insert(shape.end(), n.in(0).shape().begin() + batch + count, n.in(0).shape().end());
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const auto batch = static_cast<std::size_t>(integer(n, "batch_dims"));
        const auto leading = static_cast<std::size_t>(n.in(1).rank() - 1);
        std::vector<Expr> source(coords.begin(), coords.begin() + static_cast<std::ptrdiff_t>(batch));
        std::vector<Expr> index(coords.begin(), coords.begin() + static_cast<std::ptrdiff_t>(leading));
        index.emplace_back();
        Expr valid = loops::constant(DType::Bool, std::int64_t{1});
        for (std::int64_t k = 0; k < n.in(1).dim(-1).value(); ++k) {
          index.back() = Expr(k);
          const Index one =
              checked_index(n, e, e.in(1, index), n.in(0).shape()[batch + static_cast<std::size_t>(k)]);
          source.push_back(one.at);
          valid = valid && one.valid;
        }
        source.insert(source.end(), coords.begin() + static_cast<std::ptrdiff_t>(leading), coords.end());
        return element(e, n, 0, source, valid, loops::zero(compute_type(n.in(0).dtype())));
      });
}

// What a dynamic start is held to: [0, size of x - size of the slice].
Expr clamped_start(const Node& n, Elements& e, int starts, std::size_t axis, const Dim& size) {
  const std::vector<Expr> at = {Expr(static_cast<std::int64_t>(axis))};
  const Expr start = loops::cast(DType::I64, e.in(starts, at));
  return loops::max(loops::min(start, e.dim(n.in(0).shape()[axis]) - e.dim(size)), Expr(0));
}

void check_starts(const Node& n, int input) {
  if (n.in(input).rank() != 1 || !may_equal(n.in(input).dim(0), Dim(n.in(0).rank())))
    bad_input(n, std::to_string(n.in(0).rank()) + " starts", str(n.in(input).type()));
}
void check_sizes(const Node& n, const Shape& sizes) {
  bool fits = static_cast<int>(sizes.size()) == n.in(0).rank();
  for (std::size_t i = 0; fits && i < sizes.size(); ++i) fits = may_be_at_most(sizes[i], n.in(0).shape()[i]);
  if (!fits) bad_input(n, "sizes within " + str(n.in(0).shape()), str(sizes));
}

void add_dynamic(OpTable& t) {
  t.add("dynamic_slice")
      .doc(
          "A box of the sizes given whose first corner is known at run time; a start is clamped so that the "
          "box lies within x.")
      .input("x")
      .input_free("starts", Accepts::Index)
      .attr("sizes", AttrKind::Shape, "The box's shape.")
      .infer([](const Node& n) {
        check_starts(n, 1);
        check_sizes(n, shape_attr(n, "sizes"));
        return std::vector<Type>{{n.in(0).dtype(), shape_attr(n, "sizes")}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        std::vector<Expr> source;
        for (std::size_t i = 0; i < coords.size(); ++i)
          source.push_back(coords[i] + clamped_start(n, e, 1, i, shape_attr(n, "sizes")[i]));
        return e.in(0, source);
      })
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(2);
        GraphBuilder g(graph);
        if (needed[0] && dys[0])
          result[0] = g.op("dynamic_update_slice", {g.full_like(n.in(0), 0.0), dys[0], n.in(1)});
        return result;
      });
  t.add("dynamic_update_slice")
      .doc(
          "x with a box, whose first corner is known at run time, replaced by `update`; a start is clamped "
          "so that the box lies within x.")
      .input("x")
      .input("update")
      .input_free("starts", Accepts::Index)
      .infer([](const Node& n) {
        check_starts(n, 2);
        check_sizes(n, n.in(1).shape());
        return same_as()(n);
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        std::vector<Expr> source;
        Expr within = loops::constant(DType::Bool, std::int64_t{1});
        for (std::size_t i = 0; i < coords.size(); ++i) {
          const Dim& size = n.in(1).shape()[i];
          if (size == n.in(0).shape()[i]) {
            source.push_back(coords[i]);
            continue;
          }
          source.push_back(coords[i] - clamped_start(n, e, 2, i, size));
          within = within && inside(source.back(), e.dim(size));
        }
        const DType type = compute_type(n.in(0).dtype());
        const Expr fresh = element(e, n, 1, source, within, loops::zero(type));
        return loops::select(within, fresh, element(e, n, 0, coords));
      })
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(3);
        GraphBuilder g(graph);
        if (!dys[0]) return result;
        if (needed[0]) result[0] = g.op("dynamic_update_slice", {dys[0], g.full_like(n.in(1), 0.0), n.in(2)});
        if (needed[1]) result[1] = g.op("dynamic_slice", {dys[0], n.in(2)}, {{"sizes", n.in(1).shape()}});
        return result;
      });
}

}  // namespace

void add_gather_ops(OpTable& t) {
  add_gather(t);
  add_gather_nd(t);
  add_dynamic(t);
}

}  // namespace deepseek
