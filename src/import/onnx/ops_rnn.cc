// RNN, GRU and LSTM: the input's part of all gates as one product, then a loop over time.
#include <algorithm>
#include <cctype>
#include <span>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

constexpr std::int64_t kUnrolledSteps = 16;  // longer sequences become a loop in the executable

using Activation = std::function<Value(Emit&, Value)>;

Activation activation(Context& c, std::string name, std::optional<double> alpha, std::optional<double> beta) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char ch) { return static_cast<char>(std::tolower(ch)); });
  const auto op = [](std::string ours, Attrs attrs = {}) {
    return [ours, attrs](Emit& e, Value x) { return e.op(ours, {x}, attrs); };
  };
  if (name == "sigmoid") return op("sigmoid");
  if (name == "tanh") return op("tanh");
  if (name == "relu") return op("relu");
  if (name == "softsign") return op("softsign");
  if (name == "softplus") return op("softplus");
  if (name == "leakyrelu") return op("leaky_relu", {{"slope", alpha.value_or(0.01)}});
  if (name == "thresholdedrelu") return op("thresholded_relu", {{"alpha", alpha.value_or(1)}});
  if (name == "elu") return op("elu", {{"alpha", alpha.value_or(1)}});
  if (name == "hardsigmoid")
    return op("hard_sigmoid", {{"alpha", alpha.value_or(0.2)}, {"beta", beta.value_or(0.5)}});
  const double a = alpha.value_or(1), b = beta.value_or(name == "affine" ? 0 : 1);
  if (name == "affine") return [a, b](Emit& e, Value x) { return e.add(e.mul(x, a), b); };
  if (name == "scaledtanh") return [a, b](Emit& e, Value x) { return e.mul(e.tanh(e.mul(x, b)), a); };
  c.bad("an activation of ONNX's recurrent ops", "'" + name + "'");
}

// One direction. `step` gets the projected input [B, gates * H], the state and the parameters; gives the new state.
struct Cell {
  std::vector<Value> parameters;
  std::function<std::vector<Value>(Emit&, Value x, std::span<const Value> state,
                                   std::span<const Value> parameters)>
      step;
};

struct Result {
  Value all;                 // [S, B, H]
  std::vector<Value> state;  // the last one
};

// Rows whose sequence has ended keep their state and give zeros.
struct Ended {
  Value live;  // Bool [B, 1]
  std::vector<Value> keep(Emit& e, std::span<const Value> now, std::span<const Value> before) const {
    std::vector<Value> kept;
    for (std::size_t i = 0; i < now.size(); ++i)
      kept.push_back(live ? e.select(live, now[i], before[i]) : now[i]);
    return kept;
  }
  Value output(Emit& e, Value h) const { return live ? e.select(live, h, 0) : h; }
};

Result unrolled(Emit& e, const Cell& cell, Value x, std::vector<Value> state, Value lengths) {
  std::vector<Value> rows;
  for (std::int64_t t = 0; t < x.dim(0).value(); ++t) {
    Ended ended;
    if (lengths) ended.live = e.less(e.scalar(static_cast<double>(t), DType::I64), lengths);
    const auto now = cell.step(e, e.squeeze(e.slice_axis(x, 0, t, t + 1), 0), state, cell.parameters);
    state = ended.keep(e, now, state);
    rows.push_back(e.unsqueeze(ended.output(e, now[0]), 0));
  }
  return {e.concat(rows, 0), std::move(state)};
}

// The same as a loop: state (t, all, state...), constants (x, lengths, parameters...).
Result looped(Emit& e, const Cell& cell, Value x, std::vector<Value> state, Value lengths) {
  const Shape row{1, x.dim(1), state[0].dim(1)};
  std::vector<Value> inputs{e.scalar(0, DType::I64),
                            e.full({x.dim(0), x.dim(1), state[0].dim(1)}, 0, x.dtype())};
  inputs.insert(inputs.end(), state.begin(), state.end());
  const auto carried = static_cast<std::int64_t>(inputs.size());
  inputs.push_back(x);
  if (lengths) inputs.push_back(lengths);
  inputs.insert(inputs.end(), cell.parameters.begin(), cell.parameters.end());
  const auto declare = [&](Graph& g) {
    g.set_source(e.graph().source());
    std::vector<Value> own;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      own.push_back(g.placeholder("v" + std::to_string(i), inputs[i].dtype(), inputs[i].shape()));
    return own;
  };
  auto condition = std::make_shared<Graph>(), body = std::make_shared<Graph>();
  {
    Emit b(*condition);
    const auto own = declare(*condition);
    condition->output("more", b.less(own[0], b.dim(x.dim(0), DType::I64)));
  }
  Emit b(*body);
  const auto own = declare(*body);
  const std::span<const Value> before(own.data() + 2, state.size());
  std::size_t next = static_cast<std::size_t>(carried);
  const Value t = own[0], input = own[next++];
  Ended ended;
  if (lengths) ended.live = b.less(t, own[next++]);
  const Value zero = b.ints({0}), start = b.concat({b.reshape(t, {1}), zero, zero}, 0);
  const Value now_x = b.op("dynamic_slice", {input, start}, {{"sizes", Shape{1, x.dim(1), x.dim(2)}}});
  const auto now = cell.step(b, b.reshape(now_x, {x.dim(1), x.dim(2)}), before,
                             std::span<const Value>(own.data() + next, cell.parameters.size()));
  body->output("t", b.add(t, 1));
  body->output("all", b.op("dynamic_update_slice", {own[1], b.reshape(ended.output(b, now[0]), row), start}));
  const auto kept = ended.keep(b, now, before);
  for (std::size_t i = 0; i < kept.size(); ++i) body->output("state" + std::to_string(i), kept[i]);
  const auto results = e.ops("while", inputs,
                             {{"condition", std::shared_ptr<const Graph>(condition)},
                              {"body", std::shared_ptr<const Graph>(body)},
                              {"carried", carried}});
  return {results.at(1), {results.begin() + 2, results.begin() + static_cast<std::ptrdiff_t>(carried)}};
}

Result over_time(Emit& e, const Cell& cell, Value x, std::vector<Value> state, Value lengths) {
  const Dim& steps = x.dim(0);
  const bool few = steps.is_static() && steps.value() <= kUnrolledSteps && steps.value() > 0;
  return few ? unrolled(e, cell, x, std::move(state), lengths)
             : looped(e, cell, x, std::move(state), lengths);
}

// x [S, B, n] with the first `lengths` steps of each sequence turned over.
Value reversed(Emit& e, Value x, Value lengths) {
  if (!lengths) return e.reverse(x, {0});
  const Value at = e.iota(x.shape(), DType::I64, 0), n = e.reshape(lengths, {1, x.dim(1), 1});
  const Value source = e.select(e.less(at, n), e.sub(e.sub(n, 1), at), at);
  return e.op("gather_elements", {x, source}, {{"axis", std::int64_t{0}}});
}

// What the three ops share: reading inputs, directions, layout, activations; `make` builds a direction's cell.
class Recurrent {
 public:
  Recurrent(Context& c, int gates, int states, std::vector<std::string> activations)
      : c(c), e(c.e), gates_(gates), states_(states) {
    batch_major_ = c.attr("layout", 0) != 0;
    x_ = c.in(0);
    if (x_.rank() != 3) c.bad("an input of rank 3", str(x_.type()));
    if (batch_major_) x_ = e.transpose(x_, {1, 0, 2});
    const Value w = c.in(1), r = c.in(2);
    if (w.rank() != 3 || r.rank() != 3 || !w.dim(0).is_static())
      c.bad("weights of rank 3", str(w.type()) + " and " + str(r.type()));
    hidden = r.dim(2);
    const std::string direction = c.attr_s("direction", "forward");
    directions_ = direction == "bidirectional" ? 2 : 1;
    backward_ = direction == "reverse";
    if (directions_ == 1 && !backward_ && direction != "forward")
      c.bad("direction forward, reverse or bidirectional", "'" + direction + "'");
    if (w.dim(0).value() != directions_)
      c.bad("weights of " + std::to_string(directions_) + " directions", str(w.type()));
    const std::size_t each = activations.size();
    auto names = c.attr_strings("activations");
    if (names.empty())
      for (int d = 0; d < directions_; ++d) names.insert(names.end(), activations.begin(), activations.end());
    const auto alpha = c.attr_floats("activation_alpha"), beta = c.attr_floats("activation_beta");
    if (names.size() != each * static_cast<std::size_t>(directions_))
      c.bad(std::to_string(each) + " activations per direction", std::to_string(names.size()));
    for (std::size_t i = 0; i < names.size(); ++i)
      activations_.push_back(activation(c, names[i],
                                        i < alpha.size() ? std::optional(alpha[i]) : std::nullopt,
                                        i < beta.size() ? std::optional(beta[i]) : std::nullopt));
    clip_ = c.attr_f("clip", 0);
    if (c.has(4)) lengths_ = e.reshape(e.cast(c.in(4), DType::I64), {x_.dim(1), 1});
  }

  Context& c;
  Emit& e;
  Dim hidden;

  // Activation i of direction d, on clipped inputs.
  Activation act(int d, int i) const {
    const Activation f = activations_[activations_.size() / static_cast<std::size_t>(directions_) *
                                          static_cast<std::size_t>(d) +
                                      static_cast<std::size_t>(i)];
    if (clip_ <= 0) return f;
    return [f, limit = clip_](Emit& e, Value x) {
      return f(e, e.op("clamp", {x, e.like(-limit, x), e.like(limit, x)}));
    };
  }
  // Part d of an input with a leading axis of directions.
  Value of_direction(int input, int d) { return e.squeeze(e.slice_axis(c.in(input), 0, d, d + 1), 0); }
  // Columns [first, first + n) of gates, each H wide.
  static Value gate(Emit& e, Value v, const Dim& hidden, int first, int n = 1) {
    return e.slice_axis(v, v.rank() - 1, hidden * Dim(first), hidden * Dim(first + n));
  }
  // The recurrent weights, transposed: [H, gates * H].
  Value recurrent_weights(int d) { return e.swap_last_two(of_direction(2, d)); }
  // Wb, or Rb where `second`.
  Value bias(int d, bool second) {
    if (!c.has(3)) return {};
    const Value b = of_direction(3, d);
    const Dim n = hidden * Dim(gates_);
    return e.slice_axis(b, 0, second ? n : Dim(0), second ? n + n : n);
  }

  // Initial states are inputs 5 and 6. `join_bias`: Rb is added with Wb, outside of the loop.
  void run(bool join_bias, const std::function<Cell(int d)>& make) {
    std::vector<Value> alls;
    std::vector<std::vector<Value>> lasts(static_cast<std::size_t>(states_));
    for (int d = 0; d < directions_; ++d) {
      const bool turn = backward_ || d == 1;
      Value x = turn ? reversed(e, x_, lengths_) : x_;
      x = e.matmul(x, e.swap_last_two(of_direction(1, d)));
      if (const Value b = bias(d, false)) x = e.add(x, join_bias ? e.add(b, bias(d, true)) : b);
      std::vector<Value> state;
      for (int s = 0; s < states_; ++s) state.push_back(initial(5 + s, d));
      Result r = over_time(e, make(d), x, std::move(state), lengths_);
      alls.push_back(e.unsqueeze(turn ? reversed(e, r.all, lengths_) : r.all, 1));
      for (int s = 0; s < states_; ++s)
        lasts[static_cast<std::size_t>(s)].push_back(e.unsqueeze(r.state[static_cast<std::size_t>(s)], 0));
    }
    if (c.wants(0)) {
      const Value all = e.concat(alls, 1);  // [S, directions, B, H]
      c.out(0, Item(batch_major_ ? e.transpose(all, {2, 0, 1, 3}) : all));
    }
    for (int s = 0; s < states_; ++s) {
      if (!c.wants(1 + s)) continue;
      const Value last = e.concat(lasts[static_cast<std::size_t>(s)], 0);
      c.out(1 + s, Item(batch_major_ ? e.transpose(last, {1, 0, 2}) : last));
    }
  }

 private:
  Value initial(int input, int d) {
    if (!c.has(input)) return e.full({x_.dim(1), hidden}, 0, x_.dtype());
    if (!batch_major_) return of_direction(input, d);
    return e.squeeze(e.slice_axis(c.in(input), 1, d, d + 1), 1);
  }

  int gates_, states_, directions_ = 1;
  bool batch_major_ = false, backward_ = false;
  double clip_ = 0;
  Value x_, lengths_;
  std::vector<Activation> activations_;
};

void rnn(Context& c) {
  Recurrent r(c, 1, 1, {"Tanh"});
  r.run(true, [&](int d) {
    return Cell{{r.recurrent_weights(d)},
                [f = r.act(d, 0)](Emit& e, Value x, std::span<const Value> state, std::span<const Value> p) {
                  return std::vector<Value>{f(e, e.add(x, e.matmul(state[0], p[0])))};
                }};
  });
}

void gru(Context& c) {
  Recurrent r(c, 3, 1, {"Sigmoid", "Tanh"});
  const bool linear_first = c.attr("linear_before_reset", 0) != 0;
  const Dim h = r.hidden;
  r.run(false, [&](int d) {
    const Value weights = r.recurrent_weights(d);
    Value bias = r.bias(d, true);
    if (!bias) bias = r.e.full({h * Dim(3)}, 0, weights.dtype());
    return Cell{
        {weights, bias},
        [f = r.act(d, 0), g = r.act(d, 1), h, linear_first](Emit& e, Value x, std::span<const Value> state,
                                                            std::span<const Value> p) {
          const Value before = state[0];
          const auto gate = [&](Value v, int first, int n = 1) { return Recurrent::gate(e, v, h, first, n); };
          const Value zr =
              f(e, e.add(gate(x, 0, 2), e.add(e.matmul(before, gate(p[0], 0, 2)), gate(p[1], 0, 2))));
          const Value update = gate(zr, 0), reset = gate(zr, 1);
          const Value candidate = linear_first
                                      ? e.mul(reset, e.add(e.matmul(before, gate(p[0], 2)), gate(p[1], 2)))
                                      : e.add(e.matmul(e.mul(reset, before), gate(p[0], 2)), gate(p[1], 2));
          const Value fresh = g(e, e.add(gate(x, 2), candidate));
          return std::vector<Value>{e.add(e.mul(e.sub(1, update), fresh), e.mul(update, before))};
        }};
  });
}

void lstm(Context& c) {
  Recurrent r(c, 4, 2, {"Sigmoid", "Tanh", "Tanh"});
  const Dim h = r.hidden;
  const bool coupled = c.attr("input_forget", 0) != 0, peeps = c.has(7);
  r.run(true, [&](int d) {
    std::vector<Value> parameters{r.recurrent_weights(d)};
    if (peeps) parameters.push_back(r.of_direction(7, d));
    return Cell{parameters, [f = r.act(d, 0), g = r.act(d, 1), o = r.act(d, 2), h, coupled, peeps](
                                Emit& e, Value x, std::span<const Value> state, std::span<const Value> p) {
                  const Value before = state[1];
                  const Value all = e.add(x, e.matmul(state[0], p[0]));
                  // Gates in ONNX's order: input, output, forget, cell; peepholes: input, output, forget.
                  const auto gate = [&](int i) { return Recurrent::gate(e, all, h, i); };
                  const auto peep = [&](Value v, int i, Value cell) {
                    return peeps ? e.add(v, e.mul(Recurrent::gate(e, p[1], h, i), cell)) : v;
                  };
                  const Value in = f(e, peep(gate(0), 0, before));
                  const Value forget = coupled ? e.sub(1, in) : f(e, peep(gate(2), 2, before));
                  const Value cell = e.add(e.mul(forget, before), e.mul(in, g(e, gate(3))));
                  const Value out = f(e, peep(gate(1), 1, cell));
                  return std::vector<Value>{e.mul(out, o(e, cell)), cell};
                }};
  });
}

}  // namespace

void add_rnn(Translators& t) {
  t.add("RNN", rnn);
  t.add("GRU", gru);
  t.add("LSTM", lstm);
}

}  // namespace deepseek::onnx_import
