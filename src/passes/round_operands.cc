// precision="bf16": what contractions multiply is rounded to bf16 where it is made, so that it is stored, read and
// multiplied in half the bytes; whoever else reads it reads the same. Sums, and what happens to them before they are
// stored, stay in fp32.
#include <set>

#include "ops/graph_builder.h"
#include "passes/bytes.h"
#include "passes/groups.h"
#include "passes/pipeline.h"

namespace deepseek {

namespace {

bool is_rounded(Value v) {
  return is_op(v, "cast") && v.dtype() == DType::F32 && v.node->in(0).dtype() == DType::BF16;
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

Graph rounded(const Graph& graph, const std::set<const Node*>& makers) {
  std::vector<bool> rounds;
  for (const auto& n : graph.nodes())
    if (n->op) rounds.push_back(makers.contains(n.get()));
  std::size_t next = 0;
  const Rule rule{"round_operands", {}, [&](Graph& out, const Node& n) {
                    if (!rounds.at(next++)) return std::vector<Value>{};
                    GraphBuilder g(out);
                    const Value exact = out.ops(n.op->name, n.inputs, n.attrs, n.name).at(0);
                    return std::vector<Value>{g.widen(g.cast(exact, DType::BF16))};
                  }};
  bool changed = false;
  return rewrite_once(graph, {&rule, 1}, changed);
}

// A view of what is rounded: what is stored is viewed.
std::vector<Value> view_of_rounded(Graph& g, const Node& n) {
  if (n.inputs.empty() || !is_rounded(n.in(0))) return {};
  return {g.op("cast", {g.op(n.op->name, {n.in(0).node->in(0)}, n.attrs)}, {{"dtype", DType::F32}})};
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

}  // namespace

Graph round_operands(const Graph& g, const PassOptions& options) {
  if (!options.bf16) return g.clone();
  const Rule view{
      "view_of_rounded", {"reshape", "transpose", "slice", "broadcast_to", "reverse"}, view_of_rounded};
  return widened_by_readers(rewrite(rounded(g, makers_of_operands(g)), {&view, 1}));
}

}  // namespace deepseek
