// Normalisations, composed of simpler ops. Statistics are computed in float32 where x is narrower.
#include <limits>

#include "ops/entries.h"

namespace deepseek {
namespace {

std::vector<Value> one(Value v) { return {v}; }

int axis_of(const Node& n) { return normalize_axis(n, integer(n, "axis"), n.in(0).rank()); }

// -- softmax
// -------------------------------------------------------------------------------------------------

InferFn along_axis() {
  return [](const Node& n) {
    axis_of(n);
    return same_as()(n);
  };
}

void add_softmax(OpTable& t) {
  t.add("softmax")
      .doc("exp(x) / sum(exp(x)) along an axis, without overflow.")
      .input("x", Accepts::Float)
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The axis that sums to 1.")
      .attr("masked", AttrKind::Bool, false, "Whether a row that is -inf throughout gives 0 instead of NaN.")
      .infer(along_axis())
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const std::int64_t axis = axis_of(n);
        const Value x = g.widen(n.in(0));
        const bool masked = flag(n, "masked");
        Value top = g.max(x, {axis}, true);
        if (masked) top = g.select(g.equal(top, -std::numeric_limits<double>::infinity()), 0.0, top);
        const Value e = g.exp(g.sub(x, top));
        Value total = g.sum(e, {axis}, true);
        if (masked) total = g.select(g.equal(total, 0), 1.0, total);
        return one(g.cast(g.mul(e, g.op("reciprocal", {total})), n.in(0).dtype()));
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        const std::int64_t axis = axis_of(n);
        const Value y = g.widen(n.out()), d = g.widen(dy);
        const Value mean = g.sum(g.mul(d, y), {axis}, true);
        return g.cast(g.mul(g.sub(d, mean), y), n.in(0).dtype());
      }));
  t.add("log_softmax")
      .doc("log(softmax(x)) along an axis, without overflow.")
      .input("x", Accepts::Float)
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The axis whose exponentials sum to 1.")
      .infer(along_axis())
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const std::int64_t axis = axis_of(n);
        const Value x = g.widen(n.in(0));
        const Value centred = g.sub(x, g.max(x, {axis}, true));
        const Value total = g.log(g.sum(g.exp(centred), {axis}, true));
        return one(g.cast(g.sub(centred, total), n.in(0).dtype()));
      })
      .gradient(unary_gradient([](GraphBuilder& g, const Node& n, Value dy) {
        const Value d = g.widen(dy);
        const Value total = g.sum(d, {axis_of(n)}, true);
        return g.cast(g.sub(d, g.mul(g.exp(g.widen(n.out())), total)), n.in(0).dtype());
      }));
}

// -- layer_norm, rms_norm
// ------------------------------------------------------------------------------------

// x's shape with the axes from `first` on at size 1.
Shape statistics_shape(const Node& n, int first) {
  Shape shape = n.in(0).shape();
  for (std::size_t i = static_cast<std::size_t>(first); i < shape.size(); ++i) shape[i] = Dim(1);
  return shape;
}

void check_broadcasts(const Node& n, int input) {
  if (!n.has(input)) return;
  const auto joined = broadcast_assuming(n.in(0).shape(), n.in(input).shape());
  if (!joined || joined->size() != n.in(0).shape().size())
    bad_input(n,
              "'" + n.op->inputs[static_cast<std::size_t>(input)].name + "' that broadcasts to " +
                  str(n.in(0).shape()),
              str(n.in(input).type()));
}

// Gradient of centred (or, for rms, plain) normalisation: xhat = (x - mean) * r over `axes`, given d = dy *
// scale.
Value normalized_gradient(GraphBuilder& g, Value d, Value xhat, Value r,
                          const std::vector<std::int64_t>& axes, bool centred) {
  const Value along = g.mul(xhat, g.mean(g.mul(d, xhat), axes, true));
  const Value rest = centred ? g.sub(d, g.mean(d, axes, true)) : d;
  return g.mul(g.sub(rest, along), r);
}

std::vector<Value> affine(GraphBuilder& g, const Node& n, Value xhat, int scale, int bias) {
  Value y = xhat;
  if (n.has(scale)) y = g.mul(y, g.widen(n.in(scale)));
  if (bias > 0 && n.has(bias)) y = g.add(y, g.widen(n.in(bias)));
  return {g.cast(y, n.in(0).dtype())};
}

std::vector<Value> layer_norm(Graph& graph, const Node& n) {
  GraphBuilder g(graph);
  const auto axes = axes_range(axis_of(n), n.in(0).rank());
  const Value x = g.widen(n.in(0));
  const Value mean = g.mean(x, axes, true);
  const Value centred = g.sub(x, mean);
  const Value r = g.rsqrt(g.add(g.mean(g.square(centred), axes, true), number(n, "epsilon")));
  std::vector<Value> result = affine(g, n, g.mul(centred, r), 1, 2);
  result.push_back(mean);
  result.push_back(r);
  return result;
}

std::vector<Value> layer_norm_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                       const std::vector<bool>& needed) {
  std::vector<Value> result(n.inputs.size());
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const bool centred = n.op->name == "layer_norm";
  const auto axes = axes_range(axis_of(n), n.in(0).rank());
  const Value x = g.widen(n.in(0)), d = g.widen(dys[0]);
  const Value r = n.out(centred ? 2 : 1);
  const Value xhat = g.mul(centred ? g.sub(x, n.out(1)) : x, r);
  if (needed[0]) {
    const Value scaled = n.has(1) ? g.mul(d, g.widen(n.in(1))) : d;
    result[0] = g.cast(normalized_gradient(g, scaled, xhat, r, axes, centred), n.in(0).dtype());
  }
  if (n.has(1) && needed[1]) result[1] = g.cast(unbroadcast(graph, g.mul(d, xhat), n.in(1)), n.in(1).dtype());
  if (n.has(2) && needed[2]) result[2] = g.cast(unbroadcast(graph, d, n.in(2)), n.in(2).dtype());
  return result;
}

void add_layer_norms(OpTable& t) {
  t.add("layer_norm")
      .doc(
          "(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes from `axis` on (Ba et al., "
          "2016). Also the mean and 1 / sqrt(variance + epsilon), with the normalised axes at size 1.")
      .input("x", Accepts::Float)
      .input_optional("scale", Accepts::Float, true)
      .input_optional("bias", Accepts::Float, true)
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The first normalised axis.")
      .attr("epsilon", AttrKind::Float, 1e-5, "Added to the variance.")
      .infer([](const Node& n) {
        check_broadcasts(n, 1);
        check_broadcasts(n, 2);
        const Type statistics{compute_type(n.in(0).dtype()), statistics_shape(n, axis_of(n))};
        return std::vector<Type>{n.in(0).type(), statistics, statistics};
      })
      .composed(layer_norm)
      .gradient(layer_norm_gradient);
  t.add("rms_norm")
      .doc(
          "x / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` on (Zhang and Sennrich, 2019). "
          "Also 1 / sqrt(mean(x^2) + epsilon), with the normalised axes at size 1.")
      .input("x", Accepts::Float)
      .input_optional("scale", Accepts::Float, true)
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The first normalised axis.")
      .attr("epsilon", AttrKind::Float, 1e-5, "Added to the mean square.")
      .infer([](const Node& n) {
        check_broadcasts(n, 1);
        return std::vector<Type>{n.in(0).type(),
                                 {compute_type(n.in(0).dtype()), statistics_shape(n, axis_of(n))}};
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const auto axes = axes_range(axis_of(n), n.in(0).rank());
        const Value x = g.widen(n.in(0));
        const Value r = g.rsqrt(g.add(g.mean(g.square(x), axes, true), number(n, "epsilon")));
        std::vector<Value> result = affine(g, n, g.mul(x, r), 1, 0);
        result.push_back(r);
        return result;
      })
      .gradient(layer_norm_gradient);
}

// -- batch_norm
// ----------------------------------------------------------------------------------------------

void check_channels(const Node& n, int first, int last) {
  const Dim& channels = n.in(0).dim(axis_of(n));
  for (int i = first; i <= last; ++i)
    if (n.has(i) && (n.in(i).rank() != 1 || !may_equal(n.in(i).dim(0), channels)))
      bad_input(n, "'" + n.op->inputs[static_cast<std::size_t>(i)].name + "' [" + channels.str() + "]",
                str(n.in(i).type()));
}

// A vector by channel, in the type statistics have, ready to broadcast with x.
Value by_channel(GraphBuilder& g, const Node& n, Value v) {
  return g.along_axis(g.widen(v), axis_of(n), n.in(0).rank());
}

std::vector<Value> batch_norm(Graph& graph, const Node& n) {
  GraphBuilder g(graph);
  // y = x * factor + offset: factor and offset derive from parameters alone, so they fold into what makes x.
  Value factor = g.rsqrt(g.add(g.widen(n.in(4)), number(n, "epsilon")));
  if (n.has(1)) factor = g.mul(factor, g.widen(n.in(1)));
  const Value shift = g.mul(g.widen(n.in(3)), factor);
  const Value offset = n.has(2) ? g.sub(g.widen(n.in(2)), shift) : g.neg(shift);
  const Value y = g.add(g.mul(g.widen(n.in(0)), by_channel(g, n, factor)), by_channel(g, n, offset));
  return one(g.cast(y, n.in(0).dtype()));
}

std::vector<Value> batch_norm_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                       const std::vector<bool>& needed) {
  std::vector<Value> result(n.inputs.size());
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const auto others = axes_except(n.in(0).rank(), axis_of(n));
  const auto total = [&](Value v) { return others.empty() ? v : g.sum(v, others, false); };
  const Value d = g.widen(dys[0]), x = g.widen(n.in(0));
  const Value r = g.rsqrt(g.add(g.widen(n.in(4)), number(n, "epsilon")));
  const Value scale = n.has(1) ? g.widen(n.in(1)) : Value();
  const Value factor = scale ? g.mul(r, scale) : r;
  const auto give = [&](int i, Value v) { result[static_cast<std::size_t>(i)] = g.cast(v, n.in(i).dtype()); };
  if (needed[0]) give(0, g.mul(d, by_channel(g, n, factor)));
  if (n.has(2) && needed[2]) give(2, total(d));
  if (needed[3]) give(3, g.neg(g.mul(total(d), factor)));
  if ((n.has(1) && needed[1]) || needed[4]) {
    const Value along = total(g.mul(d, g.sub(x, by_channel(g, n, n.in(3)))));
    if (n.has(1) && needed[1]) give(1, g.mul(along, r));
    if (needed[4]) give(4, g.mul(g.mul(along, factor), g.mul(g.square(r), -0.5)));
  }
  return result;
}

std::vector<Value> batch_norm_training(Graph& graph, const Node& n) {
  GraphBuilder g(graph);
  const auto others = axes_except(n.in(0).rank(), axis_of(n));
  const Value x = g.widen(n.in(0));
  const auto average = [&](Value v) { return others.empty() ? v : g.mean(v, others, false); };
  const Value mean = average(x);
  const Value centred = g.sub(x, by_channel(g, n, mean));
  const Value variance = average(g.square(centred));
  const Value r = g.rsqrt(g.add(variance, number(n, "epsilon")));
  Value y = g.mul(centred, by_channel(g, n, r));
  if (n.has(1)) y = g.mul(y, by_channel(g, n, n.in(1)));
  if (n.has(2)) y = g.add(y, by_channel(g, n, n.in(2)));
  return {g.cast(y, n.in(0).dtype()), mean, variance, r};
}

std::vector<Value> batch_norm_training_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                                const std::vector<bool>& needed) {
  std::vector<Value> result(n.inputs.size());
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const auto others = axes_except(n.in(0).rank(), axis_of(n));
  const auto total = [&](Value v) { return others.empty() ? v : g.sum(v, others, false); };
  const Value d = g.widen(dys[0]);
  const Value r = by_channel(g, n, n.out(3));
  const Value xhat = g.mul(g.sub(g.widen(n.in(0)), by_channel(g, n, n.out(1))), r);
  if (needed[0]) {
    const Value scaled = n.has(1) ? g.mul(d, by_channel(g, n, n.in(1))) : d;
    result[0] = others.empty()
                    ? g.full_like(n.in(0), 0.0)
                    : g.cast(normalized_gradient(g, scaled, xhat, r, others, true), n.in(0).dtype());
  }
  if (n.has(1) && needed[1]) result[1] = g.cast(total(g.mul(d, xhat)), n.in(1).dtype());
  if (n.has(2) && needed[2]) result[2] = g.cast(total(d), n.in(2).dtype());
  return result;
}

void add_batch_norms(OpTable& t) {
  t.add("batch_norm")
      .doc(
          "(x - mean) / sqrt(variance + epsilon) * scale + bias by channel, with the statistics given "
          "(Ioffe and Szegedy, 2015).")
      .input("x", Accepts::Float)
      .input_optional("scale", Accepts::Float, true)
      .input_optional("bias", Accepts::Float, true)
      .input_free("mean", Accepts::Float)
      .input_free("variance", Accepts::Float)
      .attr("axis", AttrKind::Int, std::int64_t{1}, "The channel axis.")
      .attr("epsilon", AttrKind::Float, 1e-5, "Added to the variance.")
      .infer([](const Node& n) {
        check_channels(n, 1, 4);
        return same_as()(n);
      })
      .composed(batch_norm)
      .gradient(batch_norm_gradient);
  t.add("batch_norm_training")
      .doc(
          "batch_norm with the statistics of this batch. Also the mean, the variance (over the count, not "
          "count - 1) and 1 / sqrt(variance + epsilon), by channel.")
      .input("x", Accepts::Float)
      .input_optional("scale", Accepts::Float, true)
      .input_optional("bias", Accepts::Float, true)
      .attr("axis", AttrKind::Int, std::int64_t{1}, "The channel axis.")
      .attr("epsilon", AttrKind::Float, 1e-5, "Added to the variance.")
      .infer([](const Node& n) {
        check_channels(n, 1, 2);
        const Type statistics{compute_type(n.in(0).dtype()), Shape{n.in(0).dim(axis_of(n))}};
        return std::vector<Type>{n.in(0).type(), statistics, statistics, statistics};
      })
      .composed(batch_norm_training)
      .gradient(batch_norm_training_gradient);
}

}  // namespace

void add_norm_ops(OpTable& t) {
  add_softmax(t);
  add_layer_norms(t);
  add_batch_norms(t);
}

}  // namespace deepseek
