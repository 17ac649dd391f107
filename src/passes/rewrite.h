// Rewriting: a graph is rebuilt node by node; a rule may give other values for a node's results.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepseek/graph.h"
#include "ops/op.h"

namespace deepseek {

// Looks at a node whose inputs belong to `g`, the graph being built, and adds to `g` what shall stand for its
// results. Gives one value per result, or nothing when it does not apply.
using RuleFn = std::function<std::vector<Value>(Graph& g, const Node& n)>;

struct Rule {
  std::string name;              // for tests and CompileOptions::disable
  std::vector<std::string> ops;  // the ops it looks at; empty: any
  RuleFn apply;
};

// One pass over the graph. `changed` is set when a rule applied. Inputs, outputs' names and sources are kept;
// nodes that nothing needs are dropped.
Graph rewrite_once(const Graph& graph, std::span<const Rule> rules, bool& changed);
// Until no rule applies. Throws Error{Internal} when that takes more than 100 rounds: rules undo each other.
Graph rewrite(const Graph& graph, std::span<const Rule> rules);

// Reading patterns.
inline bool is_op(Value v, std::string_view name) { return v && v.node->op && v.node->op->name == name; }
inline bool is_op(const Node& n, std::string_view name) { return n.op && n.op->name == name; }
const std::vector<std::int64_t>& ints(const Node& n, std::string_view attr);

}  // namespace deepseek
