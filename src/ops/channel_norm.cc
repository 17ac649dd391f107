// Normalisations over groups of channels; x is [N, C, ...].
#include "ops/entries.h"

namespace deepseek {
namespace {

// A vector by channel, ready to broadcast with [N, C, ...].
Value by_channel(GraphBuilder& g, const Node& n, Value v) {
  return g.along_axis(g.widen(v), 1, n.in(0).rank());
}

void check_image(const Node& n) {
  if (n.in(0).rank() < 2) bad_input(n, "x [N, C, ...]", str(n.in(0).type()));
  for (int i = 1; i < static_cast<int>(n.inputs.size()); ++i)
    if (n.has(i) && (n.in(i).rank() != 1 || !may_equal(n.in(i).dim(0), n.in(0).dim(1))))
      bad_input(n, "'" + n.op->inputs[static_cast<std::size_t>(i)].name + "' [" + n.in(0).dim(1).str() + "]",
                str(n.in(i).type()));
}

// Groups of channels as rows: [N, groups, C / groups * ...].
std::vector<Value> normalize_groups(Graph& graph, const Node& n, const Dim& groups) {
  GraphBuilder g(graph);
  const Value x = g.widen(n.in(0));
  const Dim inner = numel(Shape(x.shape().begin() + 2, x.shape().end()));
  const Value rows = g.reshape(x, {x.dim(0), groups, floordiv(x.dim(1), groups) * inner});
  const Value mean = g.mean(rows, {2}, true);
  const Value centred = g.sub(rows, mean);
  const Value r = g.rsqrt(g.add(g.mean(g.square(centred), {2}, true), number(n, "epsilon")));
  Value y = g.reshape(g.mul(centred, r), x.shape());
  if (n.has(1)) y = g.mul(y, by_channel(g, n, n.in(1)));
  if (n.has(2)) y = g.add(y, by_channel(g, n, n.in(2)));
  return {g.cast(y, n.in(0).dtype()), g.squeeze(mean, 2), g.squeeze(r, 2)};
}

Dim groups_of(const Node& n) {
  return n.op->name == "instance_norm" ? n.in(0).dim(1) : Dim(integer(n, "groups"));
}

OpBuilder group_op(OpTable& t, std::string name, std::string doc) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc) + " Also the mean and 1 / sqrt(variance + epsilon) by group, [N, groups].")
      .input("x", Accepts::Float)
      .input_optional("scale", Accepts::Float, true)
      .input_optional("bias", Accepts::Float, true)
      .attr("epsilon", AttrKind::Float, 1e-5, "Added to the variance.")
      .infer([](const Node& n) {
        check_image(n);
        const Dim groups = groups_of(n), &channels = n.in(0).dim(1);
        if (groups.is_static() &&
            (groups.value() < 1 || (channels.is_static() && channels.value() % groups.value() != 0)))
          bad_input(n, "groups that divide " + channels.str() + " channels", groups.str());
        const Type statistics{compute_type(n.in(0).dtype()), {n.in(0).dim(0), groups}};
        return std::vector<Type>{n.in(0).type(), statistics, statistics};
      })
      .composed([](Graph& g, const Node& n) { return normalize_groups(g, n, groups_of(n)); });
  return b;
}

}  // namespace

void add_channel_norm_ops(OpTable& t) {
  group_op(t, "group_norm",
           "x [N, C, ...] normalised over groups of channels and all positions (Wu and He, 2018), times "
           "scale plus bias by channel.")
      .attr("groups", AttrKind::Int, "How many groups.");
  group_op(t, "instance_norm",
           "x [N, C, ...] normalised over all positions of a channel (Ulyanov et al., 2016), times "
           "scale plus bias by channel.");
  t.add("lrn")
      .doc(
          "x / (k + alpha / size * sum of squares over `size` neighbouring channels)^beta for x [N, C, ...] "
          "(Krizhevsky et al., 2012).")
      .input("x", Accepts::Float)
      .attr("size", AttrKind::Int, "How many channels.")
      .attr("alpha", AttrKind::Float, 1e-4, "")
      .attr("beta", AttrKind::Float, 0.75, "")
      .attr("k", AttrKind::Float, 1.0, "")
      .infer([](const Node& n) {
        check_image(n);
        if (integer(n, "size") < 1) bad_input(n, "a size of at least 1", std::to_string(integer(n, "size")));
        return same_as()(n);
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const Value x = g.widen(n.in(0));
        const std::int64_t size = integer(n, "size");
        using List = std::vector<std::int64_t>;
        const Dim inner = numel(Shape(x.shape().begin() + 2, x.shape().end()));
        // Channels as the spatial dim of an image with one channel.
        const Value squares = g.reshape(g.square(x), {x.dim(0), Dim(1), x.dim(1), inner});
        const Value sums = g.op("sum_pool", {squares},
                                {{"window", List{size, 1}},
                                 {"pad_low", List{(size - 1) / 2, 0}},
                                 {"pad_high", List{size / 2, 0}}});
        const double alpha = number(n, "alpha") / static_cast<double>(size);
        const Value base = g.add(g.mul(g.reshape(sums, x.shape()), alpha), number(n, "k"));
        return std::vector<Value>{g.cast(g.div(x, g.pow(base, number(n, "beta"))), n.in(0).dtype())};
      });
}

}  // namespace deepseek
