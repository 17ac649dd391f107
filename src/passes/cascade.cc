// Finds inverted residuals among groups: a 1x1 convolution, a depthwise one and a 1x1 one, or two neighbours of these.
#include "passes/cascade.h"

#include <algorithm>
#include <map>

#include "passes/rewrite.h"

namespace deepseek {

namespace {

using Key = std::pair<const Node*, int>;
Key key(Value v) { return {v.node, v.index}; }

bool all_are(const std::vector<std::int64_t>& values, std::int64_t x) {
  return std::all_of(values.begin(), values.end(), [x](std::int64_t v) { return v == x; });
}

bool is_image(const Node& n) {
  return n.in(0).rank() == 4 && n.attr<std::string>("input_layout") == "N01C" &&
         n.attr<std::string>("output_layout") == "N01C" && n.outputs[0].dtype == DType::F32 &&
         n.in(0).dtype() == DType::F32;
}

// Whether each result is a sum over the channels of the element at its place.
bool is_pointwise(const Group& g) {
  if (g.kind != GroupKind::Contraction || !is_op(*g.anchor, "conv") || !is_image(*g.anchor)) return false;
  const Node& n = *g.anchor;
  const auto& layout = n.attr<std::string>("kernel_layout");
  for (std::size_t i = 0; i < layout.size(); ++i)
    if (layout[i] != 'O' && layout[i] != 'I' && !(n.in(1).dim(static_cast<int>(i)) == Dim(1))) return false;
  return n.attr<std::int64_t>("feature_groups") == 1 && all_are(ints(n, "strides"), 1) &&
         all_are(ints(n, "pad_low"), 0) && all_are(ints(n, "pad_high"), 0) &&
         all_are(ints(n, "input_dilation"), 1) && n.outputs[0].shape[3].is_static() &&
         n.in(0).dim(3).is_static();
}

// The convolution by channel that a group of kind Map computes; null where it is something else.
const Node* depthwise_in(const Group& g) {
  if (g.kind != GroupKind::Map) return nullptr;
  const auto it = std::find_if(g.members.begin(), g.members.end(), [](const Node* n) {
    return is_op(*n, "conv") && n->attr<std::int64_t>("feature_groups") > 1;
  });
  return it != g.members.end() && is_image(**it) ? *it : nullptr;
}

// Whether the first operand of `by` is all that reads v in g.
bool is_read_alone(const Group& g, Value v, const Node* by) {
  if (!is_read_as_it_is(g, v)) return false;
  for (const Node* m : g.members)
    for (std::size_t i = 0; i < m->inputs.size(); ++i)
      if (m->inputs[i] == v && !(m == by && i == 0)) return false;
  return true;
}

class CascadeFinder {
 public:
  CascadeFinder(const Graph& graph, std::span<const Group> groups) : groups_(groups) {
    for (std::size_t i = 0; i < groups.size(); ++i) {
      for (const Value& v : groups[i].outputs) maker_[key(v)] = i;
      for (const Value& v : groups[i].inputs) readers_[key(memory_of(v))].push_back(i);
    }
    for (const Output& o : graph.outputs()) readers_[key(memory_of(o.value))].push_back(groups.size());
  }

  std::vector<Group> run() {
    std::vector<Group> found;
    std::vector<bool> used(groups_.size(), false);
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      const Node* conv = depthwise_in(groups_[i]);
      if (!conv || !is_read_as_it_is(groups_[i], conv->out())) continue;
      std::vector<std::size_t> chain = {i};
      if (const auto before = expansion(groups_[i], conv); before && !used[*before])
        chain.insert(chain.begin(), *before);
      if (const auto after = projection(groups_[i]); after && !used[*after]) chain.push_back(*after);
      if (chain.size() < 2) continue;
      found.push_back(joined(chain));
      for (const std::size_t part : chain) used[part] = true;
    }
    return found;
  }

 private:
  // The one group that reads v, when no other group and no result does.
  std::optional<std::size_t> only_reader(Value v) const {
    const auto it = readers_.find(key(v));
    if (it == readers_.end() || it->second.size() != 1 || it->second[0] == groups_.size())
      return std::nullopt;
    return it->second[0];
  }
  static bool has_one_result(const Group& g) {
    return g.outputs.size() == 1 && !is_op(g.outputs[0], "transpose") && g.outputs[0].shape() == g.domain &&
           g.outputs[0].dtype() == DType::F32;
  }

  std::optional<std::size_t> expansion(const Group& middle, const Node* conv) const {
    const Value x = conv->in(0);
    const auto it = maker_.find(key(x));
    if (it == maker_.end()) return std::nullopt;
    const Group& g = groups_[it->second];
    const bool fits =
        is_pointwise(g) && has_one_result(g) && only_reader(x) && is_read_alone(middle, x, conv);
    return fits ? std::optional(it->second) : std::nullopt;
  }

  std::optional<std::size_t> projection(const Group& middle) const {
    if (!has_one_result(middle)) return std::nullopt;
    const auto reader = only_reader(middle.outputs[0]);
    if (!reader) return std::nullopt;
    const Group& g = groups_[*reader];
    const bool fits = is_pointwise(g) && g.anchor->in(0) == middle.outputs[0] &&
                      is_read_alone(g, middle.outputs[0], g.anchor);
    return fits ? reader : std::nullopt;
  }

  Group joined(std::span<const std::size_t> chain) const {
    Group g = join_parts(groups_, chain);
    g.kind = GroupKind::Cascade;
    return g;
  }

  std::span<const Group> groups_;
  std::map<Key, std::size_t> maker_;
  std::map<Key, std::vector<std::size_t>> readers_;  // by memory; groups_.size(): a result
};

}  // namespace

std::vector<Group> find_cascades(const Graph& graph, std::span<const Group> groups) {
  return CascadeFinder(graph, groups).run();
}

void settle_cascades(std::vector<Group>& groups, std::vector<Choice>& choices, std::size_t first) {
  const auto group_at = [&](const Group& part) {
    return static_cast<std::size_t>(
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.anchor == part.anchor; }) -
        groups.begin());
  };
  for (std::size_t i = first; i < groups.size(); ++i) {
    const std::vector<Group>& parts = groups[i].parts;
    const std::size_t last = group_at(parts.back());
    if (!choices[i].way || choices[i].way->lower == nullptr) {
      choices[last].apart = choices[i].str();
      continue;
    }
    for (const Group& part : parts) groups[group_at(part)].members.clear();
    groups[last] = groups[i];
    choices[last] = choices[i];
  }
  groups.resize(first);
  choices.resize(first);
  for (std::size_t i = groups.size(); i-- > 0;)
    if (groups[i].members.empty()) {
      groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(i));
      choices.erase(choices.begin() + static_cast<std::ptrdiff_t>(i));
    }
}

}  // namespace deepseek
