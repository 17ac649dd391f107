// Poolings and their gradients. A pooling reduces a window that slides over the spatial dims of x.
#include <algorithm>

#include "ops/conv.h"

namespace deepseek {
namespace {

using List = std::vector<std::int64_t>;
using loops::Reducer;

// Spatial dims of a tensor under the node's layout.
Shape spatial_of(const Node& n, const Shape& shape) {
  const Layout layout = parse_layout(n, text(n, "layout"), "NC", static_cast<int>(shape.size()));
  Shape result;
  for (const int axis : layout.spatial) result.push_back(shape[static_cast<std::size_t>(axis)]);
  return result;
}

void fill_pool(Node& n) {
  auto& layout = std::get<std::string>(n.attrs.at("layout"));
  if (layout.empty()) layout = default_layout("NC", n.in(0).rank());
  const std::size_t count = ints(n, "window").size();
  for (const char* key : {"strides", "dilation"}) fill_spatial(n, key, count, 1);
  for (const char* key : {"pad_low", "pad_high"}) fill_spatial(n, key, count, 0);
  if (n.attrs.contains("uncounted_high")) fill_spatial(n, "uncounted_high", count, 0);
}

Shape pooled_shape(const Node& n, const Shape& from) {
  const Layout layout = parse_layout(n, text(n, "layout"), "NC", static_cast<int>(from.size()));
  const auto windows = pool_windows(n, spatial_of(n, from));
  Shape shape = from;
  for (std::size_t i = 0; i < windows.size(); ++i)
    shape[static_cast<std::size_t>(layout.spatial[i])] = window_positions(windows[i]);
  return shape;
}

// Where the taps of the window at `coords` look: body gets the coordinates in x and whether they lie in it.
Expr over_window(const Node& n, Elements& e, const Shape& x, Reducer r, std::span<const Expr> coords,
                 const std::function<Expr(std::span<const Expr>, const Expr&)>& body) {
  const Layout layout = parse_layout(n, text(n, "layout"), "NC", static_cast<int>(x.size()));
  const auto windows = pool_windows(n, spatial_of(n, x));
  std::vector<Expr> extents;
  for (const Window& w : windows) extents.push_back(e.dim(w.taps));
  return e.reduce(r, extents, [&](std::span<const Expr> taps) {
    std::vector<Expr> source(coords.begin(), coords.end());
    Expr valid = loops::constant(DType::Bool, std::int64_t{1});
    for (std::size_t i = 0; i < windows.size(); ++i) {
      Expr& c = source[static_cast<std::size_t>(layout.spatial[i])];
      const WindowTap tap = window_tap(e, windows[i], c, taps[i]);
      c = tap.at;
      valid = valid && tap.valid;
    }
    return body(source, valid);
  });
}

OpBuilder& pool_attrs(OpBuilder& b) {
  return b.attr("window", AttrKind::Ints, "The window's size, by spatial dim.")
      .attr("strides", AttrKind::Ints, List{}, "By spatial dim; empty: 1.")
      .attr("pad_low", AttrKind::Ints, List{}, "Positions before x, by spatial dim; empty: 0.")
      .attr("pad_high", AttrKind::Ints, List{},
            "Positions after x (ceil mode: some more), by spatial dim; empty: 0.")
      .attr("dilation", AttrKind::Ints, List{}, "Distance between taps, by spatial dim; empty: 1.")
      .attr("layout", AttrKind::String, std::string(), "Axes of x; empty: \"NC01\" for rank 4, and so on.")
      .normalize(fill_pool);
}
OpBuilder pooling(OpTable& t, std::string name, std::string doc) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc)).input("x", Accepts::Number);
  pool_attrs(b).infer(
      [](const Node& n) { return std::vector<Type>{{n.in(0).dtype(), pooled_shape(n, n.in(0).shape())}}; });
  return b;
}

// The attributes that place the window, for the op of a gradient.
Attrs window_attrs(const Node& n) {
  Attrs attrs;
  for (const char* key : {"window", "strides", "pad_low", "pad_high", "dilation", "layout"})
    attrs[key] = n.attrs.at(key);
  return attrs;
}

// -- sums
// ----------------------------------------------------------------------------------------------------

Expr window_sum(const Node& n, Elements& e, std::span<const Expr> coords) {
  const Expr zero = loops::zero(compute_type(n.in(0).dtype()));
  return over_window(
      n, e, n.in(0).shape(), Reducer::Sum, coords,
      [&](std::span<const Expr> at, const Expr& valid) { return element(e, n, 0, at, valid, zero); });
}

// How many taps of the window at `coords` count.
Expr window_count(const Node& n, Elements& e, const Shape& x, std::span<const Expr> coords) {
  const Layout layout = parse_layout(n, text(n, "layout"), "NC", static_cast<int>(x.size()));
  const auto windows = pool_windows(n, spatial_of(n, x));
  const bool include_pad = flag(n, "count_include_pad");
  Expr count(1);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const Window& w = windows[i];
    const Expr first = coords[static_cast<std::size_t>(layout.spatial[i])] * Expr(w.stride) - Expr(w.low);
    const std::int64_t counted_high = include_pad ? w.high - ints(n, "uncounted_high")[i] : 0;
    const bool low_counts = include_pad || w.low <= 0;
    const bool high_counts = include_pad ? ints(n, "uncounted_high")[i] == 0 : w.high <= 0;
    Expr until = e.dim(w.taps), from(0);
    const auto taps_below = [&](const Expr& end) {
      return loops::min(
          loops::max(loops::floordiv(end - first + Expr(w.dilation - 1), Expr(w.dilation)), Expr(0)),
          e.dim(w.taps));
    };
    if (!high_counts) until = taps_below(e.dim(w.input) + Expr(counted_high));
    if (!low_counts) from = taps_below(Expr(0));
    count = count * (until - from);
  }
  return count;
}

Value sum_gradient(GraphBuilder& g, const Node& n, Value dy) {
  Attrs attrs = window_attrs(n);
  attrs["shape"] = n.in(0).shape();
  return g.op("sum_pool_grad", {dy}, attrs);
}

Value average_gradient(GraphBuilder& g, const Node& n, Value dy) {
  Attrs attrs = window_attrs(n);
  attrs["count_include_pad"] = flag(n, "count_include_pad");
  attrs["uncounted_high"] = ints(n, "uncounted_high");
  attrs["shape"] = n.in(0).shape();
  return g.op("avg_pool_grad", {dy}, attrs);
}

void add_sums(OpTable& t) {
  pooling(t, "sum_pool", "The sum of each window; what lies outside x counts as 0.")
      .indexed(window_sum)
      .gradient(unary_gradient(sum_gradient));
  pooling(
      t, "avg_pool",
      "The mean of each window, over the taps inside x or, with count_include_pad, inside x and its padding.")
      .attr("count_include_pad", AttrKind::Bool, false, "Whether taps in the padding count.")
      .attr("uncounted_high", AttrKind::Ints, List{},
            "Part of pad_high that never counts (ceil mode's); empty: 0.")
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Expr total = window_sum(n, e, coords);
        return total / loops::cast(total.type(), window_count(n, e, n.in(0).shape(), coords));
      })
      .gradient(unary_gradient(average_gradient));
}

// -- gradients of sums
// -----------------------------------------------------------------------------------------

// The windows that an element of x lies in: body gets their positions and whether there is one.
Expr over_positions(const Node& n, Elements& e, const Shape& x, std::span<const Expr> coords,
                    const std::function<Expr(std::span<const Expr>, const Expr&)>& body) {
  const Layout layout = parse_layout(n, text(n, "layout"), "NC", static_cast<int>(x.size()));
  const auto windows = pool_windows(n, spatial_of(n, x));
  std::vector<Expr> extents;
  // Windows without gaps that hold an element follow each other: only they are looked at. Else every tap may be one.
  const auto follow = [](const Window& w) { return w.dilation == 1; };
  for (const Window& w : windows) extents.push_back(e.dim(follow(w) ? ceildiv(w.taps, w.stride) : w.taps));
  return e.reduce(Reducer::Sum, extents, [&](std::span<const Expr> which) {
    std::vector<Expr> position(coords.begin(), coords.end());
    Expr valid = loops::constant(DType::Bool, std::int64_t{1});
    for (std::size_t i = 0; i < windows.size(); ++i) {
      const Window& w = windows[i];
      Expr& c = position[static_cast<std::size_t>(layout.spatial[i])];
      const Expr at = c + Expr(w.low), reach = at - which[i] * Expr(w.dilation);
      if (follow(w)) {
        c = loops::floordiv(at, Expr(w.stride)) - which[i];
        valid = valid && at - c * Expr(w.stride) < e.dim(w.taps);
      } else {
        if (w.stride > 1) valid = valid && loops::mod(reach, Expr(w.stride)) == Expr(0);
        c = loops::floordiv(reach, Expr(w.stride));
      }
      valid = valid && Expr(0) <= c && c < e.dim(window_positions(w));
    }
    return body(position, valid);
  });
}

// Of an input with an element for each window.
void check_pooled(const Node& n, int input, const Shape& pooled) {
  const Value v = n.in(input);
  bool fits = pooled.size() == v.shape().size();
  for (std::size_t i = 0; fits && i < pooled.size(); ++i) fits = may_equal(v.shape()[i], pooled[i]);
  if (!fits)
    bad_input(n, n.op->inputs[static_cast<std::size_t>(input)].name + " " + str(pooled), str(v.type()));
}

std::vector<Type> infer_pool_grad(const Node& n) {
  const Shape& shape = shape_attr(n, "shape");
  if (static_cast<int>(shape.size()) != n.in(0).rank()) bad_input(n, "dy of x's rank", str(n.in(0).type()));
  const Shape pooled = pooled_shape(n, shape);
  for (int i = 0; i < static_cast<int>(n.inputs.size()); ++i) check_pooled(n, i, pooled);
  return {{n.in(0).dtype(), shape}};
}

void add_sum_gradients(OpTable& t) {
  OpBuilder sum = t.add("sum_pool_grad");
  sum.doc("The gradient of sum_pool: each element of x gets dy of every window that it lies in.")
      .input("dy", Accepts::Float)
      .attr("shape", AttrKind::Shape, "x's shape.");
  pool_attrs(sum)
      .infer(infer_pool_grad)
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Expr zero = loops::zero(compute_type(n.in(0).dtype()));
        return over_positions(
            n, e, shape_attr(n, "shape"), coords,
            [&](std::span<const Expr> at, const Expr& valid) { return element(e, n, 0, at, valid, zero); });
      })
      .gradient(unary_gradient(
          [](GraphBuilder& g, const Node& n, Value dy) { return g.op("sum_pool", {dy}, window_attrs(n)); }));
  OpBuilder average = t.add("avg_pool_grad");
  average.doc("The gradient of avg_pool: sum_pool_grad of dy over each window's count.")
      .input("dy", Accepts::Float)
      .attr("shape", AttrKind::Shape, "x's shape.")
      .attr("count_include_pad", AttrKind::Bool, false, "As in avg_pool.")
      .attr("uncounted_high", AttrKind::Ints, List{}, "As in avg_pool.");
  pool_attrs(average)
      .infer(infer_pool_grad)
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Shape& x = shape_attr(n, "shape");
        const Expr zero = loops::zero(compute_type(n.in(0).dtype()));
        return over_positions(n, e, x, coords, [&](std::span<const Expr> at, const Expr& valid) {
          const Expr count = loops::max(window_count(n, e, x, at), Expr(1));
          return element(e, n, 0, at, valid, zero) / loops::cast(zero.type(), count);
        });
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        Attrs attrs = window_attrs(n);
        attrs["count_include_pad"] = flag(n, "count_include_pad");
        attrs["uncounted_high"] = ints(n, "uncounted_high");
        return g.op("avg_pool", {dy}, attrs);
      }));
}

// -- maxima
// --------------------------------------------------------------------------------------------------

// The number of an element within its spatial dims.
Expr spatial_number(const Node& n, Elements& e, const Shape& x, std::span<const Expr> coords) {
  const Layout layout = parse_layout(n, text(n, "layout"), "NC", static_cast<int>(x.size()));
  Expr flat(0);
  for (const int axis : layout.spatial)
    flat = flat * e.dim(x[static_cast<std::size_t>(axis)]) + coords[static_cast<std::size_t>(axis)];
  return flat;
}

Value max_gradient(GraphBuilder& g, const Node& n, Value indices, Value dy) {
  Attrs attrs = window_attrs(n);
  attrs["shape"] = n.in(0).shape();
  return g.op("max_pool_grad", {dy, indices}, attrs);
}

void add_maxima(OpTable& t) {
  pooling(t, "max_pool",
          "The largest element of each window; -inf or the dtype's minimum where it lies outside x.")
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Expr lowest = loops::lowest(compute_type(n.in(0).dtype()));
        return over_window(
            n, e, n.in(0).shape(), Reducer::Max, coords,
            [&](std::span<const Expr> at, const Expr& valid) { return element(e, n, 0, at, valid, lowest); });
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        return max_gradient(g, n, g.op("max_pool_indices", {n.in(0), n.out()}, window_attrs(n)), dy);
      }));
  OpBuilder indices = t.add("max_pool_indices");
  indices
      .doc("Where the maximum y of each window stands in x: the first one's number within the spatial dims.")
      .input("x", Accepts::Number)
      .input("y", Accepts::Number);
  pool_attrs(indices)
      .infer([](const Node& n) {
        const Shape pooled = pooled_shape(n, n.in(0).shape());
        check_pooled(n, 1, pooled);
        return std::vector<Type>{{DType::I64, pooled}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Shape& x = n.in(0).shape();
        const DType type = compute_type(n.in(0).dtype());
        const Expr top = element(e, n, 1, coords);
        const Expr none = e.dim(numel(spatial_of(n, x)));
        return over_window(n, e, x, Reducer::Min, coords, [&](std::span<const Expr> at, const Expr& valid) {
          const Expr here = element(e, n, 0, at, valid, loops::lowest(type));
          Expr chosen = here == top;
          if (is_float(type)) chosen = chosen || loops::make(loops::Op::IsNan, {here});
          return loops::select(valid && chosen, spatial_number(n, e, x, at), none);
        });
      });
  OpBuilder both = t.add("max_pool_with_indices");
  both.doc("max_pool, and where each maximum stands: its number within the spatial dims of x.")
      .input("x", Accepts::Number);
  pool_attrs(both)
      .infer([](const Node& n) {
        const Shape shape = pooled_shape(n, n.in(0).shape());
        return std::vector<Type>{{n.in(0).dtype(), shape}, {DType::I64, shape}};
      })
      .composed([](Graph& g, const Node& n) {
        const Value y = g.op("max_pool", {n.in(0)}, window_attrs(n));
        return std::vector<Value>{y, g.op("max_pool_indices", {n.in(0), y}, window_attrs(n))};
      })
      .gradient(unary_gradient(
          [](GraphBuilder& g, const Node& n, Value dy) { return max_gradient(g, n, n.out(1), dy); }));
  OpBuilder gradient = t.add("max_pool_grad");
  gradient.doc("The gradient of max_pool: dy of each window goes to the element whose number `indices` has.")
      .input("dy", Accepts::Float)
      .input_free("indices", Accepts::Index)
      .attr("shape", AttrKind::Shape, "x's shape.");
  pool_attrs(gradient)
      .infer(infer_pool_grad)
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Shape& x = shape_attr(n, "shape");
        const Expr zero = loops::zero(compute_type(n.in(0).dtype()));
        const Expr mine = spatial_number(n, e, x, coords);
        return over_positions(n, e, x, coords, [&](std::span<const Expr> at, const Expr& valid) {
          const Expr index = element(e, n, 1, at, valid, loops::constant(n.in(1).dtype(), std::int64_t{-1}));
          return loops::select(loops::cast(DType::I64, index) == mine, element(e, n, 0, at, valid, zero),
                               zero);
        });
      });
}

}  // namespace

void add_pool_ops(OpTable& t) {
  add_sums(t);
  add_sum_gradients(t);
  add_maxima(t);
}

}  // namespace deepseek
