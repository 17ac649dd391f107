// Control flow. A branch whose condition is known is taken while importing; loops whose number of iterations is
// known are unrolled, which also lets shapes and sequences change from one iteration to the next.
#include <algorithm>
#include <limits>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

constexpr std::int64_t kMaxUnrolled = 4096;

// Whether a known Bool (one element) holds; nothing where it is not known.
std::optional<bool> truth(Context& c, const Item& item) {
  std::optional<Known> made;
  const Known* k = item.known.get();
  if (!k && item.value && item.value.node->is_constant()) {
    made = Known::of(item.value.node->data);
    k = made ? &*made : nullptr;
  }
  if (!k) return std::nullopt;
  if (k->numel() != 1 || k->dtype != DType::Bool || !k->is_static())
    c.bad("a condition: one bool", std::string(name(k->dtype)) + str(k->dims));
  return k->ints[0].value() != 0;
}

Item known_int(std::int64_t v) { return Item(Known::scalar(DType::I64, static_cast<double>(v))); }
Item known_bool(bool v) { return Item(Known::scalar(DType::Bool, v)); }

void branch(Context& c) {
  const Known& condition = c.need(0);
  if (condition.numel() != 1 || condition.dtype != DType::Bool)
    c.bad("one bool", std::string(name(condition.dtype)));
  const auto& graph = c.attr_graph(condition.ints[0].value() != 0 ? "then_branch" : "else_branch");
  const auto outputs = c.importer().inline_graph(graph, {}, c.scope());
  if (static_cast<int>(outputs.size()) < c.outputs())
    c.bad(std::to_string(c.outputs()) + " outputs of the branch", std::to_string(outputs.size()));
  for (int i = 0; i < c.outputs(); ++i) c.out(i, outputs[static_cast<std::size_t>(i)]);
}

// Parts stacked along a new axis; with none, the type that the sub-graph declares.
Value stacked(Context& c, const std::vector<Value>& parts, std::int64_t axis,
              const onnx::ValueInfoProto& declared) {
  if (!parts.empty()) {
    std::vector<Value> rows;
    for (const Value& v : parts) rows.push_back(c.e.unsqueeze(v, c.axis(axis, v.rank() + 1)));
    return c.e.concat(rows, c.axis(axis, parts[0].rank() + 1));
  }
  const auto& t = declared.type().tensor_type();
  if (!declared.type().has_tensor_type() || !t.has_shape())
    c.unsupported("a declared type for an output of no iterations", "none");
  Shape shape;
  for (const auto& d : t.shape().dim()) {
    if (!d.has_dim_value() || d.dim_value() < 0)
      c.unsupported("static dims for an output of no iterations", "others");
    shape.emplace_back(d.dim_value());
  }
  shape.insert(shape.begin() + c.axis(axis, static_cast<int>(shape.size()) + 1), Dim(0));
  return c.e.full(shape, 0, dtype_of(t.elem_type()));
}

void loop(Context& c) {
  const auto& body = c.attr_graph("body");
  const int states = c.inputs() - 2;
  const int scans = body.output_size() - 1 - states;
  if (states < 0 || scans < 0 || c.outputs() > states + scans)
    c.bad("a body with the loop's state", std::to_string(body.output_size()) + " outputs");
  const std::int64_t trips = c.has(0) ? c.need_int(0) : std::numeric_limits<std::int64_t>::max();
  Item going = c.has(1) ? c.item(1) : known_bool(true);
  if (c.has(1) && !truth(c, going)) {
    c.need(1);
    going = c.item(1);
  }
  std::vector<Item> state;
  for (int i = 0; i < states; ++i) state.push_back(c.item(2 + i));
  std::vector<std::vector<Value>> rows(static_cast<std::size_t>(scans));
  for (std::int64_t i = 0; i < trips; ++i) {
    const auto go = truth(c, going);
    if (!go) c.importer().ask_for(c.value(going), c);
    if (!*go) break;
    if (i == kMaxUnrolled) c.unsupported("at most " + std::to_string(kMaxUnrolled) + " iterations", "more");
    std::vector<Item> inputs{known_int(i), going};
    inputs.insert(inputs.end(), state.begin(), state.end());
    auto outputs = c.importer().inline_graph(body, std::move(inputs), c.scope());
    going = outputs[0];
    for (int k = 0; k < states; ++k)
      state[static_cast<std::size_t>(k)] = outputs[static_cast<std::size_t>(1 + k)];
    for (int k = 0; k < scans; ++k)
      rows[static_cast<std::size_t>(k)].push_back(c.value(outputs[static_cast<std::size_t>(1 + states + k)]));
  }
  for (int k = 0; k < states; ++k) c.out(k, state[static_cast<std::size_t>(k)]);
  for (int k = 0; k < scans; ++k)
    if (c.wants(states + k))
      c.out(states + k, Item(stacked(c, rows[static_cast<std::size_t>(k)], 0, body.output(1 + states + k))));
}

std::int64_t static_extent(Context& c, const Value& x, int axis) {
  const Dim& d = x.dim(axis);
  if (!d.is_static()) c.ask_for("a static number of iterations", d);
  if (d.value() > kMaxUnrolled)
    c.unsupported("at most " + std::to_string(kMaxUnrolled) + " iterations", d.str());
  return d.value();
}

struct ScanShape {
  int states, inputs, outputs;
  Ints input_axes, output_axes, input_directions, output_directions;
};

std::vector<Item> run_scan(Context& c, const onnx::GraphProto& body, const ScanShape& s,
                           std::vector<Item> state, const std::vector<Value>& xs) {
  const std::int64_t trips = xs.empty() ? 0 : static_extent(c, xs[0], static_cast<int>(s.input_axes[0]));
  for (std::size_t k = 0; k < xs.size(); ++k)
    if (!(xs[k].dim(static_cast<int>(s.input_axes[k])) == Dim(trips)))
      c.bad("scan inputs of one length", str(xs[k].type()));
  std::vector<std::vector<Value>> rows(static_cast<std::size_t>(s.outputs));
  for (std::int64_t i = 0; i < trips; ++i) {
    std::vector<Item> inputs = state;
    for (std::size_t k = 0; k < xs.size(); ++k) {
      const int axis = static_cast<int>(s.input_axes[k]);
      const std::int64_t at = s.input_directions[k] != 0 ? trips - 1 - i : i;
      inputs.emplace_back(c.e.squeeze(c.e.slice_axis(xs[k], axis, at, at + 1), axis));
    }
    auto outputs = c.importer().inline_graph(body, std::move(inputs), c.scope());
    for (int k = 0; k < s.states; ++k)
      state[static_cast<std::size_t>(k)] = outputs[static_cast<std::size_t>(k)];
    for (int k = 0; k < s.outputs; ++k)
      rows[static_cast<std::size_t>(k)].push_back(c.value(outputs[static_cast<std::size_t>(s.states + k)]));
  }
  for (int k = 0; k < s.outputs; ++k) {
    auto& r = rows[static_cast<std::size_t>(k)];
    if (s.output_directions[static_cast<std::size_t>(k)] != 0) std::reverse(r.begin(), r.end());
    state.emplace_back(stacked(c, r, s.output_axes[static_cast<std::size_t>(k)], body.output(s.states + k)));
  }
  return state;
}

void scan(Context& c) {
  const auto& body = c.attr_graph("body");
  const bool batched = c.opset() < 9;  // a sequence_lens input and a leading batch axis
  const int first = batched ? 1 : 0;
  ScanShape s;
  const std::int64_t scanned = c.need_attr("num_scan_inputs");
  if (scanned < 1 || scanned > c.inputs() - first)
    c.bad("num_scan_inputs among " + std::to_string(c.inputs()) + " inputs", std::to_string(scanned));
  s.inputs = static_cast<int>(scanned);
  s.states = c.inputs() - first - s.inputs;
  s.outputs = body.output_size() - s.states;
  if (s.outputs < 0 || c.outputs() > s.states + s.outputs)
    c.bad("a body with the scan's state", std::to_string(body.output_size()) + " outputs");
  if (batched && c.has(0)) c.unsupported("sequences of one length", "sequence_lens");
  const auto list = [&](const char* name, int n) {
    Ints v = c.attr_ints(name, Ints(static_cast<std::size_t>(n), 0));
    if (static_cast<int>(v.size()) != n)
      c.bad(std::to_string(n) + " entries of " + name, std::to_string(v.size()));
    return v;
  };
  s.input_axes = batched ? Ints(static_cast<std::size_t>(s.inputs), 0) : list("scan_input_axes", s.inputs);
  s.input_directions = list(batched ? "directions" : "scan_input_directions", s.inputs);
  s.output_axes =
      batched ? Ints(static_cast<std::size_t>(s.outputs), 0) : list("scan_output_axes", s.outputs);
  s.output_directions =
      batched ? Ints(static_cast<std::size_t>(s.outputs), 0) : list("scan_output_directions", s.outputs);
  std::vector<Item> state;
  std::vector<Value> xs;
  for (int i = 0; i < s.states; ++i) state.push_back(c.item(first + i));
  for (int i = 0; i < s.inputs; ++i) xs.push_back(c.in(first + s.states + i));
  if (!batched) {
    for (std::size_t k = 0; k < xs.size(); ++k) s.input_axes[k] = c.axis(s.input_axes[k], xs[k].rank());
    const auto outputs = run_scan(c, body, s, state, xs);
    for (int i = 0; i < c.outputs(); ++i) c.out(i, outputs[static_cast<std::size_t>(i)]);
    return;
  }
  const std::int64_t batch = static_extent(c, xs[0], 0);
  std::vector<std::vector<Value>> results(static_cast<std::size_t>(s.states + s.outputs));
  const auto row = [&](const Value& v, std::int64_t b) {
    return c.e.squeeze(c.e.slice_axis(v, 0, b, b + 1), 0);
  };
  for (std::int64_t b = 0; b < batch; ++b) {
    std::vector<Item> one_state;
    std::vector<Value> one;
    for (const Item& i : state) one_state.emplace_back(row(c.value(i), b));
    for (const Value& x : xs) one.push_back(row(x, b));
    const auto outputs = run_scan(c, body, s, std::move(one_state), one);
    for (std::size_t k = 0; k < outputs.size(); ++k) results[k].push_back(c.value(outputs[k]));
  }
  for (int i = 0; i < c.outputs(); ++i)
    c.out(i, Item(stacked(c, results[static_cast<std::size_t>(i)], 0, body.output(i))));
}

}  // namespace

void add_control(Translators& t) {
  t.add("If", branch);
  t.add("Loop", loop);
  t.add("Scan", scan);
}

}  // namespace deepseek::onnx_import
