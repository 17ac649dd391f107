// precision="bf16": what contractions multiply is rounded to bf16 where it is made, so that it is stored, read and
// multiplied in half the bytes; whoever else reads it reads the same. Sums, and what happens to them before they are
// stored, stay in fp32. storage="bf16" or "fp16": so is all else that kernels hand to each other.
#include <set>

#include "ops/graph_builder.h"
#include "passes/bytes.h"
#include "passes/groups.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

bool is_rounded(Value v) {
  if (!is_op(v, "cast") || v.dtype() != DType::F32) return false;
  const DType from = v.node->in(0).dtype();
  return from == DType::BF16 || from == DType::F16;
}

// Whose results become one kernel with what follows element by element.
bool has_epilogue(const Node& n) { return n.op && (n.op->pointwise() || n.op->indexed()); }

// What makes the elements that contractions multiply, where somebody computes them in each run.
std::set<const Node*> makers_of_operands(const Graph& graph) {
  const std::set<const Node*> fixed = fixed_nodes(graph, true);
  std::set<const Node*> returned, makers;
  for (const Output& o : graph.outputs()) returned.insert(o.value.node);
  for (const auto& n : graph.nodes()) {
    if (!n->op || !is_contraction(*n) || n->outputs[0].dtype != DType::F32) continue;
    for (Value v : n->inputs) {
      while (v && moves_elements(v) && !returned.contains(v.node)) v = v.node->in(0);
      if (v && v.dtype() == DType::F32 && has_epilogue(*v.node) && !is_rounded(v) &&
          !fixed.contains(v.node) && !returned.contains(v.node))
        makers.insert(v.node);
    }
  }
  return makers;
}

// Of few elements, nothing is won.
constexpr std::int64_t kFewElements = 1024;

// Statistics, sums along axes and what is made of those, are few and stay exact.
bool is_statistic(const Group& g, Value v) {
  const Dim count = numel(v.shape());
  return is_reduction(*v.node) || (g.kind == GroupKind::Rows && !(count == numel(g.domain))) ||
         (count.is_static() && count.value() < kFewElements);
}

// What one kernel stores for another in this graph.
std::set<const Node*> makers_of_stored(const Graph& graph, const PassOptions& options) {
  const std::set<const Node*> fixed = fixed_nodes(graph, true);
  std::set<const Node*> returned, makers;
  for (const Output& o : graph.outputs()) returned.insert(memory_of(o.value).node);
  for (const Group& g : join_attention(graph, form_groups(graph, options.allows("form_groups"))))
    for (Value v : g.outputs) {
      while (moves_elements(v)) v = v.node->in(0);
      const Node& n = *v.node;
      if (v.dtype() == DType::F32 && n.op && has_epilogue(n) && !is_statistic(g, v) && !is_rounded(v) &&
          !fixed.contains(&n) && !returned.contains(&n))
        makers.insert(&n);
    }
  return makers;
}

// Values that are returned in these few bits anyway.
std::set<const Node*> returned_in(const Graph& graph, DType dtype) {
  std::set<const Node*> result;
  for (const Output& o : graph.outputs())
    if (is_op(o.value, "cast") && o.value.dtype() == dtype) result.insert(o.value.node->in(0).node);
  return result;
}

// With what these nodes make rounded. `settle`: what is rounded is in memory of its own.
Graph rounded(const Graph& graph, const std::set<const Node*>& makers, DType dtype, bool settle) {
  const std::set<const Node*> kept = returned_in(graph, dtype);
  std::vector<const Node*> nodes;
  for (const auto& n : graph.nodes())
    if (n->op) nodes.push_back(n.get());
  std::size_t next = 0;
  const Rule rule{"round_operands", {}, [&](Graph& out, const Node& n) {
                    const Node* at = nodes.at(next++);
                    if (!makers.contains(at)) return std::vector<Value>{};
                    GraphBuilder g(out);
                    const Value exact = out.ops(n.op->name, n.inputs, n.attrs, n.name).at(0);
                    const Value narrow = g.cast(exact, dtype);
                    return std::vector<Value>{
                        g.cast(settle && !kept.contains(at) ? g.op("copy", {narrow}) : narrow, DType::F32)};
                  }};
  bool changed = false;
  return rewrite_once(graph, {&rule, 1}, changed);
}

// A view of what is rounded: what is stored is viewed. The same rounded again: what is stored.
std::vector<Value> view_of_rounded(Graph& g, const Node& n) {
  if (n.inputs.empty() || !is_rounded(n.in(0))) return {};
  const Value stored = n.in(0).node->in(0);
  if (is_op(n, "cast"))
    return n.outputs[0].dtype == stored.dtype() ? std::vector{stored} : std::vector<Value>{};
  return {g.op("cast", {g.op(n.op->name, {stored}, n.attrs)}, {{"dtype", DType::F32}})};
}

// Each reader widens by itself, where it reads.
Graph widened_by_readers(const Graph& graph) {
  const Rule rule{"widened_by_readers", {}, [](Graph& g, const Node& n) {
                    std::vector<Value> inputs = n.inputs, results;
                    bool any = false;
                    for (Value& v : inputs)
                      if (v && is_rounded(v)) {
                        v = g.op("cast", {v.node->in(0)}, {{"dtype", DType::F32}});
                        any = true;
                      }
                    if (any) results = g.ops(n.op->name, inputs, n.attrs, n.name);
                    return results;
                  }};
  bool changed = false;
  return rewrite_once(graph, {&rule, 1}, changed);
}

// With each reader of what is rounded widening it by itself.
Graph read_rounded(const Graph& g) {
  const Rule view{"view_of_rounded",
                  {"cast", "reshape", "transpose", "slice", "broadcast_to", "reverse"},
                  view_of_rounded};
  return widened_by_readers(rewrite(g, {&view, 1}));
}

}  // namespace

Graph round_operands(const Graph& g, const PassOptions& options) {
  if (!options.bf16) return g.clone();
  return read_rounded(rounded(g, makers_of_operands(g), DType::BF16, false));
}

Graph round_stored(const Graph& g, const PassOptions& options) {
  if (options.stored == DType::F32) return g.clone();
  return read_rounded(merge_common(rounded(g, makers_of_stored(g, options), options.stored, true), options));
}

}  // namespace deepseek
