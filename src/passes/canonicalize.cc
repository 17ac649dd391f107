// One form for each thing: reductions keep their dims and name their axes, products are of matrices.
#include <numeric>

#include "passes/pipeline.h"

namespace deepseek {

namespace {

std::vector<Value> keep_reduced_dims(Graph& g, const Node& n) {
  const int rank = n.in(0).rank();
  std::vector<std::int64_t> axes = ints(n, "axes");
  const bool all = axes.empty();
  if (all) {
    axes.resize(static_cast<std::size_t>(rank));
    std::iota(axes.begin(), axes.end(), 0);
  }
  if (n.attr<bool>("keepdims") && !(all && rank > 0)) return {};
  const Value kept = g.op(n.op->name, n.inputs, {{"axes", axes}, {"keepdims", true}});
  if (n.attr<bool>("keepdims")) return {kept};
  return {g.op("reshape", {kept}, {{"shape", n.outputs[0].shape}})};
}

std::vector<Value> matrices_only(Graph& g, const Node& n) {
  Value a = n.in(0), b = n.in(1);
  if (a.rank() >= 2 && b.rank() >= 2) return {};
  if (a.rank() == 1) a = g.op("reshape", {a}, {{"shape", Shape{1, a.dim(0)}}});
  if (b.rank() == 1) b = g.op("reshape", {b}, {{"shape", Shape{b.dim(0), 1}}});
  return {g.op("reshape", {g.op("matmul", {a, b})}, {{"shape", n.outputs[0].shape}})};
}

}  // namespace

std::span<const Rule> canonical_rules() {
  static const std::vector<Rule> rules = {
      {"keep_reduced_dims", {"sum", "mean", "prod", "max", "min", "any", "all"}, keep_reduced_dims},
      {"matrices_only", {"matmul"}, matrices_only},
  };
  return rules;
}

}  // namespace deepseek
