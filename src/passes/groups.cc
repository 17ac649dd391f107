#include "passes/groups.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>

#include "ops/op.h"

namespace deepseek {

namespace {

constexpr int kNone = -1;
// A prologue is recomputed for each block of the result: this many cheap ops at most.
constexpr std::size_t kPrologueOps = 8;
constexpr std::int64_t kContractionDepth = 8;  // fewer products per result are not worth a tile multiply

bool named(const Node& n, std::initializer_list<std::string_view> names) {
  return n.op && std::find(names.begin(), names.end(), n.op->name) != names.end();
}

bool is_costly(const Node& n) {
  return named(n, {"exp",  "expm1", "log", "log1p", "erf",   "erfc", "tanh",     "sigmoid",
                   "gelu", "silu",  "pow", "sin",   "cos",   "tan",  "quantize", "softplus",
                   "mish", "elu",   "div", "sqrt",  "rsqrt", "mod",  "rem"});
}

// Whether each dim is a product of neighbouring ones (dims of 1 come and go): coordinates are sums of coordinates then.
bool only_splits(const Shape& from, const Shape& to) {
  std::size_t j = 0;
  for (const Dim& whole : from) {
    Dim pieces = 1;
    while (!(pieces == whole) && j < to.size()) pieces = pieces * to[j++];
    if (!(pieces == whole)) return false;
  }
  return std::all_of(to.begin() + static_cast<std::ptrdiff_t>(j), to.end(),
                     [](const Dim& d) { return d == Dim(1); });
}

}  // namespace

bool is_view(const Node& n) {
  if (named(n, {"reshape"}))
    return is_view(*n.in(0).node) && only_splits(n.in(0).shape(), n.outputs[0].shape);
  return named(n, {"transpose", "broadcast_to", "slice", "iota", "full", "reverse"}) ||
         (n.is_constant() && n.data.numel() == 1);
}
bool is_reduction(const Node& n) { return named(n, {"sum", "mean", "max", "min", "prod", "any", "all"}); }
bool is_alias(const Node& n) { return named(n, {"reshape"}) && !is_view(n); }

bool is_contraction(const Node& n) {
  if (named(n, {"matmul"})) return n.in(0).rank() >= 2 && n.in(1).rank() >= 2;
  if (!named(n, {"conv"}) || n.attr<std::int64_t>("batch_groups") != 1) return false;
  const auto& layout = n.attr<std::string>("kernel_layout");
  Dim depth = 1;
  for (std::size_t i = 0; i < layout.size(); ++i)
    if (layout[i] != 'O') depth = depth * n.in(1).dim(static_cast<int>(i));
  const auto groups = n.attr<std::int64_t>("feature_groups");
  const Dim outputs = n.in(1).dim(static_cast<int>(layout.find('O')));
  const bool narrow = groups > 1 && outputs.is_static() && outputs.value() / groups < 8;
  return !narrow && !(depth.is_static() && depth.value() < kContractionDepth);
}

bool is_kernel_gradient(const Node& n) {
  constexpr std::int64_t kLeastChannels = 8;
  if (!is_contraction(n) || !named(n, {"conv"}) || n.in(0).rank() != 4) return false;
  const auto& input = n.attr<std::string>("input_layout");
  const auto& kernel = n.attr<std::string>("kernel_layout");
  if (input.find('C') > input.find('N') || n.attr<std::int64_t>("feature_groups") != 1) return false;
  for (const std::int64_t dilation : n.attr<std::vector<std::int64_t>>("input_dilation"))
    if (dilation != 1) return false;
  for (const Value& v : {n.in(0), n.in(1), n.out()}) {
    if (v.dtype() != DType::F32) return false;
    for (const Dim& d : v.shape())
      if (!d.is_static() || d.value() == 0) return false;
  }
  return n.in(0).dim(static_cast<int>(input.find('N'))).value() >= kLeastChannels &&
         n.in(1).dim(static_cast<int>(kernel.find('O'))).value() >= kLeastChannels;
}

Value memory_of(Value v) {
  while (is_alias(*v.node)) v = v.node->in(0);
  return v;
}

std::string Group::name() const {
  std::string result;
  for (const Node* n : members) {
    if (result.size() > 48) break;
    result += (result.empty() ? "" : "_") + n->op->name;
  }
  return result;
}

std::set<const Node*> fixed_nodes(const Graph& graph, bool parameters) {
  std::set<const Node*> fixed;
  for (const auto& n : graph.nodes()) {
    const bool derived = std::all_of(n->inputs.begin(), n->inputs.end(),
                                     [&](const Value& v) { return !v || fixed.contains(v.node); });
    if (n->is_constant() || (n->is_input() ? parameters && n->role == Role::Parameter : derived))
      fixed.insert(n.get());
  }
  return fixed;
}

namespace {

class GroupFormer {
 public:
  GroupFormer(const Graph& graph, bool fuse) : graph_(graph), fuse_(fuse), fixed_(fixed_nodes(graph, true)) {
    for (const auto& n : graph.nodes()) order_[n.get()] = static_cast<int>(order_.size());
    for (const auto& n : graph.nodes())
      for (const Value& v : n->inputs)
        if (v) users_[v.node].push_back(n.get());
    for (const Output& o : graph.outputs()) returned_.insert(o.value.node);
  }

  std::vector<Group> run() {
    for (const auto& n : graph_.nodes())
      if (n->op && !is_view(*n) && !is_alias(*n)) place(*n);
    for (std::size_t g = 0; fuse_ && g < groups_.size(); ++g)
      if (groups_[g].kind == GroupKind::Concat) join_maker(static_cast<int>(g));
    materialize_views();
    for (std::size_t g = 0; g < groups_.size(); ++g) finish(static_cast<int>(g));
    return ordered();
  }

 private:
  // -- reading the graph
  // -------------------------------------------------------------------------------------
  int group_of(const Node* n) const {
    const auto it = group_.find(n);
    return it == group_.end() ? kNone : it->second;
  }

  // The values read from memory, or computed by a group, for v: through views.
  void roots(Value v, std::vector<Value>& out) const {
    if (!v) return;
    if (group_.contains(v.node) || !is_view(*v.node)) {
      if (std::find(out.begin(), out.end(), v) == out.end()) out.push_back(v);
      return;
    }
    for (const Value& in : v.node->inputs) roots(in, out);
  }

  // Nodes that read n: through views.
  void readers(const Node* n, std::set<const Node*>& out) const {
    const auto it = users_.find(n);
    if (it == users_.end()) return;
    for (const Node* u : it->second) {
      if (is_view(*u) && !group_.contains(u)) {
        if (returned_.contains(u)) out.insert(u);
        readers(u, out);
      } else {
        out.insert(u);
      }
    }
  }

  // Groups that group g needs.
  std::set<int> needs(int g) const {
    std::set<int> result;
    for (const Node* m : groups_[static_cast<std::size_t>(g)].members)
      for (const Value& in : m->inputs) needs_of(in, result);
    result.erase(g);
    return result;
  }
  void needs_of(Value v, std::set<int>& out) const {
    std::vector<Value> all;
    roots(v, all);
    for (const Value& r : all) {
      if (is_alias(*r.node)) {
        needs_of(r.node->in(0), out);
      } else if (const int h = group_of(r.node); h != kNone) {
        out.insert(h);
      }
    }
  }
  // Whether group `from` needs group `to`, directly or through others.
  bool reaches(int from, int to) const {
    const auto by_order = [&](const Node* a, const Node* b) { return order_.at(a) < order_.at(b); };
    const auto& target = groups_[static_cast<std::size_t>(to)].members;
    const int first = order_.at(*std::min_element(target.begin(), target.end(), by_order));
    std::vector<int> stack = {from};
    std::set<int> seen;
    while (!stack.empty()) {
      const int g = stack.back();
      stack.pop_back();
      if (g == to) return true;
      if (!seen.insert(g).second) continue;
      const auto& members = groups_[static_cast<std::size_t>(g)].members;
      if (members.empty() || order_.at(*std::max_element(members.begin(), members.end(), by_order)) < first)
        continue;
      for (const int h : needs(g)) stack.push_back(h);
    }
    return false;
  }

  // -- placing a node
  // ----------------------------------------------------------------------------------------
  int start(const Node& n, GroupKind kind) {
    Group g;
    g.kind = kind;
    g.members = {&n};
    g.anchor = &n;
    g.domain = n.outputs.empty() ? Shape{} : n.outputs[0].shape;
    groups_.push_back(std::move(g));
    return group_[&n] = static_cast<int>(groups_.size()) - 1;
  }

  void place(const Node& n) {
    if (n.op->composed())
      throw Error(Code::Internal, n.op->name, n.source, "a decomposed graph", "a composed op");
    if (std::holds_alternative<Structural>(n.op->definition)) {
      start(n, GroupKind::Control);
    } else if (n.op->programmed()) {
      start(n, GroupKind::Program);
    } else if (n.op->name == "concat") {
      start(n, GroupKind::Concat);
    } else if (is_contraction(n)) {
      absorb_prologue(start(n, GroupKind::Contraction));
    } else if (is_reduction(n) && reduces_trailing(n)) {
      place_rows(n);
    } else if (n.op->pointwise()) {
      place_pointwise(n);
    } else {
      absorb_prologue(start(n, GroupKind::Map));
    }
  }

  static std::vector<int> reduced_axes(const Node& n) {
    const int rank = n.in(0).rank();
    auto axes = normalize_axes(n, n.attr<std::vector<std::int64_t>>("axes"), rank);
    if (axes.empty()) {
      axes.resize(static_cast<std::size_t>(rank));
      std::iota(axes.begin(), axes.end(), 0);
    }
    return axes;
  }

  static bool reduces_trailing(const Node& n) {
    const int rank = n.in(0).rank();
    const auto axes = reduced_axes(n);
    if (axes.empty() || !n.attr<bool>("keepdims")) return false;
    for (std::size_t i = 0; i < axes.size(); ++i)
      if (axes[i] != rank - static_cast<int>(axes.size()) + static_cast<int>(i)) return false;
    Dim points = 1;
    for (const int a : axes) points = points * n.in(0).dim(a);
    return !(points == Dim(1)) && !(points == Dim(0));
  }

  static Shape row_shape(const Group& g) {
    Shape s = g.domain;
    for (const int a : g.reduced) s[static_cast<std::size_t>(a)] = 1;
    return s;
  }

  bool fits(const Node& n, const Group& g) const {
    const Shape& s = n.outputs[0].shape;
    if (g.kind == GroupKind::Rows) return s == g.domain || s == row_shape(g);
    return (g.kind == GroupKind::Map || g.kind == GroupKind::Contraction) && s == g.domain;
  }

  // Whether n may become a member of g: it reads g's members element by element, and nothing it reads needs
  // g.
  bool may_join(const Node& n, int g) const {
    if (!fuse_ || !fits(n, groups_[static_cast<std::size_t>(g)]) || !same_rate(&n, g)) return false;
    for (const Value& in : n.inputs) {
      if (!in || group_of(in.node) == g) continue;
      std::vector<Value> all;
      roots(in, all);
      for (const Value& r : all)
        if (group_of(r.node) == g) return false;  // through a view: other coordinates
      std::set<int> needed;
      needs_of(in, needed);
      for (const int h : needed)
        if (h == g || reaches(h, g)) return false;
    }
    return true;
  }

  // Whether n is computed as often as g: once, or in every run.
  bool same_rate(const Node* n, int g) const {
    return fixed_.contains(n) == fixed_.contains(groups_[static_cast<std::size_t>(g)].members[0]);
  }

  void join(const Node& n, int g) {
    groups_[static_cast<std::size_t>(g)].members.push_back(&n);
    group_[&n] = g;
  }

  // Moves the members of map group `from` into `to`.
  void merge(int from, int to) {
    Group& a = groups_[static_cast<std::size_t>(from)];
    Group& b = groups_[static_cast<std::size_t>(to)];
    for (const Node* m : a.members) group_[m] = to;
    b.members.insert(b.members.end(), a.members.begin(), a.members.end());
    sort_members(b);
    a.members.clear();
  }
  void sort_members(Group& g) const {
    std::sort(g.members.begin(), g.members.end(),
              [&](const Node* a, const Node* b) { return order_.at(a) < order_.at(b); });
  }

  // A member that reduces by itself (a pooling window) is computed where it stands only.
  static bool has_window(const Group& g) {
    return std::any_of(g.members.begin(), g.members.end(), [](const Node* m) {
      return m->op->indexed() != nullptr && !named(*m, {"gather", "pad", "dequantize_blocks"});
    });
  }

  std::vector<int> candidates(const Node& n) const {
    std::vector<int> result;
    for (const Value& in : n.inputs)
      if (in && group_of(in.node) != kNone) result.push_back(group_of(in.node));
    const auto rank = [&](int g) {
      const GroupKind k = groups_[static_cast<std::size_t>(g)].kind;
      return k == GroupKind::Contraction ? 0 : k == GroupKind::Rows ? 1 : 2;
    };
    std::sort(result.begin(), result.end(),
              [&](int a, int b) { return rank(a) != rank(b) ? rank(a) < rank(b) : a > b; });
    return result;
  }

  static bool widens_bf16(const Node& n) {
    return named(n, {"cast"}) && n.in(0).dtype() == DType::BF16 && n.outputs[0].dtype == DType::F32;
  }
  static bool widens_stored(const Node& n) {
    if (!named(n, {"cast"}) || n.outputs[0].dtype != DType::F32) return false;
    Value v = n.in(0);
    while ((is_view(*v.node) || is_alias(*v.node)) && !v.node->inputs.empty()) v = v.node->in(0);
    return (v.dtype() == DType::BF16 || v.dtype() == DType::F16) && named(*v.node, {"copy"});
  }

  // Whether a contraction multiplies what n makes, as it is or widened.
  bool is_multiplied(const Node& n) const {
    std::set<const Node*> used;
    readers(&n, used);
    return std::any_of(used.begin(), used.end(), [&](const Node* u) {
      return is_contraction(*u) || (widens_bf16(*u) && is_multiplied(*u));
    });
  }

  // Whether n makes floats of fewer bits that are in memory anyway, or for somebody who reads memory: it stays with its
  // readers, so that the few bits are what is stored.
  bool stays_with_readers(const Node& n) const {
    if (returned_.contains(&n)) return false;
    if (widens_stored(n)) return true;
    if (widens_bf16(n)) return returned_.contains(n.in(0).node) || is_multiplied(*n.in(0).node);
    if (!named(n, {"dequantize"}) || bits(n.in(0).dtype()) > 8) return false;
    std::set<const Node*> used;
    readers(n.in(0).node, used);
    if (used.size() > 1) return true;
    used.clear();
    readers(&n, used);
    return std::none_of(used.begin(), used.end(), [](const Node* u) { return u->op->pointwise(); });
  }

  void place_pointwise(const Node& n) {
    const bool apart = stays_with_readers(n);
    if (!apart)
      for (const int g : candidates(n))
        if (may_join(n, g)) {
          join(n, g);
          merge_operands(n, g);
          return;
        }
    const int g = start(n, GroupKind::Map);
    if (fuse_ && !apart) merge_operands(n, g);
  }

  // Elementwise groups of the same domain that n reads join it.
  void merge_operands(const Node& n, int g) {
    for (const Value& in : n.inputs) {
      if (!in) continue;
      const int h = group_of(in.node);
      if (h == kNone || h == g || groups_[static_cast<std::size_t>(h)].members.empty()) continue;
      const Group& other = groups_[static_cast<std::size_t>(h)];
      if (!same_rate(other.members[0], g)) continue;
      if (other.kind != GroupKind::Map || has_window(other) ||
          !(other.domain == groups_[static_cast<std::size_t>(g)].domain))
        continue;
      // Reading h element by element is what merging allows; any other path from h to g forbids it.
      bool legal = true;
      for (const Node* m : groups_[static_cast<std::size_t>(g)].members)
        for (const Value& v : m->inputs) {
          if (!v || group_of(v.node) == h) continue;
          std::set<int> needed;
          needs_of(v, needed);
          for (const int x : needed) legal = legal && x != h && (x == g || !reaches(x, h));
        }
      for (const int x : needs(h)) legal = legal && x != g && !reaches(x, g);
      if (legal) merge(h, g);
    }
  }

  void place_rows(const Node& n) {
    const int h = group_of(n.in(0).node);
    if (fuse_ && h != kNone) {
      Group& g = groups_[static_cast<std::size_t>(h)];
      const bool same_rows =
          g.kind == GroupKind::Rows && g.reduced == reduced_axes(n) && g.domain == n.in(0).shape();
      const bool elementwise = g.kind == GroupKind::Map && g.domain == n.in(0).shape() && !has_window(g);
      if ((same_rows || elementwise) && same_rate(&n, h)) {
        g.kind = GroupKind::Rows;
        g.reduced = reduced_axes(n);
        join(n, h);
        return;
      }
    }
    const int g = start(n, GroupKind::Rows);
    groups_[static_cast<std::size_t>(g)].domain = n.in(0).shape();
    groups_[static_cast<std::size_t>(g)].reduced = reduced_axes(n);
  }

  // Cheap elementwise groups that only this one reads are computed where they are read.
  void absorb_prologue(int g) {
    if (!fuse_) return;
    const Node* anchor = groups_[static_cast<std::size_t>(g)].anchor;
    for (const Value& in : anchor->inputs) {
      std::vector<Value> all;
      roots(in, all);
      for (const Value& r : all) {
        const int h = group_of(r.node);
        if (h == kNone || h == g) continue;
        const Group& other = groups_[static_cast<std::size_t>(h)];
        if (other.kind != GroupKind::Map || other.members.size() > kPrologueOps || has_window(other))
          continue;
        // Weights in few bits stay so: their blocks become floats where they are multiplied.
        const bool in_blocks = std::any_of(other.members.begin(), other.members.end(),
                                           [](const Node* m) { return named(*m, {"dequantize_blocks"}); });
        bool only = in_blocks || same_rate(anchor, h);
        for (const Node* m : other.members) {
          only = only && !returned_.contains(m) && !is_costly(*m) && m->op->name != "copy";
          std::set<const Node*> used;
          readers(m, used);
          for (const Node* u : used) only = only && group_of(u) != kNone && (u == anchor || group_of(u) == h);
        }
        if (!only) continue;
        Group moved = other;
        groups_[static_cast<std::size_t>(h)].members.clear();
        for (const Node* m : moved.members) join(*m, g);
        sort_members(groups_[static_cast<std::size_t>(g)]);
      }
    }
  }

  // Pieces that one group computes side by side are stored where they belong.
  void join_maker(int concat) {
    const Node& n = *groups_[static_cast<std::size_t>(concat)].anchor;
    const int maker = group_of(n.in(0).node);
    if (maker == kNone) return;
    const Group& g = groups_[static_cast<std::size_t>(maker)];
    const bool elementwise = g.kind == GroupKind::Map || g.kind == GroupKind::Contraction;
    const bool all = std::all_of(n.inputs.begin(), n.inputs.end(), [&](const Value& v) {
      return group_of(v.node) == maker && v.shape() == g.domain && v.node->op->pointwise();
    });
    if (elementwise && all && same_rate(&n, maker)) merge(concat, maker);
  }

  // -- memory
  // ------------------------------------------------------------------------------------------------ Views
  // that someone needs in memory: stored permuted by their producer, or a group of their own.
  void materialize_views() {
    for (const auto& n : graph_.nodes()) {
      if (!n->op || !is_view(*n) || group_.contains(n.get())) continue;
      bool needed = returned_.contains(n.get());
      for (const Node* u : users_[n.get()]) {
        const int g = group_of(u);
        needed = needed || is_alias(*u);
        if (g == kNone) continue;
        const GroupKind k = groups_[static_cast<std::size_t>(g)].kind;
        needed = needed || k == GroupKind::Program || k == GroupKind::Control ||
                 (is_gathered(*n, *u) && !reads(*n, g));
      }
      if (!needed) continue;
      const int producer = n->op->name == "transpose" ? group_of(n->in(0).node) : kNone;
      if (fuse_ && producer != kNone &&
          groups_[static_cast<std::size_t>(producer)].kind == GroupKind::Contraction &&
          n->attr<std::vector<std::int64_t>>("perm").back() == n->in(0).rank() - 1) {
        join(*n, producer);
      } else {
        start(*n, GroupKind::Map);
      }
    }
  }

  // Whether the view reads what group g itself computes.
  bool reads(const Node& view, int g) const {
    std::vector<Value> all;
    roots(view.in(0), all);
    return std::any_of(all.begin(), all.end(), [&](const Value& v) { return group_of(v.node) == g; });
  }

  // Whether u is a convolution that would read each element of the transpose n several times, across memory.
  static bool is_gathered(const Node& n, const Node& u) {
    if (n.op->name != "transpose" || u.op->name != "conv" || u.in(0).node != &n) return false;
    if (is_kernel_gradient(u)) return false;  // reads channels as neighbours
    if (n.attr<std::vector<std::int64_t>>("perm").back() == n.in(0).rank() - 1) return false;
    const std::string layout = u.attr<std::string>("kernel_layout");
    for (std::size_t i = 0; i < layout.size(); ++i)
      if (layout[i] != 'O' && layout[i] != 'I' && !(u.in(1).dim(static_cast<int>(i)) == Dim(1))) return true;
    return false;
  }

  void finish(int index) {
    Group& g = groups_[static_cast<std::size_t>(index)];
    sort_members(g);
    std::set<std::pair<const Node*, int>> seen;
    for (const Node* m : g.members)
      for (const Value& in : m->inputs) {
        std::vector<Value> all;
        // Programs and control read what stands in memory.
        if (g.kind == GroupKind::Program || g.kind == GroupKind::Control) {
          if (in) all.push_back(in);
        } else {
          roots(in, all);
        }
        for (const Value& r : all)
          if (group_of(r.node) != index && seen.insert({r.node, r.index}).second) g.inputs.push_back(r);
      }
    for (const Node* m : g.members) {
      bool needed = returned_.contains(m) || g.kind == GroupKind::Program || g.kind == GroupKind::Control;
      std::set<const Node*> used;
      readers(m, used);
      for (const Node* u : used) needed = needed || group_of(u) != index;
      if (needed)
        for (int k = 0; k < static_cast<int>(m->outputs.size()); ++k) g.outputs.push_back(m->out(k));
    }
  }

  std::vector<Group> ordered() {
    std::vector<Group> result;
    std::vector<int> state(groups_.size(), 0);
    const std::function<void(int)> emit = [&](int g) {
      if (state[static_cast<std::size_t>(g)] == 2) return;
      check(state[static_cast<std::size_t>(g)] == 0, "groups form no cycle");
      state[static_cast<std::size_t>(g)] = 1;
      for (const int h : needs(g)) emit(h);
      state[static_cast<std::size_t>(g)] = 2;
      if (!groups_[static_cast<std::size_t>(g)].outputs.empty())
        result.push_back(groups_[static_cast<std::size_t>(g)]);
    };
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (!groups_[g].members.empty()) emit(static_cast<int>(g));
    return result;
  }

  const Graph& graph_;
  bool fuse_;
  std::vector<Group> groups_;
  std::unordered_map<const Node*, int> group_, order_;
  std::unordered_map<const Node*, std::vector<const Node*>> users_;
  std::set<const Node*> returned_;
  std::set<const Node*> fixed_;  // derives from constants and parameters alone
};

}  // namespace

Group join_parts(std::span<const Group> groups, std::span<const std::size_t> places) {
  Group g;
  std::set<std::pair<const Node*, int>> inside;
  for (const std::size_t place : places) {
    const Group& part = groups[place];
    g.parts.push_back(part);
    g.members.insert(g.members.end(), part.members.begin(), part.members.end());
    for (const Value& v : part.inputs) {
      const Value memory = memory_of(v);
      if (!inside.contains({memory.node, memory.index}) &&
          std::find(g.inputs.begin(), g.inputs.end(), v) == g.inputs.end())
        g.inputs.push_back(v);
    }
    for (const Value& v : part.outputs) inside.insert({v.node, v.index});
  }
  g.anchor = g.parts.back().anchor;
  g.domain = g.parts.back().domain;
  g.outputs = g.parts.back().outputs;
  return g;
}

bool is_read_as_it_is(const Group& g, Value v) {
  const std::function<bool(Value)> views = [&](Value view) {
    return std::any_of(view.node->inputs.begin(), view.node->inputs.end(),
                       [&](const Value& in) { return in && (in == v || (is_view(*in.node) && views(in))); });
  };
  return std::all_of(g.members.begin(), g.members.end(), [&](const Node* m) {
    return std::all_of(m->inputs.begin(), m->inputs.end(),
                       [&](const Value& in) { return !in || in == v || !is_view(*in.node) || !views(in); });
  });
}

std::vector<Group> form_groups(const Graph& graph, bool fuse) { return GroupFormer(graph, fuse).run(); }

}  // namespace deepseek
