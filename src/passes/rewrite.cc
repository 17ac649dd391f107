#include "passes/rewrite.h"

#include <algorithm>
#include <unordered_map>

namespace deepseek {

const std::vector<std::int64_t>& ints(const Node& n, std::string_view attr) {
  return n.attr<std::vector<std::int64_t>>(attr);
}

Graph rewrite_once(const Graph& graph, std::span<const Rule> rules, bool& changed) {
  Graph out;
  for (const EqualDims& dims : graph.equalities()) out.assume_equal(dims);
  std::unordered_map<const Node*, std::vector<Value>> map;
  for (const auto& n : graph.nodes()) {
    out.set_source(n->source);
    if (n->is_input()) {
      map[n.get()] = {out.placeholder(n->name, n->outputs[0].dtype, n->outputs[0].shape, n->role)};
      continue;
    }
    if (n->is_constant()) {
      map[n.get()] = {out.constant(n->data, n->name)};
      continue;
    }
    Node view = *n;  // the node as it would stand in the new graph
    for (Value& v : view.inputs)
      if (v) v = map.at(v.node).at(static_cast<std::size_t>(v.index));
    std::vector<Value> results;
    for (const Rule& r : rules) {
      if (!r.ops.empty() && std::find(r.ops.begin(), r.ops.end(), n->op->name) == r.ops.end()) continue;
      results = r.apply(out, view);
      if (results.empty()) continue;
      check(results.size() == n->outputs.size(), "a rule gives one value per result");
      for (std::size_t i = 0; i < results.size(); ++i)
        if (results[i].dtype() != n->outputs[i].dtype ||
            results[i].rank() != static_cast<int>(n->outputs[i].shape.size()))
          throw Error(Code::Internal, n->op->name, n->source, str(n->outputs[i]),
                      str(results[i].type()) + " by rule " + r.name);
      changed = true;
      break;
    }
    if (results.empty()) results = out.ops(n->op->name, view.inputs, view.attrs, n->name);
    map[n.get()] = std::move(results);
  }
  for (const Output& o : graph.outputs())
    out.output(o.name, map.at(o.value.node).at(static_cast<std::size_t>(o.value.index)));
  out.remove_dead();
  return out;
}

Graph rewrite(const Graph& graph, std::span<const Rule> rules) {
  constexpr int kMostRounds = 100;
  bool changed = false;
  Graph g = rewrite_once(graph, rules, changed);
  for (int round = 0; changed; ++round) {
    if (round == kMostRounds)
      throw Error(Code::Internal, "rewrite", "", "rules that come to an end", "100 rounds");
    changed = false;
    g = rewrite_once(g, rules, changed);
  }
  return g;
}

}  // namespace deepseek
