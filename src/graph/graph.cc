#include "deepseek/graph.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "ops/op.h"

namespace deepseek {

std::string str(const Type& t) { return std::string(name(t.dtype)) + str(t.shape); }

const Type& Value::type() const { return node->outputs.at(static_cast<std::size_t>(index)); }

const Dim& Value::dim(int axis) const {
  const Shape& s = shape();
  return s.at(static_cast<std::size_t>(axis < 0 ? axis + static_cast<int>(s.size()) : axis));
}

std::string_view Node::op_name() const {
  if (op) return op->name;
  return is_constant() ? "constant" : "placeholder";
}

Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

std::string Graph::unique(std::string name) {
  if (names_[name]++ == 0) return name;
  std::string candidate;
  do candidate = name + "_" + std::to_string(names_[name]++ - 1);
  while (names_.contains(candidate));
  names_[candidate] = 1;
  return candidate;
}

namespace {

constexpr std::size_t kMaxRank = 64;  // NumPy's

// Sizes that some memory could have.
void check_sizes(const Type& t) {
  if (t.shape.size() > kMaxRank)
    throw Error(Code::InvalidArgument, "", "", "at most " + std::to_string(kMaxRank) + " dims",
                std::to_string(t.shape.size()));
  for (const Dim& d : t.shape)
    if (d.is_static() && d.value() < 0)
      throw Error(Code::InvalidArgument, "", "", "dims of at least 0", str(t.shape));
  if (is_static(t.shape)) numel(static_dims(t.shape));  // throws on overflow
}

}  // namespace

Value Graph::placeholder(std::string name, DType dtype, Shape shape, Role role) {
  if (names_.contains(name))
    throw Error(Code::InvalidArgument, "placeholder", source_, "a name that is not taken",
                "'" + name + "' again");
  auto node = std::make_unique<Node>();
  node->outputs = {Type{dtype, std::move(shape)}};
  try {
    check_sizes(node->outputs[0]);
  } catch (const Error& e) {
    throw e.with_context("placeholder", source_);
  }
  node->name = unique(std::move(name));
  node->source = source_;
  node->role = role;
  nodes_.push_back(std::move(node));
  return nodes_.back()->out();
}

Value Graph::constant(Tensor data, std::string name) {
  auto node = std::make_unique<Node>();
  node->name = unique(name.empty() ? "constant" : std::move(name));
  node->outputs = {Type{data.dtype(), to_shape(data.dims())}};
  node->data = std::move(data);
  node->source = source_;
  node->role = Role::Constant;
  nodes_.push_back(std::move(node));
  return nodes_.back()->out();
}

Value Graph::scalar(double value, DType dtype) {
  Tensor t(dtype, {});
  t.set(0, value);
  return constant(std::move(t));
}

Value Graph::op(std::string_view op, std::vector<Value> inputs, Attrs attrs, std::string name) {
  return ops(op, std::move(inputs), std::move(attrs), std::move(name)).at(0);
}

std::vector<Value> Graph::ops(std::string_view op, std::vector<Value> inputs, Attrs attrs, std::string name) {
  auto node = std::make_unique<Node>();
  node->op = op_table().find(op);
  if (!node->op)
    throw Error(Code::NotFound, std::string(op), source_, "an op of the table", "'" + std::string(op) + "'");
  node->inputs = std::move(inputs);
  node->attrs = std::move(attrs);
  node->source = source_;
  // An op that defines a dim needs a name for it that is not taken.
  const bool defines = std::any_of(node->op->attrs.begin(), node->op->attrs.end(),
                                   [](const AttrSpec& a) { return a.name == "symbol"; });
  if (defines && !node->attrs.contains("symbol")) node->attrs["symbol"] = unique(std::string(op) + "_count");
  complete(*node);
  const Assumptions assumed;
  try {
    node->outputs = node->op->infer(*node);
    for (const Type& t : node->outputs) check_sizes(t);
  } catch (const Error& e) {
    throw e.with_context(node->op->name, source_);
  }
  for (const auto& [a, b] : assumed.pairs) assume_equal({a, b, node->op->name, source_});
  node->name = unique(name.empty() ? std::string(op) : std::move(name));
  nodes_.push_back(std::move(node));
  const Node& n = *nodes_.back();
  std::vector<Value> results;
  for (int i = 0; i < static_cast<int>(n.outputs.size()); ++i) results.push_back(n.out(i));
  return results;
}

void Graph::assume_equal(EqualDims dims) {
  const auto same = [&](const EqualDims& known) { return known.a == dims.a && known.b == dims.b; };
  if (std::ranges::none_of(equalities_, same)) equalities_.push_back(std::move(dims));
}

void Graph::output(std::string name, Value value) {
  check(static_cast<bool>(value), "an output is a value of the graph");
  for (const Output& o : outputs_)
    if (o.name == name)
      throw Error(Code::InvalidArgument, "output", source_, "a name that is not taken",
                  "'" + name + "' again");
  outputs_.push_back({std::move(name), value});
}

std::vector<Node*> Graph::inputs() const {
  std::vector<Node*> result;
  for (const auto& n : nodes_)
    if (n->is_input()) result.push_back(n.get());
  return result;
}

std::vector<Output> Graph::outputs() const {
  if (!outputs_.empty()) return outputs_;
  std::vector<Output> result;
  const auto uses = users();
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (!uses[i].empty() || nodes_[i]->op == nullptr) continue;
    for (int k = 0; k < static_cast<int>(nodes_[i]->outputs.size()); ++k)
      result.push_back({nodes_[i]->name + (k == 0 ? "" : "." + std::to_string(k)), nodes_[i]->out(k)});
  }
  return result;
}

void Graph::replace_uses(Value from, Value to) {
  for (const auto& n : nodes_)
    for (Value& v : n->inputs)
      if (v == from && n.get() != to.node) v = to;
  for (Output& o : outputs_)
    if (o.value == from) o.value = to;
}

void Graph::remove_dead() {
  std::unordered_set<const Node*> live;
  std::vector<const Node*> stack;
  for (const Output& o : outputs()) stack.push_back(o.value.node);
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    if (!live.insert(n).second) continue;
    for (const Value& v : n->inputs)
      if (v) stack.push_back(v.node);
  }
  std::erase_if(nodes_, [&](const auto& n) { return !n->is_input() && !live.contains(n.get()); });
}

void Graph::sort() {
  enum class Mark : std::uint8_t { None, Open, Done };
  std::unordered_map<const Node*, Mark> marks;
  std::unordered_map<const Node*, std::size_t> position;
  for (std::size_t i = 0; i < nodes_.size(); ++i) position[nodes_[i].get()] = i;
  std::vector<std::size_t> order;
  // An explicit stack: models can be thousands of nodes deep.
  std::vector<std::pair<const Node*, std::size_t>> stack;
  for (const auto& root : nodes_) {
    if (marks[root.get()] != Mark::None) continue;
    marks[root.get()] = Mark::Open;
    stack.emplace_back(root.get(), 0);
    while (!stack.empty()) {
      auto& [node, next] = stack.back();
      if (next == node->inputs.size()) {
        marks[node] = Mark::Done;
        order.push_back(position.at(node));
        stack.pop_back();
        continue;
      }
      const Node* input = node->inputs[next++].node;
      if (!input || marks[input] == Mark::Done) continue;
      if (marks[input] == Mark::Open)
        throw Error(Code::InvalidArgument, std::string(input->op_name()), input->source,
                    "a graph without cycles", "'" + input->name + "' depends on itself");
      marks[input] = Mark::Open;
      stack.emplace_back(input, 0);
    }
  }
  std::vector<std::unique_ptr<Node>> sorted;
  sorted.reserve(nodes_.size());
  for (const std::size_t i : order) sorted.push_back(std::move(nodes_[i]));
  nodes_ = std::move(sorted);
}

std::vector<std::vector<Node*>> Graph::users() const {
  std::unordered_map<const Node*, std::size_t> position;
  for (std::size_t i = 0; i < nodes_.size(); ++i) position[nodes_[i].get()] = i;
  std::vector<std::vector<Node*>> result(nodes_.size());
  for (const auto& n : nodes_)
    for (const Value& v : n->inputs)
      if (v) result[position.at(v.node)].push_back(n.get());
  return result;
}

Graph Graph::clone() const {
  Graph copy;
  std::unordered_map<const Node*, Node*> map;
  for (const auto& n : nodes_) {
    auto twin = std::make_unique<Node>(*n);
    for (Value& v : twin->inputs)
      if (v) v.node = map.at(v.node);
    map[n.get()] = twin.get();
    copy.nodes_.push_back(std::move(twin));
  }
  for (const Output& o : outputs_)
    copy.outputs_.push_back({o.name, Value{map.at(o.value.node), o.value.index}});
  copy.names_ = names_;
  copy.source_ = source_;
  copy.equalities_ = equalities_;
  return copy;
}

void Graph::verify() const {
  std::unordered_set<const Node*> seen;
  std::unordered_set<std::string> names;
  const auto fail = [](const Node& n, const std::string& expected, const std::string& got) {
    throw Error(Code::Internal, std::string(n.op_name()), n.source, expected, got + " at '" + n.name + "'");
  };
  for (const auto& n : nodes_) {
    if (!names.insert(n->name).second) fail(*n, "unique names", "a second one");
    for (const Value& v : n->inputs) {
      if (!v) continue;
      if (!seen.contains(v.node)) fail(*n, "inputs defined before their use", "a later or foreign node");
      if (v.index < 0 || v.index >= static_cast<int>(v.node->outputs.size()))
        fail(*n, "an existing output", "none");
    }
    if (n->op) {
      Node again = *n;
      complete(again);
      const auto types = n->op->infer(again);
      if (types.size() != n->outputs.size()) fail(*n, "as many outputs as the op has", "another number");
      for (std::size_t i = 0; i < types.size(); ++i)
        if (types[i].dtype != n->outputs[i].dtype || types[i].shape.size() != n->outputs[i].shape.size())
          fail(*n, deepseek::str(types[i]), deepseek::str(n->outputs[i]));
    }
    seen.insert(n.get());
  }
  for (const Output& o : outputs_)
    if (!seen.contains(o.value.node))
      throw Error(Code::Internal, "output", "", "a node of the graph", o.name);
}

}  // namespace deepseek
