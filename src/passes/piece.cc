#include "passes/piece.h"

#include <algorithm>
#include <map>
#include <utility>

namespace deepseek {

namespace {

class Builder {
 public:
  Builder(const Group& group, const std::set<const Node*>& fixed) : group_(group), fixed_(fixed) {
    for (const Value& v : group.inputs) reads_.insert({v.node, v.index});
  }

  Piece build() {
    int outputs = 0;
    for (const Value& v : group_.outputs) piece_.graph.output("y" + std::to_string(outputs++), build(v));
    piece_.values.insert(piece_.values.end(), group_.outputs.begin(), group_.outputs.end());
    return std::move(piece_);
  }

 private:
  bool belongs(const Node& n) const {
    return is_view(n) || is_alias(n) ||
           std::find(group_.members.begin(), group_.members.end(), &n) != group_.members.end();
  }

  Value build(Value v) {
    const auto at = std::pair(v.node, v.index);
    if (const auto it = made_.find(at); it != made_.end()) return it->second;
    const Node& n = *v.node;
    Graph& graph = piece_.graph;
    if (n.is_constant() && n.data.numel() == 1) return made_[at] = graph.constant(n.data);
    if (reads_.contains(at) || !n.op || !belongs(n)) {
      const bool known = n.is_constant() || fixed_.contains(&n);
      const std::string name = (known ? "w" : "x") + std::to_string(made_.size());
      piece_.values.push_back(v);
      return made_[at] =
                 graph.placeholder(name, v.dtype(), v.shape(), known ? Role::Parameter : Role::Argument);
    }
    std::vector<Value> inputs;
    for (const Value& input : n.inputs) inputs.push_back(input ? build(input) : Value{});
    const std::vector<Value> results = graph.ops(n.op_name(), std::move(inputs), n.attrs);
    for (std::size_t i = 0; i < results.size(); ++i) made_[{v.node, static_cast<int>(i)}] = results[i];
    return made_[at];
  }

  const Group& group_;
  const std::set<const Node*>& fixed_;
  Piece piece_;
  std::set<std::pair<const Node*, int>> reads_;
  std::map<std::pair<const Node*, int>, Value> made_;
};

}  // namespace

Piece piece_of(const Group& group, const std::set<const Node*>& fixed) {
  return Builder(group, fixed).build();
}

}  // namespace deepseek
