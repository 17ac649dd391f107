// Attention and rotary embeddings, composed of simpler ops.
#include <cmath>
#include <limits>

#include "ops/entries.h"

namespace deepseek {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<Type> infer_attention(const Node& n) {
  const Value q = n.in(0), k = n.in(1), v = n.in(2);
  const auto fail = [&] {
    bad_input(n, "q [B, H, S, D], k [B, G, T, D], v [B, G, T, E], G dividing H",
              str(q.type()) + ", " + str(k.type()) + ", " + str(v.type()));
  };
  if (q.rank() != 4 || k.rank() != 4 || v.rank() != 4) fail();
  if (!may_equal(q.dim(0), k.dim(0)) || !may_equal(k.dim(0), v.dim(0)) || !may_equal(k.dim(1), v.dim(1)) ||
      !may_equal(k.dim(2), v.dim(2)) || !may_equal(q.dim(3), k.dim(3)))
    fail();
  const Dim &heads = q.dim(1), &groups = k.dim(1);
  if (heads.is_static() && groups.is_static() && (groups.value() == 0 || heads.value() % groups.value() != 0))
    fail();
  if (shape_attr(n, "causal_offset").size() != 1)
    bad_input(n, "one causal_offset", str(shape_attr(n, "causal_offset")));
  if (n.has(3)) {
    const Value mask = n.in(3);
    const Shape scores = {q.dim(0), heads, q.dim(2), k.dim(2)};
    const auto joined = broadcast_assuming(scores, mask.shape());
    if (!joined || joined->size() != 4)
      bad_input(n, "a mask that broadcasts to " + str(scores), str(mask.type()));
    if (mask.dtype() != DType::Bool && mask.dtype() != q.dtype())
      bad_input(n, "a mask of bool or " + std::string(name(q.dtype())), str(mask.type()));
  }
  return {{q.dtype(), {q.dim(0), heads, q.dim(2), v.dim(3)}}};
}

// [B, H, S, D] x [B, G, D, T] -> [B, H, S, T]; heads h*H/G ... share key head h.
Value grouped_matmul(GraphBuilder& g, Value a, Value b) {
  if (a.dim(1) == b.dim(1)) return g.matmul(a, b);
  const Dim groups = b.dim(1), each = floordiv(a.dim(1), groups);
  const Value x = g.reshape(a, {a.dim(0), groups, each, a.dim(2), a.dim(3)});
  const Value y = g.reshape(b, {b.dim(0), groups, Dim(1), b.dim(2), b.dim(3)});
  return g.reshape(g.matmul(x, y), {a.dim(0), a.dim(1), a.dim(2), b.dim(3)});
}

std::vector<Value> attention(Graph& graph, const Node& n) {
  GraphBuilder g(graph);
  const Value q = n.in(0), k = n.in(1), v = n.in(2);
  Value scores = g.widen(grouped_matmul(g, q, g.swap_last_two(k)));
  const DType wide = scores.dtype();
  if (const double scale = number(n, "scale"); scale != 0)
    scores = g.mul(scores, scale);
  else
    scores = g.mul(scores, g.rsqrt(g.dim(q.dim(3), wide)));
  if (const double cap = number(n, "softcap"); cap > 0) scores = g.mul(g.tanh(g.mul(scores, 1 / cap)), cap);
  bool masked = false;
  if (n.has(3)) {
    const Value mask = n.in(3);
    scores =
        mask.dtype() == DType::Bool ? g.select(mask, scores, -kInfinity) : g.add(scores, g.cast(mask, wide));
    masked = true;
  }
  if (flag(n, "causal")) {
    const Dim &queries = q.dim(2), &keys = k.dim(2), &offset = shape_attr(n, "causal_offset")[0];
    Value last = g.iota({queries, Dim(1)}, DType::I64, 0);
    if (!(offset == Dim(0))) last = g.add(last, g.dim(offset, DType::I64));
    scores = g.select(g.less_equal(g.iota({Dim(1), keys}, DType::I64, 1), last), scores, -kInfinity);
    masked = masked || !offset.is_static() || offset.value() < 0;
  }
  const Value weights = g.op("softmax", {scores}, {{"axis", std::int64_t{-1}}, {"masked", masked}});
  return {grouped_matmul(g, g.cast(weights, q.dtype()), v)};
}

void add_rope(OpTable& t) {
  t.add("rope")
      .doc(
          "Rotary position embedding (Su et al., 2021): the first 2*R elements of the last axis are turned "
          "as R pairs by the angles whose cosines and sines [..., R] are given; pairs are (i, i + R), or "
          "neighbours when interleaved; the rest stays.")
      .input("x", Accepts::Float)
      .input("cosine", Accepts::Float)
      .input("sine", Accepts::Float)
      .attr("interleaved", AttrKind::Bool, false, "Whether pairs are neighbours.")
      .infer([](const Node& n) {
        const Value x = n.in(0), c = n.in(1);
        const auto fail = [&] {
          bad_input(n, "cosine and sine [..., R] that broadcast with x [..., 2*R or more]",
                    str(x.type()) + ", " + str(c.type()) + ", " + str(n.in(2).type()));
        };
        if (x.rank() < 1 || c.rank() < 1 || c.rank() > x.rank() || c.shape() != n.in(2).shape()) fail();
        const Dim &size = x.dim(-1), &half = c.dim(-1);
        if (!may_be_at_most(half * 2, size)) fail();
        Shape leading(x.shape().begin(), x.shape().end() - 1);
        const auto joined = broadcast_assuming(leading, Shape(c.shape().begin(), c.shape().end() - 1));
        if (!joined || joined->size() != leading.size()) fail();
        return same_as()(n);
      })
      .composed([](Graph& graph, const Node& n) {
        GraphBuilder g(graph);
        const Value x = n.in(0), cosine = g.widen(n.in(1)), sine = g.widen(n.in(2));
        const int last = x.rank() - 1;
        const Dim half = cosine.dim(-1), turned = half * 2;
        const bool interleaved = flag(n, "interleaved");
        const Value head = g.widen(turned == x.dim(-1) ? x : g.slice(x, last, 0, turned));
        Shape pairs = head.shape();
        pairs.back() = half;
        if (interleaved) pairs.emplace_back(2);
        const auto part = [&](int i) {
          if (!interleaved) return g.slice(head, last, half * Dim(i), half * Dim(i + 1));
          return g.squeeze(g.slice(g.reshape(head, pairs), last + 1, Dim(i), Dim(i + 1)), -1);
        };
        const Value a = part(0), b = part(1);
        const Value real = g.sub(g.mul(a, cosine), g.mul(b, sine)),
                    imaginary = g.add(g.mul(b, cosine), g.mul(a, sine));
        Value y = interleaved
                      ? g.reshape(g.concat({g.unsqueeze(real, -1), g.unsqueeze(imaginary, -1)}, last + 1),
                                  head.shape())
                      : g.concat({real, imaginary}, last);
        y = g.cast(y, x.dtype());
        if (!(turned == x.dim(-1))) y = g.concat({y, g.slice(x, last, turned, x.dim(-1))}, last);
        return std::vector<Value>{y};
      });
}

}  // namespace

void add_attention_ops(OpTable& t) {
  t.add("attention")
      .doc(
          "softmax(q k^T * scale + mask) v over heads (Vaswani et al., 2017): q [B, H, S, D], k [B, G, T, "
          "D], v [B, G, T, E] -> [B, H, S, E]. H/G query heads share a key head. A bool mask says which "
          "keys count, a float mask is added; a query for which none counts gives 0.")
      .input("q", Accepts::Float)
      .input("k", Accepts::Float)
      .input("v", Accepts::Float)
      .input_optional("mask", Accepts::Real, true)
      .attr("causal", AttrKind::Bool, false, "Whether query i sees keys up to i + causal_offset only.")
      .attr("causal_offset", AttrKind::Shape, Shape{Dim(0)},
            "A list of one; with a cache: the keys before query 0.")
      .attr("scale", AttrKind::Float, 0.0, "What scores are multiplied with; 0: 1 / sqrt(D).")
      .attr("softcap", AttrKind::Float, 0.0, "Scores become softcap * tanh(scores / softcap); 0: they stay.")
      .normalize([](Node& n) {
        auto& scale = std::get<double>(n.attrs.at("scale"));
        const Value q = n.in(0);
        if (scale == 0 && q.rank() == 4 && q.dim(3).is_static() && q.dim(3).value() > 0)
          scale = 1 / std::sqrt(static_cast<double>(q.dim(3).value()));
      })
      .infer(infer_attention)
      .composed(attention);
  add_rope(t);
}

}  // namespace deepseek
