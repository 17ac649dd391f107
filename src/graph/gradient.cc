#include "graph/gradient.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "ops/graph_builder.h"
#include "ops/op.h"

namespace deepseek {
namespace {

using Key = std::pair<const Node*, int>;
Key key(const Value& v) { return {v.node, v.index}; }

// Which nodes stand on a way from xs to ys, of those at position `first` and after it.
class Ways {
 public:
  Ways(const Graph& g, std::size_t first, std::span<const Value> ys, std::span<const Value> xs) {
    for (const Value& x : xs) xs_.insert(key(x));
    for (const auto& n : std::span(g.nodes()).subspan(first))
      if (std::any_of(n->inputs.begin(), n->inputs.end(), [&](const Value& v) { return depends(v); }))
        active_.insert(n.get());
    std::vector<const Node*> stack;
    for (const Value& y : ys) stack.push_back(y.node);
    while (!stack.empty()) {
      const Node* n = stack.back();
      stack.pop_back();
      if (!active_.contains(n) || !reached_.insert(n).second) continue;
      for (const Value& v : n->inputs)
        if (v) stack.push_back(v.node);
    }
  }
  bool depends(const Value& v) const { return v && (xs_.contains(key(v)) || active_.contains(v.node)); }
  bool on_the_way(const Node* n) const { return reached_.contains(n); }

 private:
  struct Hash {
    std::size_t operator()(const Key& k) const {
      return std::hash<const Node*>()(k.first) * 31 + static_cast<std::size_t>(k.second);
    }
  };
  std::unordered_set<Key, Hash> xs_;
  std::unordered_set<const Node*> active_, reached_;
};

class Sums {
 public:
  explicit Sums(Graph& g) : g_(g) {}
  void add(const Value& v, Value d) {
    Value& slot = sums_[key(v)];
    slot = slot ? g_.op("add", {slot, d}) : d;
  }
  Value get(const Value& v) const {
    const auto it = sums_.find(key(v));
    return it == sums_.end() ? Value() : it->second;
  }

 private:
  Graph& g_;
  std::map<Key, Value> sums_;
};

// `gradients` through the nodes at position `first` and after it.
std::vector<Value> gradients_since(Graph& g, std::size_t first, std::span<const Value> ys,
                                   std::span<const Value> dys, std::span<const Value> xs) {
  check(ys.size() == dys.size(), "as many gradients as results");
  const Ways ways(g, first, ys, xs);
  std::vector<const Node*> order;
  for (const auto& n : g.nodes())
    if (ways.on_the_way(n.get())) order.push_back(n.get());
  Sums sums(g);
  for (std::size_t i = 0; i < ys.size(); ++i) {
    if (!ways.depends(ys[i]) || !is_float(ys[i].dtype())) continue;
    sums.add(ys[i], dys[i] ? dys[i] : GraphBuilder(g).full_like(ys[i], 1.0));
  }
  for (std::size_t k = order.size(); k-- > 0;) {
    const Node& n = *order[k];
    std::vector<Value> outer;
    for (int i = 0; i < static_cast<int>(n.outputs.size()); ++i) outer.push_back(sums.get(n.out(i)));
    if (std::none_of(outer.begin(), outer.end(), [](const Value& v) { return static_cast<bool>(v); }))
      continue;
    std::vector<bool> needed;
    for (const Value& v : n.inputs) needed.push_back(v && is_float(v.dtype()) && ways.depends(v));
    const auto inner = node_gradient(g, n, outer, needed);
    for (std::size_t i = 0; i < inner.size(); ++i)
      if (inner[i] && needed[i]) sums.add(n.inputs[i], inner[i]);
  }
  std::vector<Value> result;
  for (const Value& x : xs) result.push_back(sums.get(x));
  return result;
}

}  // namespace

std::vector<Value> gradients(Graph& g, std::span<const Value> ys, std::span<const Value> dys,
                             std::span<const Value> xs) {
  return gradients_since(g, 0, ys, dys, xs);
}

std::vector<Value> gradients(Graph& g, Value y, Value dy, std::span<const Value> xs) {
  return gradients(g, std::span(&y, 1), std::span(&dy, 1), xs);
}

std::vector<Value> node_gradient(Graph& g, const Node& n, std::span<const Value> dys,
                                 const std::vector<bool>& needed) {
  check(n.op != nullptr && needed.size() == n.inputs.size(), "gradients of an op's inputs");
  if (std::none_of(needed.begin(), needed.end(), [](bool b) { return b; }))
    return std::vector<Value>(n.inputs.size());
  if (n.op->gradient) {
    auto result = n.op->gradient(g, n, dys, needed);
    result.resize(n.inputs.size());
    return result;
  }
  const Composed* composed = n.op->composed();
  if (!composed)
    throw Error(Code::Unsupported, n.op->name, n.source, "an op that has a gradient", "'" + n.op->name + "'");
  const std::size_t first = g.nodes().size();
  const auto ys = composed->fn(g, n);
  std::vector<Value> used_ys, used_dys;
  for (std::size_t i = 0; i < ys.size(); ++i) {
    if (!dys[i]) continue;
    used_ys.push_back(ys[i]);
    used_dys.push_back(dys[i]);
  }
  std::vector<Value> xs;
  for (std::size_t i = 0; i < needed.size(); ++i)
    if (needed[i]) xs.push_back(n.inputs[i]);
  // Through the parts alone: where one input depends on another, that way is not this node's.
  const auto found = gradients_since(g, first, used_ys, used_dys, xs);
  // An input that stands twice gets its gradient once.
  std::vector<Value> result(n.inputs.size());
  for (std::size_t i = 0, next = 0; i < needed.size(); ++i) {
    if (!needed[i]) continue;
    const bool seen = std::find(n.inputs.begin(), n.inputs.begin() + static_cast<std::ptrdiff_t>(i),
                                n.inputs[i]) != n.inputs.begin() + static_cast<std::ptrdiff_t>(i);
    if (!seen) result[i] = found[next];
    ++next;
  }
  return result;
}

std::vector<Value> op_gradient(Graph& g, std::string_view op, std::vector<Value> inputs, Attrs attrs,
                               std::span<const Value> dys, const std::vector<bool>& needed) {
  const auto outputs = g.ops(op, std::move(inputs), std::move(attrs));
  const Node& n = *outputs.at(0).node;
  std::vector<bool> wanted = needed;
  wanted.resize(n.inputs.size());
  std::vector<Value> all(dys.begin(), dys.end());
  all.resize(outputs.size());
  return node_gradient(g, n, all, wanted);
}

}  // namespace deepseek
