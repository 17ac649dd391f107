// Finds attention among groups.
#include <algorithm>
#include <map>

#include "ops/op.h"
#include "passes/groups.h"
#include "passes/rewrite.h"

namespace deepseek {

namespace {

constexpr std::int64_t kMostHead = 256;  // elements of a query, and of a value

class AttentionJoiner {
 public:
  AttentionJoiner(const Graph& graph, std::vector<Group> groups)
      : groups_(std::move(groups)), fixed_(fixed_nodes(graph, true)) {
    for (const Group& g : groups_) {
      for (const Value& v : g.outputs) maker_[key(v)] = static_cast<std::size_t>(&g - groups_.data());
      for (const Value& v : g.inputs) ++readers_[key(memory_of(v))];
    }
    for (const Output& o : graph.outputs()) ++readers_[key(memory_of(o.value))];
  }

  std::vector<Group> run() {
    for (Group& g : groups_) {
      const auto parts = attention_ending_in(g);
      if (!parts) continue;
      const std::size_t places[] = {parts->first, parts->second,
                                    static_cast<std::size_t>(&g - groups_.data())};
      g = join_parts(groups_, places);
      g.kind = GroupKind::Attention;
      groups_[parts->first].members.clear();
      groups_[parts->second].members.clear();
    }
    std::erase_if(groups_, [](const Group& g) { return g.members.empty(); });
    return std::move(groups_);
  }

 private:
  using Key = std::pair<const Node*, int>;
  static Key key(Value v) { return {v.node, v.index}; }

  // Of operands that come with each run, and of few columns: what is multiplied by many is better cut otherwise.
  bool is_product(const Group& g) const {
    if (g.kind != GroupKind::Contraction || !is_op(*g.anchor, "matmul")) return false;
    const Node& n = *g.anchor;
    return n.outputs[0].dtype == DType::F32 && n.in(0).dtype() == DType::F32 &&
           !fixed_.contains(n.in(1).node);
  }
  static bool is_narrow(const Dim& head_size) {
    return head_size.is_static() && head_size.value() <= kMostHead;
  }

  // The same matrices under other leading dims.
  static bool same_matrices(const Shape& a, const Shape& b) {
    return a.size() >= 2 && b.size() >= 2 && a.back() == b.back() && a[a.size() - 2] == b[b.size() - 2];
  }

  const std::size_t* maker_of(Value v) const {
    const auto it = maker_.find(key(memory_of(v)));
    return it == maker_.end() ? nullptr : &it->second;
  }
  int readers_of(Value v) const {
    const auto it = readers_.find(key(v));
    return it == readers_.end() ? 0 : it->second;
  }

  // The groups of the scores and of the rows, when `result` multiplies what they give by values.
  std::optional<std::pair<std::size_t, std::size_t>> attention_ending_in(const Group& result) const {
    if (!is_product(result) || !is_narrow(result.domain.back())) return std::nullopt;
    const Value weights = result.anchor->in(0);
    const std::size_t* r = maker_of(weights);
    if (!r) return std::nullopt;
    const Group& rows = groups_[*r];
    if (rows.kind != GroupKind::Rows || rows.reduced.size() != 1 || rows.domain.size() < 2 ||
        !(memory_of(weights).shape() == rows.domain) || !same_matrices(weights.shape(), rows.domain) ||
        !same_but_last(weights.shape(), result.domain) || !is_read_alone(weights, result))
      return std::nullopt;
    for (const Value& v : rows.outputs)
      if (readers_of(v) != 1 || !(v == memory_of(weights) || scales_rows(v, result))) return std::nullopt;
    for (const Value& v : rows.inputs) {
      const std::size_t* s = maker_of(v);
      if (!s || !(v.shape() == rows.domain)) continue;
      const Group& scores = groups_[*s];
      if (is_product(scores) && is_narrow(scores.anchor->in(0).dim(-1)) && scores.outputs.size() == 1 &&
          scores.outputs[0].shape() == scores.domain && same_matrices(scores.domain, rows.domain) &&
          !is_op(scores.outputs[0], "transpose") && readers_of(scores.outputs[0]) == 1 &&
          is_read_as_it_is(rows, v))
        return std::pair(*s, *r);
    }
    return std::nullopt;
  }

  static bool same_but_last(const Shape& a, const Shape& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end() - 1, b.begin());
  }

  // Whether g reads v, and for each row of its own one element of it.
  static bool scales_rows(Value v, const Group& g) {
    bool any = false, all = true;
    for (const Value& in : g.inputs)
      if (memory_of(in) == v) {
        any = true;
        all = all && same_but_last(in.shape(), g.domain) && in.dim(-1) == Dim(1) && is_read_as_it_is(g, in);
      }
    return any && all;
  }

  // Whether the product's left operand is all that reads the weights.
  static bool is_read_alone(Value weights, const Group& result) {
    if (!is_read_as_it_is(result, weights)) return false;
    for (const Node* m : result.members)
      for (std::size_t i = 0; i < m->inputs.size(); ++i)
        if (m->inputs[i] == weights && !(m == result.anchor && i == 0)) return false;
    return true;
  }

  std::vector<Group> groups_;
  std::map<Key, std::size_t> maker_;
  std::map<Key, int> readers_;  // groups and results, by memory
  std::set<const Node*> fixed_;
};

}  // namespace

std::vector<Group> join_attention(const Graph& graph, std::vector<Group> groups) {
  return AttentionJoiner(graph, std::move(groups)).run();
}

}  // namespace deepseek
