// Ops that only renumber elements: each output element is one input element.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "ops/shape_ops.h"

namespace deepseek {

Expr inside(const Expr& x, const Expr& d) { return Expr(0) <= x && x < d; }

namespace {

// A run of dims [from_begin, from_end) that holds the same elements as [to_begin, to_end).
struct Run {
  std::size_t from_begin, from_end, to_begin, to_end;
};

Dim product(const Shape& s, std::size_t begin, std::size_t end) {
  Dim p(1);
  for (std::size_t i = begin; i < end; ++i) p = p * s[i];
  return p;
}

// The shortest run that starts at (i, j); everything that is left when no two products agree.
Run next_run(const Shape& from, const Shape& to, std::size_t i, std::size_t j) {
  for (std::size_t total = 2; total <= from.size() - i + to.size() - j; ++total)
    for (std::size_t a = 1; a < total; ++a) {
      const std::size_t b = total - a;
      if (i + a > from.size() || j + b > to.size()) continue;
      if (product(from, i, i + a) == product(to, j, j + b)) return {i, i + a, j, j + b};
    }
  return {i, from.size(), j, to.size()};
}

// The number of x's element in the box of dims [begin, end).
Expr flatten(Elements& e, const Shape& s, std::span<const Expr> coords, std::size_t begin, std::size_t end) {
  Expr flat(0);
  for (std::size_t i = begin; i < end; ++i) flat = flat * e.dim(s[i]) + coords[i];
  return flat;
}

}  // namespace

std::vector<Expr> reshape_coords(Elements& e, const Shape& from, const Shape& to,
                                 std::span<const Expr> coords) {
  std::vector<Expr> result(from.size(), Expr(0));
  std::size_t i = 0, j = 0;
  while (true) {
    while (i < from.size() && from[i] == Dim(1)) ++i;
    while (j < to.size() && to[j] == Dim(1)) ++j;
    if (i == from.size() || j == to.size()) break;
    const Run run = next_run(from, to, i, j);
    Expr flat = flatten(e, to, coords, run.to_begin, run.to_end);
    std::size_t leading = run.from_begin;
    while (leading + 1 < run.from_end && from[leading] == Dim(1)) ++leading;
    for (std::size_t k = run.from_end; k-- > run.from_begin;) {
      if (from[k] == Dim(1)) continue;
      result[k] = k == leading ? flat : loops::mod(flat, e.dim(from[k]));
      if (k != leading) flat = loops::floordiv(flat, e.dim(from[k]));
    }
    i = run.from_end;
    j = run.to_end;
  }
  return result;
}

namespace {

void add_reshape(OpTable& t) {
  t.add("reshape")
      .doc("The same elements in row-major order under another shape of as many elements.")
      .input("x")
      .attr("shape", AttrKind::Shape, "The result's shape, exactly.")
      .infer([](const Node& n) {
        const Shape& shape = shape_attr(n, "shape");
        for (const Dim& d : shape)
          if (d.is_static() && d.value() < 0) bad_input(n, "a shape without negative dims", str(shape));
        if (!may_equal(numel(n.in(0).shape()), numel(shape)))
          bad_input(n, "a shape of " + numel(n.in(0).shape()).str() + " elements", str(shape));
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Shape& from = n.in(0).shape();
        const Shape& to = shape_attr(n, "shape");
        if (!(numel(from) == numel(to)))
          e.require(e.dim(numel(from)) == e.dim(numel(to)),
                    "reshape: " + str(from) + " and " + str(to) + " have different numbers of elements");
        return e.in(0, reshape_coords(e, from, to, coords));
      })
      .gradient(unary_gradient(
          [](GraphBuilder& g, const Node& n, Value dy) { return g.reshape(dy, n.in(0).shape()); }));
  const auto reshaping = [&t](std::string name, std::string doc, std::function<Shape(const Node&)> shape) {
    OpBuilder b = t.add(std::move(name));
    b.doc(std::move(doc)).input("x");
    b.infer([shape](const Node& n) { return std::vector<Type>{{n.in(0).dtype(), shape(n)}}; });
    b.composed([shape](Graph& g, const Node& n) {
      return std::vector<Value>{GraphBuilder(g).reshape(n.in(0), shape(n))};
    });
    b.gradient(unary_gradient(
        [](GraphBuilder& g, const Node& n, Value dy) { return g.reshape(dy, n.in(0).shape()); }));
    return b;
  };
  reshaping("squeeze", "x without the axes given, all of size 1; without any size-1 axis when none is given.",
            [](const Node& n) {
              Shape shape;
              const auto axes = normalize_axes(n, ints(n, "axes"), n.in(0).rank());
              for (int i = 0; i < n.in(0).rank(); ++i) {
                const Dim& d = n.in(0).dim(i);
                const bool named = std::find(axes.begin(), axes.end(), i) != axes.end();
                if (named && d.is_static() && d.value() != 1)
                  bad_input(n, "size 1 on axis " + std::to_string(i), str(n.in(0).type()));
                if (!named && !(axes.empty() && d == Dim(1))) shape.push_back(d);
              }
              return shape;
            })
      .attr("axes", AttrKind::Ints, std::vector<std::int64_t>{}, "Which axes to drop.");
  reshaping("unsqueeze", "x with axes of size 1 put in.", [](const Node& n) {
    const int rank = n.in(0).rank() + static_cast<int>(ints(n, "axes").size());
    const auto axes = normalize_axes(n, ints(n, "axes"), rank);
    Shape shape = n.in(0).shape();
    for (const int a : axes) shape.insert(shape.begin() + a, Dim(1));
    return shape;
  }).attr("axes", AttrKind::Ints, "Where the new axes stand in the result.");
  reshaping("flatten", "x as a matrix: the axes before `axis` become one, those from it on the other.",
            [](const Node& n) {
              const int rank = n.in(0).rank();
              const std::int64_t axis =
                  integer(n, "axis") < 0 ? integer(n, "axis") + rank : integer(n, "axis");
              if (axis < 0 || axis > rank)
                bad_input(n, "an axis in [0, " + std::to_string(rank) + "]", std::to_string(axis));
              const Shape& s = n.in(0).shape();
              return Shape{product(s, 0, static_cast<std::size_t>(axis)),
                           product(s, static_cast<std::size_t>(axis), s.size())};
            })
      .attr("axis", AttrKind::Int, std::int64_t{1}, "The first axis of the second dim.");
}

void add_transpose(OpTable& t) {
  t.add("transpose")
      .doc("Axis i of the result is axis perm[i] of x.")
      .input("x")
      .attr("perm", AttrKind::Ints, "A permutation of the axes.")
      .infer([](const Node& n) {
        const auto& perm = ints(n, "perm");
        if (static_cast<int>(perm.size()) != n.in(0).rank() ||
            static_cast<int>(normalize_axes(n, perm, n.in(0).rank()).size()) != n.in(0).rank())
          bad_input(n, "a permutation of " + std::to_string(n.in(0).rank()) + " axes",
                    std::to_string(perm.size()));
        Shape shape;
        for (const std::int64_t a : perm) shape.push_back(n.in(0).dim(static_cast<int>(a)));
        return std::vector<Type>{{n.in(0).dtype(), shape}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const auto& perm = ints(n, "perm");
        std::vector<Expr> source(coords.size());
        for (std::size_t i = 0; i < coords.size(); ++i)
          source[static_cast<std::size_t>(normalize_axis(n, perm[i], n.in(0).rank()))] = coords[i];
        return e.in(0, source);
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        const auto& perm = ints(n, "perm");
        std::vector<std::int64_t> inverse(perm.size());
        for (std::size_t i = 0; i < perm.size(); ++i)
          inverse[static_cast<std::size_t>(normalize_axis(n, perm[i], n.in(0).rank()))] =
              static_cast<std::int64_t>(i);
        return g.transpose(dy, std::move(inverse));
      }));
}

void add_broadcast(OpTable& t) {
  t.add("broadcast_to")
      .doc("x repeated along axes of size 1 and along new leading axes, as NumPy broadcasts.")
      .input("x")
      .attr("shape", AttrKind::Shape, "The result's shape.")
      .infer([](const Node& n) {
        const Shape& to = shape_attr(n, "shape");
        const Shape& from = n.in(0).shape();
        bool fits = from.size() <= to.size();
        for (std::size_t i = 0; fits && i < from.size(); ++i)
          fits = from[i] == Dim(1) || may_equal(from[i], to[to.size() - from.size() + i]);
        if (!fits) bad_input(n, "a shape that " + str(from) + " broadcasts to", str(to));
        return std::vector<Type>{{n.in(0).dtype(), to}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Shape& from = n.in(0).shape();
        std::vector<Expr> source;
        for (std::size_t i = 0; i < from.size(); ++i)
          source.push_back(from[i] == Dim(1) ? Expr(0) : coords[coords.size() - from.size() + i]);
        return e.in(0, source);
      })
      .gradient(unary_gradient(
          [](GraphBuilder& g, const Node& n, Value dy) { return unbroadcast(g.graph(), dy, n.in(0)); }));
}

// Size of [start, limit) in steps; start >= limit for negative steps.
Dim steps_between(const Dim& start, const Dim& limit, std::int64_t step) {
  return step > 0 ? ceildiv(limit - start, Dim(step)) : ceildiv(start - limit, Dim(-step));
}

std::vector<Type> infer_slice(const Node& n) {
  const Shape &starts = shape_attr(n, "starts"), &limits = shape_attr(n, "limits");
  const auto& steps = ints(n, "steps");
  const auto rank = static_cast<std::size_t>(n.in(0).rank());
  if (starts.size() != rank || limits.size() != rank || steps.size() != rank)
    bad_input(n, std::to_string(rank) + " starts, limits and steps",
              str(starts) + ", " + str(limits) + ", " + str(steps));
  Shape shape;
  for (std::size_t i = 0; i < rank; ++i) {
    const Dim &d = n.in(0).shape()[i], &start = starts[i], &limit = limits[i];
    if (steps[i] == 0 || steps[i] == std::numeric_limits<std::int64_t>::min())
      bad_input(n, "steps other than 0 and -2^63", str(steps));
    const bool up = steps[i] > 0;
    const auto fail = [&] {
      bad_input(n,
                up ? "0 <= start <= limit <= " + d.str()
                   : "-1 <= limit <= start < " + d.str() + " for a negative step",
                "start " + start.str() + ", limit " + limit.str() + " on axis " + std::to_string(i));
    };
    const Dim &low = up ? start : limit, &high = up ? limit : start;
    const bool nothing_of_nothing = !up && low == high && d == Dim(0);
    if (!may_be_at_most(up ? 0 : -1, low) || !may_be_at_most(low, high) ||
        (!nothing_of_nothing && !may_be_at_most(high, up ? d : d - 1)))
      fail();
    shape.push_back(steps_between(start, limit, steps[i]));
  }
  return {{n.in(0).dtype(), shape}};
}

Value slice_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const Shape& starts = shape_attr(n, "starts");
  const auto& steps = ints(n, "steps");
  std::vector<std::int64_t> reversed;
  Shape low, high;
  std::vector<std::int64_t> inner;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::int64_t step = steps[i];
    const Dim &d = n.in(0).shape()[i], &count = n.outputs[0].shape[i];
    if (step < 0) reversed.push_back(static_cast<std::int64_t>(i));
    // Where the first element in ascending order comes from, and how far the last one is from the end.
    const Dim first = step > 0 ? starts[i] : starts[i] + (count - 1) * Dim(step);
    const Dim size = std::abs(step) == 1 ? count : max(Dim(0), (count - 1) * Dim(std::abs(step)) + 1);
    low.push_back(first);
    high.push_back(d - first - size);
    inner.push_back(std::abs(step) - 1);
  }
  if (!reversed.empty()) dy = g.reverse(dy, reversed);
  return g.op("pad", {dy}, {{"low", low}, {"high", high}, {"inner", inner}});
}

void add_slice(OpTable& t) {
  t.add("slice")
      .doc(
          "x[start:limit:step] on every axis. A positive step takes 0 <= start <= limit <= dim; a negative "
          "one counts down from start to above limit, which may be -1.")
      .input("x")
      .attr("starts", AttrKind::Shape, "The first coordinate taken, by axis.")
      .attr("limits", AttrKind::Shape, "Where to stop, by axis, itself not taken.")
      .attr("steps", AttrKind::Ints, "The distance between coordinates taken, by axis.")
      .infer(infer_slice)
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        const Shape& starts = shape_attr(n, "starts");
        const auto& steps = ints(n, "steps");
        std::vector<Expr> source;
        for (std::size_t i = 0; i < coords.size(); ++i)
          source.push_back(e.dim(starts[i]) + coords[i] * Expr(steps[i]));
        return e.in(0, source);
      })
      .gradient(unary_gradient(slice_gradient));
  t.add("reverse")
      .doc("x in reverse order along the axes given.")
      .input("x")
      .attr("axes", AttrKind::Ints, "Which axes to turn over.")
      .infer([](const Node& n) {
        normalize_axes(n, ints(n, "axes"), n.in(0).rank());
        return same_as()(n);
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        std::vector<Expr> source(coords.begin(), coords.end());
        for (const int a : normalize_axes(n, ints(n, "axes"), n.in(0).rank())) {
          auto& c = source[static_cast<std::size_t>(a)];
          c = e.dim(n.in(0).dim(a)) - Expr(1) - c;
        }
        return e.in(0, source);
      })
      .gradient(unary_gradient(
          [](GraphBuilder& g, const Node& n, Value dy) { return g.reverse(dy, ints(n, "axes")); }));
}

}  // namespace

void add_view_ops(OpTable& t) {
  add_reshape(t);
  add_transpose(t);
  add_broadcast(t);
  add_slice(t);
}

}  // namespace deepseek
