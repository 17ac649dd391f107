// Attention and what belongs to it: rotary embeddings, cache updates, linear attention, causal convolution.
#include <cmath>
#include <limits>

#include "import/onnx/window.h"

namespace deepseek::onnx_import {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// [batch, length, heads * size] -> [batch, heads, length, size]
Value split_heads(Context& c, Value x, std::int64_t heads) {
  if (x.rank() != 3) c.bad("rank 3", str(x.type()));
  if (heads < 1) c.bad("a positive number of heads", std::to_string(heads));
  const Dim size = floordiv(x.dim(2), Dim(heads));
  return c.e.transpose(c.e.reshape(x, {x.dim(0), x.dim(1), heads, size}), {0, 2, 1, 3});
}

Value join_heads(Emit& e, Value x) {
  return e.reshape(e.transpose(x, {0, 2, 1, 3}), {x.dim(0), x.dim(2), x.dim(1) * x.dim(3)});
}

// Which keys a query may see, as a mask that broadcasts with [batch, heads, queries, keys]; empty: all.
struct Visible {
  Value allowed;  // Bool
  Value bias;     // added to the scores
};

void restrict(Emit& e, Visible& v, Value allowed) {
  v.allowed = v.allowed ? e.logical_and(v.allowed, allowed) : allowed;
}

// The mask with its last axis as long as the keys: what is missing is not seen.
Value widened_mask(Context& c, Value mask, const Dim& keys) {
  const Dim missing = keys - mask.dim(-1);
  if (missing == Dim(0) || mask.dim(-1) == Dim(1)) return mask;
  Shape low(static_cast<std::size_t>(mask.rank()), Dim(0)), high = low;
  high.back() = missing;
  return c.e.pad(mask, low, high, mask.dtype() == DType::Bool ? 0 : -kInfinity);
}

Visible visible_keys(Context& c, const Dim& queries, const Dim& keys, const Dim& past) {
  Emit& e = c.e;
  Visible v;
  if (c.has(3)) {
    const Value mask = widened_mask(c, c.in(3), keys);
    (mask.dtype() == DType::Bool ? v.allowed : v.bias) = mask;
  }
  const bool causal = c.attr("is_causal", 0) != 0;
  const std::int64_t left = c.attr("left_window_size", -1), right = c.attr("right_window_size", -1);
  const Shape square{queries, keys};
  if (causal || left >= 0 || right >= 0) {
    Value offset = e.dim(past, DType::I64);
    if (c.has(6) && !c.has(4))  // per batch
      offset = e.reshape(e.sub(e.cast(c.in(6), DType::I64), e.dim(queries, DType::I64)),
                         {c.shape(6).at(0), 1, 1, 1});
    const Value query = e.add(e.iota(square, DType::I64, 0), offset), key = e.iota(square, DType::I64, 1);
    if (causal) restrict(e, v, e.less_equal(key, query));
    if (left >= 0) restrict(e, v, e.less_equal(e.sub(query, static_cast<double>(left)), key));
    if (right >= 0) restrict(e, v, e.less_equal(key, e.add(query, static_cast<double>(right))));
  }
  if (c.has(6)) {
    const Value valid = e.reshape(e.cast(c.in(6), DType::I64), {c.shape(6).at(0), 1, 1, 1});
    restrict(e, v, e.less(e.iota(square, DType::I64, 1), valid));
  }
  return v;
}

struct Weights {
  Value biased, probabilities;
};

// softmax(scores + bias) over what is visible; rows that see nothing are zero.
Weights attend(Emit& e, Value scores, const Visible& v, DType precision) {
  Value bias = v.bias;
  if (v.allowed) {
    const Value open = bias ? bias : e.like(0, scores);
    bias = e.select(v.allowed, open, e.like(-kInfinity, scores));
  }
  if (!bias) return {scores, e.cast(e.softmax(e.cast(scores, precision), -1), scores.dtype())};
  Weights w;
  w.biased = e.add(scores, bias);
  const Value blind = e.equal(e.max(bias, {bias.rank() - 1}, true), -kInfinity);
  w.probabilities = e.cast(e.select(blind, 0, e.softmax(e.cast(w.biased, precision), -1)), scores.dtype());
  return w;
}

void attention(Context& c) {
  Emit& e = c.e;
  Value q = c.in(0), k = c.in(1), v = c.in(2);
  const bool joined = q.rank() == 3;
  if (joined) {
    q = split_heads(c, q, c.need_attr("q_num_heads"));
    k = split_heads(c, k, c.need_attr("kv_num_heads"));
    v = split_heads(c, v, c.need_attr("kv_num_heads"));
  }
  if (q.rank() != 4 || k.rank() != 4 || v.rank() != 4)
    c.bad("queries, keys and values of rank 3 or 4", str(q.type()));
  Dim past = 0;
  if (c.has(4)) {
    past = c.shape(4).at(2);
    k = e.concat({c.in(4), k}, 2);
    v = e.concat({c.in(5), v}, 2);
  }
  c.out(1, Item(k));
  c.out(2, Item(v));
  if (!q.dim(3).is_static()) c.ask_for("a static head size", q.dim(3));
  const double scale = c.attr_f("scale", 1 / std::sqrt(static_cast<double>(q.dim(3).value())));
  // Scores of q * sqrt(scale) and k * sqrt(scale) overflow less; groups of query heads share a key head.
  const Dim groups = floordiv(q.dim(1), k.dim(1));
  const bool grouped = !(q.dim(1) == k.dim(1));
  const Shape shape{q.dim(0), q.dim(1), q.dim(2), k.dim(2)};
  const auto shared = [&](Value x) {
    return grouped ? e.reshape(x, {x.dim(0), x.dim(1), 1, x.dim(2), x.dim(3)}) : x;
  };
  const auto spread = [&](Value x) {
    return grouped ? e.reshape(x, {x.dim(0), k.dim(1), groups, x.dim(2), x.dim(3)}) : x;
  };
  const double root = std::sqrt(scale);
  Value scores = e.matmul(e.mul(spread(q), root), e.swap_last_two(e.mul(shared(k), root)));
  scores = e.reshape(scores, shape);
  const std::int64_t mode = c.attr("qk_matmul_output_mode", 0);
  if (mode == 0) c.out(3, Item(scores));
  if (const double cap = c.attr_f("softcap", 0); cap > 0) scores = e.mul(e.tanh(e.div(scores, cap)), cap);
  if (mode == 1) c.out(3, Item(scores));
  const Weights w = attend(e, scores, visible_keys(c, q.dim(2), k.dim(2), past),
                           c.attr_dtype("softmax_precision", scores.dtype()));
  if (mode == 2) c.out(3, Item(w.biased));
  if (mode == 3) c.out(3, Item(w.probabilities));
  const Value y =
      e.reshape(e.matmul(spread(w.probabilities), shared(v)), {q.dim(0), q.dim(1), q.dim(2), v.dim(3)});
  c.out(joined ? join_heads(e, y) : y);
}

void rotary_embedding(Context& c) {
  Emit& e = c.e;
  Value x = c.in(0);
  const bool joined = x.rank() == 3;
  if (joined)
    x = split_heads(c, x, c.need_attr("num_heads"));
  else if (x.rank() != 4)
    c.bad("rank 3 or 4", str(x.type()));
  const std::int64_t given = c.attr("rotary_embedding_dim", 0);
  const Dim rotated = given > 0 ? Dim(given) : x.dim(3);
  const Dim half = floordiv(rotated, Dim(2));
  const auto cache = [&](int i) {
    const Value v = c.has(3) ? e.gather(c.in(i), c.in(3), 0) : c.in(i);
    if (v.rank() != 3) c.bad("caches of [batch, length, size / 2]", str(v.type()));
    return e.unsqueeze(v, 1);
  };
  const Value cosine = cache(1), sine = cache(2);
  const bool interleaved = c.attr("interleaved", 0) != 0;
  const Value turned = e.slice_axis(x, 3, 0, rotated);
  const Shape pairs{x.dim(0), x.dim(1), x.dim(2), half, 2};
  const auto part = [&](int i) {
    if (!interleaved) return e.slice_axis(turned, 3, half * Dim(i), half * Dim(i + 1));
    return e.squeeze(e.slice_axis(e.reshape(turned, pairs), 4, i, i + 1), 4);
  };
  const Value a = part(0), b = part(1);
  const Value real = e.sub(e.mul(cosine, a), e.mul(sine, b)),
              imaginary = e.add(e.mul(sine, a), e.mul(cosine, b));
  Value y = interleaved
                ? e.reshape(e.concat({e.unsqueeze(real, 4), e.unsqueeze(imaginary, 4)}, 4), turned.shape())
                : e.concat({real, imaginary}, 3);
  if (!(rotated == x.dim(3))) y = e.concat({y, e.slice_axis(x, 3, rotated, x.dim(3))}, 3);
  c.out(joined ? join_heads(e, y) : y);
}

// Writes `update` into the cache along an axis, from a position of each batch on.
void tensor_scatter(Context& c) {
  Emit& e = c.e;
  const Value cache = c.in(0), update = c.in(1);
  const int axis = c.axis(c.attr("axis", -2), cache.rank());
  const std::string mode = c.attr_s("mode", "linear");
  if (mode != "linear" && mode != "circular") c.bad("mode linear or circular", "'" + mode + "'");
  if (axis == 0 || update.rank() != cache.rank())
    c.bad("an update of the cache's rank and an axis other than the batch",
          str(update.type()) + " on axis " + std::to_string(axis));
  Value start = e.scalar(0, DType::I64);
  if (c.has(2)) {
    Shape column(static_cast<std::size_t>(update.rank()), Dim(1));
    column[0] = c.shape(2).at(0);
    start = e.reshape(e.cast(c.in(2), DType::I64), column);
  }
  Value at = e.add(e.iota(update.shape(), DType::I64, axis), start);
  if (mode == "circular") at = e.op("mod", {at, e.dim(cache.dim(axis), DType::I64)});
  c.out(e.op("scatter_elements", {cache, at, update}, {{"axis", std::int64_t{axis}}}));
}

void linear_attention(Context& c) {
  Emit& e = c.e;
  const std::int64_t q_heads = c.need_attr("q_num_heads"), heads = c.need_attr("kv_num_heads");
  const std::string rule = c.attr_s("update_rule", "gated_delta");
  const bool gated = rule == "gated" || rule == "gated_delta",
             delta = rule == "delta" || rule == "gated_delta";
  if (!gated && !delta && rule != "linear")
    c.bad("update_rule linear, gated, delta or gated_delta", "'" + rule + "'");
  if (heads < 1 || q_heads < 1 || q_heads % heads != 0)
    c.bad("query heads in groups per key head", std::to_string(q_heads));
  const Value query = c.in(0);
  const auto wide = [&](Value x) { return e.cast(x, DType::F32); };
  const Value q = split_heads(c, wide(query), q_heads), k = split_heads(c, wide(c.in(1)), heads),
              v = split_heads(c, wide(c.in(2)), heads);
  const Dim batch = q.dim(0), size = q.dim(3), width = v.dim(3);
  if (!q.dim(2).is_static()) c.ask_for("a static length", q.dim(2));
  if (!size.is_static()) c.ask_for("a static head size", size);
  const double given = c.attr_f("scale", 0);
  const double scale = given != 0 ? given : 1 / std::sqrt(static_cast<double>(size.value()));
  const auto per_head =
      [&](int i) {  // [batch, length, heads or 1 or heads * size] -> [batch, heads, length, n]
        const Value x = wide(c.in(i));
        return split_heads(c, x, x.dim(2) == Dim(1) ? 1 : heads);
      };
  const Value decay = gated ? per_head(4) : Value(), beta = delta ? per_head(5) : Value();
  Value state = c.has(3) ? wide(c.in(3)) : e.full({batch, heads, size, width}, 0, DType::F32);
  const std::int64_t length = q.dim(2).value();
  std::vector<Value> rows;
  for (std::int64_t t = 0; t < length; ++t) {
    c.importer().count_nodes(16);
    const auto step = [&](Value x) { return e.slice_axis(x, 2, t, t + 1); };  // [batch, heads, 1, n]
    const Value key = e.swap_last_two(step(k));
    Value value = step(v);
    if (gated) state = e.mul(state, e.exp(e.swap_last_two(step(decay))));
    if (delta) value = e.mul(step(beta), e.sub(value, e.matmul(step(k), state)));
    state = e.add(state, e.mul(key, value));
    const Value read = e.reshape(state, {batch, heads, 1, size, width});
    const Value asked = e.reshape(step(q), {batch, heads, q_heads / heads, 1, size});
    rows.push_back(e.reshape(e.mul(e.matmul(asked, read), scale), {batch, q_heads, 1, width}));
  }
  const Value y = rows.empty() ? e.full({batch, q_heads, 0, width}, 0, DType::F32) : e.concat(rows, 2);
  c.out(0, Item(e.cast(join_heads(e, y), query.dtype())));
  c.out(1, Item(e.cast(state, c.has(3) ? c.dtype(3) : query.dtype())));
}

void causal_conv(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), w = c.in(1);
  if (x.rank() != 3 || w.rank() != 3)
    c.bad("an input and a weight of rank 3", str(x.type()) + " and " + str(w.type()));
  const Dim before = w.dim(2) - 1;
  const Value padded = c.has(3) ? e.concat({c.in(3), x}, 2) : e.pad(x, {0, 0, before}, {0, 0, 0});
  if (!x.dim(1).is_static()) c.ask_for("a static number of channels", x.dim(1));
  Value y = e.op("conv", {padded, w}, {{"feature_groups", x.dim(1).value()}});
  if (c.has(2)) y = e.add(y, e.along_axis(c.in(2), 1, 3));
  const std::string activation = c.attr_s("activation", "none");
  if (activation == "silu" || activation == "swish")
    y = e.unary("silu", y);
  else if (activation != "none")
    c.bad("activation none, silu or swish", "'" + activation + "'");
  c.out(0, Item(y));
  c.out(1, Item(e.slice_axis(padded, 2, padded.dim(2) - before, padded.dim(2))));
}

void swiglu(Context& c) {
  Emit& e = c.e;
  const Value a = c.in(0), b = c.in(1);
  if (a.rank() != b.rank()) c.bad("two inputs of one shape", str(a.type()) + " and " + str(b.type()));
  const double alpha = c.attr_f("alpha", 1);
  const Value gate = alpha == 1 ? e.unary("silu", a) : e.mul(a, e.sigmoid(e.mul(a, alpha)));
  c.out(e.mul(gate, b));
}

// Attention whose scores and probabilities go through sub-graphs.
void flex_attention(Context& c) {
  Emit& e = c.e;
  const Value q = c.in(0), k = c.in(1), v = c.in(2);
  if (q.rank() != 4 || k.rank() != 4 || v.rank() != 4)
    c.bad("queries, keys and values of rank 4", str(q.type()));
  if (!q.dim(3).is_static()) c.ask_for("a static head size", q.dim(3));
  const double scale = c.attr_f("scale", 1 / std::sqrt(static_cast<double>(q.dim(3).value())));
  const DType precision = c.attr_dtype("softmax_precision", compute_type(q.dtype()));
  const Dim groups = floordiv(q.dim(1), k.dim(1));
  const Shape apart{q.dim(0), k.dim(1), groups, q.dim(2), q.dim(3)};
  const auto shared = [&](Value x) { return e.unsqueeze(x, 2); };
  const double root = std::sqrt(scale);
  Value scores = e.matmul(e.reshape(e.mul(q, root), apart), e.swap_last_two(shared(e.mul(k, root))));
  scores = e.cast(e.reshape(scores, {q.dim(0), q.dim(1), q.dim(2), k.dim(2)}), precision);
  const auto through = [&](const char* name, Value x) {
    if (!c.has_attr(name)) return x;
    const auto results = c.importer().inline_graph(c.attr_graph(name), {Item(x)}, c.scope());
    if (results.size() != 1) c.bad(std::string(name) + " with one output", std::to_string(results.size()));
    return e.cast(c.value(results[0]), precision);
  };
  const Value p = through("prob_mod", e.softmax(through("score_mod", scores), -1));
  const Value y =
      e.matmul(e.reshape(p, {q.dim(0), k.dim(1), groups, q.dim(2), k.dim(2)}), shared(e.cast(v, precision)));
  c.out(e.cast(e.reshape(y, {q.dim(0), q.dim(1), q.dim(2), v.dim(3)}), v.dtype()));
}

}  // namespace

void add_attention(Translators& t) {
  t.add("Attention", attention);
  t.add("RotaryEmbedding", rotary_embedding);
  t.add("TensorScatter", tensor_scatter);
  t.add("LinearAttention", linear_attention);
  t.add("CausalConvWithState", causal_conv);
  t.add("SwiGLU", swiglu);
  t.add("ai.onnx.preview:FlexAttention", flex_attention);
}

}  // namespace deepseek::onnx_import
