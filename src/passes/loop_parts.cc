#include "passes/loop_parts.h"

#include <algorithm>

#include "passes/rewrite.h"

namespace deepseek {

namespace {

int uses_of(const Graph& g, Value v) {
  std::ptrdiff_t count = 0;
  for (const auto& n : g.nodes()) count += std::count(n->inputs.begin(), n->inputs.end(), v);
  for (const Output& o : g.outputs()) count += o.value == v ? 1 : 0;
  return static_cast<int>(count);
}

}  // namespace

BodyOfParts give_parts(const Graph& body, int carried) {
  BodyOfParts result{body.clone(), {}};
  Graph& g = result.graph;
  std::vector<Value> places;
  for (int i = 0; i < carried && g.names_outputs(); ++i) {
    const Value state = g.inputs()[static_cast<std::size_t>(i)]->out();
    const Value next = g.outputs()[static_cast<std::size_t>(i)].value;
    const bool writes_part = is_op(next, "dynamic_update_slice") && next.node->in(0) == state &&
                             bits(state.dtype()) >= 8 && uses_of(g, state) == 1 && uses_of(g, next) == 1;
    if (!writes_part) continue;
    result.parts.push_back(i);
    places.push_back(next.node->in(2));
    g.replace_uses(next, next.node->in(1));
  }
  for (std::size_t i = 0; i < places.size(); ++i)
    g.output("place of part " + std::to_string(result.parts[i]), places[i]);
  g.remove_dead();
  return result;
}

}  // namespace deepseek
