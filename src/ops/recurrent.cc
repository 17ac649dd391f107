// Recurrent layers: a loop over time, at any length. The input's part of every gate is one product over the whole
// sequence; the loop adds the state's part.
//
// Layouts (D directions, G gates, T time steps, B batch, I inputs, H hidden):
//   x [T, B, I], weight [D, G*H, I], recurrence [D, G*H, H], bias [D, 2*G*H] (the input's, then the state's),
//   lengths [B], initial states [D, B, H]. Results: y [T, D, B, H] and the last states [D, B, H].
// Gates are in the order i, o, f, c (lstm) and z, r, h (gru), as in ONNX. PyTorch has i, f, c, o and r, z, h.
#include <array>
#include <memory>

#include "ops/entries.h"

namespace deepseek {
namespace {

enum Input { kX, kWeight, kRecurrence, kBias, kLengths, kHidden, kCell, kPeepholes };

// What one step sees. Gates holds the input's part with both biases (gru: the input's bias alone for the last gate).
struct Step {
  Value gates, hidden, cell, recurrence, state_bias, peepholes;
  Dim size;
};
struct State {
  Value hidden, cell;
};
using CellFn = std::function<State(GraphBuilder&, const Node&, const Step&)>;

Value gate(GraphBuilder& g, Value all, int index, const Dim& size) {
  return g.slice(all, all.rank() - 1, size * Dim(index), size * Dim(index + 1));
}

State lstm_cell(GraphBuilder& g, const Node&, const Step& s) {
  const Value all = g.add(s.gates, g.matmul(s.hidden, s.recurrence));
  const auto peep = [&](Value v, int index, Value cell) {
    return s.peepholes ? g.add(v, g.mul(gate(g, s.peepholes, index, s.size), cell)) : v;
  };
  const Value in = g.sigmoid(peep(gate(g, all, 0, s.size), 0, s.cell));
  const Value forget = g.sigmoid(peep(gate(g, all, 2, s.size), 2, s.cell));
  const Value cell = g.add(g.mul(forget, s.cell), g.mul(in, g.tanh(gate(g, all, 3, s.size))));
  const Value out = g.sigmoid(peep(gate(g, all, 1, s.size), 1, cell));
  return {g.mul(out, g.tanh(cell)), cell};
}

State gru_cell(GraphBuilder& g, const Node& n, const Step& s) {
  const Dim two = s.size * 2, three = s.size * 3;
  const auto columns = [&](Value v, const Dim& from, const Dim& to) {
    return g.slice(v, v.rank() - 1, from, to);
  };
  const Value first = columns(s.recurrence, 0, two), last = columns(s.recurrence, two, three);
  const Value zr = g.sigmoid(g.add(columns(s.gates, 0, two), g.matmul(s.hidden, first)));
  const Value update = gate(g, zr, 0, s.size), reset = gate(g, zr, 1, s.size);
  Value from_state;
  if (flag(n, "linear_before_reset")) {
    from_state = g.matmul(s.hidden, last);
    if (s.state_bias) from_state = g.add(from_state, s.state_bias);
    from_state = g.mul(reset, from_state);
  } else {
    from_state = g.matmul(g.mul(reset, s.hidden), last);
    if (s.state_bias) from_state = g.add(from_state, s.state_bias);
  }
  const Value candidate = g.tanh(g.add(gate(g, s.gates, 2, s.size), from_state));
  return {g.add(candidate, g.mul(update, g.sub(s.hidden, candidate))), Value()};
}

State rnn_cell(GraphBuilder& g, const Node& n, const Step& s) {
  return {g.unary(text(n, "activation"), g.add(s.gates, g.matmul(s.hidden, s.recurrence))), Value()};
}

// -- the loop --------------------------------------------------------------------------------------------------

// Values that a sub-graph sees under the names of placeholders of its own.
class Captures {
 public:
  explicit Captures(Graph& inner) : inner_(inner) {}
  Value take(const std::string& name, Value outer) {
    if (!outer) return {};
    outer_.push_back(outer);
    return inner_.placeholder(name, outer.dtype(), outer.shape());
  }
  const std::vector<Value>& outer() const { return outer_; }

 private:
  Graph& inner_;
  std::vector<Value> outer_;
};

Value start_at(GraphBuilder& g, Value step) {
  const Value zero = g.full({Dim(1)}, 0, DType::I64);
  return g.concat({g.reshape(step, {Dim(1)}), zero, zero}, 0);
}

struct Direction {
  Value gates, recurrence, state_bias, peepholes, lengths, hidden, cell;
  bool reverse;
};

// Runs a cell over time: y [T, B, H] and the last states.
std::array<Value, 3> run(GraphBuilder& g, const Node& n, const Direction& d, const CellFn& cell) {
  const Dim &time = d.gates.dim(0), &batch = d.gates.dim(1), &size = d.hidden.dim(-1);
  auto body = std::make_shared<Graph>();
  GraphBuilder b(*body);
  Captures c(*body);
  const Value t = c.take("t", g.scalar(0, DType::I64));
  const Value y = c.take("y", g.full({time, batch, size}, 0, d.hidden.dtype()));
  const Value hidden = c.take("hidden", d.hidden), state = c.take("cell", d.cell);
  const auto carried = static_cast<std::int64_t>(c.outer().size());
  const Value gates = c.take("gates", d.gates);
  Step s;
  s.recurrence = c.take("recurrence", d.recurrence);
  s.state_bias = c.take("state_bias", d.state_bias);
  s.peepholes = c.take("peepholes", d.peepholes);
  const Value lengths = c.take("lengths", d.lengths);
  auto condition = std::make_shared<Graph>(body->clone());

  const Value step = d.reverse ? b.sub(b.sub(b.dim(time, DType::I64), 1), t) : t;
  const Value starts = start_at(b, step);
  s.gates = b.reshape(b.op("dynamic_slice", {gates, starts}, {{"sizes", Shape{Dim(1), batch, gates.dim(2)}}}),
                      {batch, gates.dim(2)});
  s.hidden = hidden;
  s.cell = state;
  s.size = size;
  State next = cell(b, n, s);
  Value shown = next.hidden;
  if (lengths) {
    // Beyond its length a sequence keeps its state and shows zeros.
    const Value within = b.unsqueeze(b.less(step, b.cast(lengths, DType::I64)), 1);
    shown = b.select(within, shown, 0.0);
    next.hidden = b.select(within, next.hidden, hidden);
    if (next.cell) next.cell = b.select(within, next.cell, state);
  }
  body->output("t", b.add(t, 1));
  body->output("y", b.op("dynamic_update_slice", {y, b.unsqueeze(shown, 0), starts}));
  body->output("hidden", next.hidden);
  if (state) body->output("cell", next.cell);

  GraphBuilder test(*condition);
  condition->output("go", test.less(condition->inputs().at(0)->out(), test.dim(time, DType::I64)));
  const auto last = g.graph().ops("while", c.outer(),
                                  {{"condition", std::shared_ptr<const Graph>(condition)},
                                   {"body", std::shared_ptr<const Graph>(body)},
                                   {"carried", carried}});
  return {last.at(1), last.at(2), last.size() > 3 ? last[3] : Value()};
}

// -- entries ---------------------------------------------------------------------------------------------------

struct Kind {
  int gates;
  bool has_cell;
  CellFn cell;
};

std::vector<bool> directions(const Node& n) {
  const std::string& d = text(n, "direction");
  if (d == "forward") return {false};
  if (d == "reverse") return {true};
  if (d == "bidirectional") return {false, true};
  bad_input(n, "direction forward, reverse or bidirectional", "'" + d + "'");
}

std::vector<Type> infer_recurrent(const Node& n, const Kind& kind) {
  const Dim count(static_cast<std::int64_t>(directions(n).size()));
  const Value x = n.in(kX), w = n.in(kWeight), r = n.in(kRecurrence);
  if (x.rank() != 3 || r.rank() != 3 || w.rank() != 3)
    bad_input(n, "x [T, B, I], weight and recurrence of rank 3", str(x.type()) + ", " + str(w.type()));
  const Dim &batch = x.dim(1), &size = r.dim(2), gates = size * Dim(kind.gates);
  const auto expect = [&](int input, const Shape& shape) {
    if (!n.has(input)) return;
    const Shape& got = n.in(input).shape();
    bool fits = got.size() == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = may_equal(got[i], shape[i]);
    if (!fits)
      bad_input(n, "'" + n.op->inputs[static_cast<std::size_t>(input)].name + "' " + str(shape),
                str(n.in(input).type()));
  };
  expect(kWeight, {count, gates, x.dim(2)});
  expect(kRecurrence, {count, gates, size});
  expect(kBias, {count, gates * 2});
  expect(kLengths, {batch});
  expect(kHidden, {count, batch, size});
  expect(kCell, {count, batch, size});
  expect(kPeepholes, {count, size * 3});
  const Type last{x.dtype(), {count, batch, size}};
  std::vector<Type> types = {{x.dtype(), {x.dim(0), count, batch, size}}, last};
  if (kind.has_cell) types.push_back(last);
  return types;
}

std::vector<Value> recurrent(Graph& graph, const Node& n, const Kind& kind) {
  GraphBuilder g(graph);
  const Value x = n.in(kX);
  const Dim &time = x.dim(0), &batch = x.dim(1), &size = n.in(kRecurrence).dim(2),
            gates = size * Dim(kind.gates);
  const auto ways = directions(n);
  std::vector<Value> ys, hiddens, cells;
  for (std::size_t k = 0; k < ways.size(); ++k) {
    const auto part = [&](int input) {
      if (!n.has(input)) return Value();
      return g.squeeze(
          g.slice(n.in(input), 0, Dim(static_cast<std::int64_t>(k)), Dim(static_cast<std::int64_t>(k + 1))),
          0);
    };
    const auto initial = [&](int input) {
      const Value v = part(input);
      return v ? v : g.full({batch, size}, 0, x.dtype());
    };
    Direction d;
    d.reverse = ways[k];
    d.gates = g.matmul(x, g.transpose(part(kWeight), {1, 0}));
    d.recurrence = g.transpose(part(kRecurrence), {1, 0});
    if (const Value bias = part(kBias)) {
      Value of_input = g.slice(bias, 0, 0, gates), of_state = g.slice(bias, 0, gates, gates * 2);
      if (n.op->name == "gru") {
        // The last gate's state bias is inside the reset, so it stays apart.
        d.state_bias = g.slice(of_state, 0, size * 2, gates);
        const Value rest = g.concat({g.slice(of_state, 0, 0, size * 2), g.full({size}, 0, x.dtype())}, 0);
        d.gates = g.add(d.gates, g.add(of_input, rest));
      } else {
        d.gates = g.add(d.gates, g.add(of_input, of_state));
      }
    }
    if (n.has(kLengths)) d.lengths = n.in(kLengths);
    d.hidden = initial(kHidden);
    if (kind.has_cell) {
      d.cell = initial(kCell);
      d.peepholes = part(kPeepholes);
    }
    const auto result = run(g, n, d, kind.cell);
    ys.push_back(g.unsqueeze(result[0], 1));
    hiddens.push_back(g.unsqueeze(result[1], 0));
    if (kind.has_cell) cells.push_back(g.unsqueeze(result[2], 0));
  }
  std::vector<Value> results = {g.concat(ys, 1), g.concat(hiddens, 0)};
  if (kind.has_cell) results.push_back(g.concat(cells, 0));
  check(results[0].dim(0) == time, "a result for every time step");
  return results;
}

OpBuilder recurrent_op(OpTable& t, std::string name, std::string doc, Kind kind) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc) +
        " x [T, B, I], weight [D, G*H, I], recurrence [D, G*H, H], bias [D, 2*G*H] (the input's, then the "
        "state's); gives y [T, D, B, H] and the last states [D, B, H]. Beyond its length a sequence keeps "
        "its state and its y is 0.")
      .input("x", Accepts::Float)
      .input("weight", Accepts::Float)
      .input("recurrence", Accepts::Float)
      .input_optional("bias", Accepts::Float)
      .input_optional("lengths", Accepts::Index, true)
      .input_optional("initial_hidden", Accepts::Float);
  if (kind.has_cell)
    b.input_optional("initial_cell", Accepts::Float).input_optional("peepholes", Accepts::Float);
  b.attr("direction", AttrKind::String, std::string("forward"), "forward, reverse or bidirectional (D = 2).")
      .infer([kind](const Node& n) { return infer_recurrent(n, kind); })
      .composed([kind](Graph& g, const Node& n) { return recurrent(g, n, kind); });
  return b;
}

}  // namespace

void add_recurrent_ops(OpTable& t) {
  recurrent_op(t, "lstm",
               "Long short-term memory (Hochreiter and Schmidhuber, 1997; peepholes i, o, f: Gers, 2000). "
               "Gates in the order i, o, f, c.",
               {4, true, lstm_cell});
  recurrent_op(t, "gru", "Gated recurrent unit (Cho et al., 2014). Gates in the order z, r, h.",
               {3, false, gru_cell})
      .attr(
          "linear_before_reset", AttrKind::Bool, false,
          "Whether the reset gate applies to the product with the state (PyTorch) instead of to the state.");
  recurrent_op(t, "rnn", "h' = activation(W x + R h + b) (Elman, 1990).", {1, false, rnn_cell})
      .attr("activation", AttrKind::String, std::string("tanh"),
            "An elementwise op: tanh, relu, sigmoid ...");
}

}  // namespace deepseek
