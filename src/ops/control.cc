// Control flow: sub-graphs that the executor runs.
#include "ops/entries.h"

namespace deepseek {
namespace {

using SubGraph = std::shared_ptr<const Graph>;

// Sub-graphs have symbols of their own, so nothing follows from a name: what they get is checked when they are bound.
bool could_equal(const Dim& a, const Dim& b) { return a == b || !a.is_static() || !b.is_static(); }

// Checks that inputs[first ...] fit the sub-graph's placeholders.
void check_call(const Node& n, const Graph& g, std::size_t first, const std::string& what) {
  const auto placeholders = g.inputs();
  if (placeholders.size() != n.inputs.size() - first)
    bad_input(n, what + " with " + std::to_string(n.inputs.size() - first) + " placeholders",
              std::to_string(placeholders.size()));
  for (std::size_t i = 0; i < placeholders.size(); ++i) {
    const Type &want = placeholders[i]->outputs[0], &got = n.inputs[first + i].type();
    bool fits = want.dtype == got.dtype && want.shape.size() == got.shape.size();
    for (std::size_t k = 0; fits && k < want.shape.size(); ++k)
      fits = could_equal(want.shape[k], got.shape[k]);
    if (!fits)
      bad_input(n, "'" + placeholders[i]->name + "' of the " + what + " to be " + str(want), str(got));
  }
}

void check_same(const Node& n, const Type& a, const Type& b, const std::string& what) {
  bool fits = a.dtype == b.dtype && a.shape.size() == b.shape.size();
  for (std::size_t k = 0; fits && k < a.shape.size(); ++k) fits = could_equal(a.shape[k], b.shape[k]);
  if (!fits) bad_input(n, what + " " + str(a), str(b));
}

void check_condition(const Node& n, const Type& t) {
  if (t.dtype != DType::Bool || !(numel(t.shape) == Dim(1))) bad_input(n, "a condition of one bool", str(t));
}

std::vector<Type> infer_if(const Node& n) {
  check_condition(n, n.in(0).type());
  const Graph &then = *n.attr<SubGraph>("then"), &otherwise = *n.attr<SubGraph>("otherwise");
  check_call(n, then, 1, "then graph");
  check_call(n, otherwise, 1, "otherwise graph");
  const auto a = then.outputs(), b = otherwise.outputs();
  if (a.size() != b.size())
    bad_input(n, "as many results of both graphs",
              std::to_string(a.size()) + " and " + std::to_string(b.size()));
  std::vector<Type> types;
  for (std::size_t i = 0; i < a.size(); ++i) {
    check_same(n, a[i].value.type(), b[i].value.type(), "both graphs to give");
    types.push_back(a[i].value.type());
  }
  return types;
}

std::vector<Type> infer_while(const Node& n) {
  const Graph &condition = *n.attr<SubGraph>("condition"), &body = *n.attr<SubGraph>("body");
  const std::int64_t carried = integer(n, "carried");
  if (carried < 0 || carried > static_cast<std::int64_t>(n.inputs.size()))
    bad_input(n, "at most " + std::to_string(n.inputs.size()) + " carried inputs", std::to_string(carried));
  check_call(n, condition, 0, "condition graph");
  check_call(n, body, 0, "body graph");
  const auto tests = condition.outputs(), results = body.outputs();
  if (tests.size() != 1) bad_input(n, "one result of the condition", std::to_string(tests.size()));
  check_condition(n, tests[0].value.type());
  if (static_cast<std::int64_t>(results.size()) != carried)
    bad_input(n, "a body with " + std::to_string(carried) + " results", std::to_string(results.size()));
  std::vector<Type> types;
  for (std::size_t i = 0; i < results.size(); ++i) {
    check_same(n, n.inputs[i].type(), results[i].value.type(), "state " + std::to_string(i) + " to stay");
    types.push_back(n.inputs[i].type());
  }
  return types;
}

}  // namespace

void add_control_ops(OpTable& t) {
  t.add("if")
      .doc(
          "The results of `then` where the condition holds, of `otherwise` elsewhere; both graphs take the "
          "inputs after the condition. Only one of them runs.")
      .input_free("condition", Accepts::Bool)
      .inputs_variadic("inputs", Accepts::Any, true)
      .attr("then", AttrKind::Graph, "The graph for true.")
      .attr("otherwise", AttrKind::Graph, "The graph for false.")
      .infer(infer_if)
      .structural();
  t.add("while")
      .doc(
          "Runs `body` while `condition` holds. Both graphs take all inputs; the first `carried` ones are "
          "the loop's "
          "state, which the body's results replace, the others stay as they are. Gives the last state.")
      .inputs_variadic("inputs", Accepts::Any, true)
      .attr("condition", AttrKind::Graph, "Whether to go on: one bool.")
      .attr("body", AttrKind::Graph, "One iteration.")
      .attr("carried", AttrKind::Int, "How many inputs are state.")
      .infer(infer_while)
      .structural();
}

}  // namespace deepseek
