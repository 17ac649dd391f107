// Branches and loops: their graphs' inputs are values of the graph around them.
#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

namespace {

const Graph& sub_graph(const Node& n, std::string_view attribute) {
  return *n.attr<std::shared_ptr<const Graph>>(attribute);
}

// Results under names that the sub-graph made: an outer value passed through needs one.
void give(Writer& w, const Names& results, const std::vector<Type>& types) {
  for (std::size_t i = 0; i < types.size(); ++i)
    set_type(*w.graph().add_output(), w.add("Identity", {results.at(i)}), types[i]);
}

std::vector<Type> types_of(const Graph& graph) {
  std::vector<Type> types;
  for (const Output& o : graph.outputs()) types.push_back(o.value.type());
  return types;
}

Names branch(Writer& w, const Node& n) {
  Names inputs = w.all(n);
  const std::string condition = inputs.front();
  inputs.erase(inputs.begin());
  const auto written = [&](std::string_view attribute) {
    const Graph& graph = sub_graph(n, attribute);
    Writer inner(&w);
    give(inner, write_graph(inner, graph, inputs), types_of(graph));
    inner.graph().set_name(w.fresh(attribute));
    inner.remove_dead();
    return inner.graph();
  };
  return w.add_many("If", {condition},
                    {{"then_branch", written("then")}, {"else_branch", written("otherwise")}},
                    static_cast<int>(n.outputs.size()));
}

// ONNX's Loop asks before the first iteration with a value of its own, later with the body's.
Names loop(Writer& w, const Node& n) {
  const Graph &condition = sub_graph(n, "condition"), &body = sub_graph(n, "body");
  const auto carried = static_cast<std::size_t>(n.attr<std::int64_t>("carried"));
  const Names inputs = w.all(n);
  const Names first = write_graph(w, condition, inputs);

  Writer inner(&w);
  set_type(*inner.graph().add_input(), inner.fresh("iteration"), {DType::I64, {}});
  set_type(*inner.graph().add_input(), inner.fresh("going"), {DType::Bool, {}});
  Names values = inputs;
  for (std::size_t i = 0; i < carried; ++i) {
    values[i] = inner.fresh("state");
    set_type(*inner.graph().add_input(), values[i], n.in(static_cast<int>(i)).type());
  }
  const Names next = write_graph(inner, body, values);
  for (std::size_t i = 0; i < carried; ++i) values[i] = next.at(i);
  std::vector<Type> types = {{DType::Bool, {}}};
  Names results = write_graph(inner, condition, values);
  for (std::size_t i = 0; i < carried; ++i) {
    types.push_back(n.in(static_cast<int>(i)).type());
    results.push_back(next.at(i));
  }
  give(inner, results, types);
  inner.graph().set_name(w.fresh("body"));
  inner.remove_dead();
  Names given = {"", first.at(0)};
  given.insert(given.end(), inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(carried));
  return w.add_many("Loop", given, {{"body", inner.graph()}}, static_cast<int>(carried));
}

}  // namespace

void add_control_rules(Rules& r) {
  r.add("if", branch);
  r.add("while", loop);
}

}  // namespace deepseek::onnx_export
