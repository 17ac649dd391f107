// The op table's public face. See include/deepseek/ops.h.
#include "deepseek/ops.h"
#include "ops/op.h"

namespace deepseek {

const std::vector<OpInfo>& op_infos() {
  static const std::vector<OpInfo> infos = [] {
    std::vector<OpInfo> all;
    for (const OpDef* def : op_table().all()) {
      OpInfo info{def->name, def->doc, {}, {}, static_cast<bool>(def->gradient)};
      for (const InputSpec& i : def->inputs) info.inputs.push_back({i.name, i.optional, i.variadic});
      for (const AttrSpec& a : def->attrs) info.attrs.push_back({a.name, a.kind, a.default_value, a.doc});
      all.push_back(std::move(info));
    }
    return all;
  }();
  return infos;
}

std::vector<Value> gradient(Graph& graph, std::string_view op, std::vector<Value> inputs, Attrs attrs,
                            std::span<const Value> dys, const std::vector<bool>& needed) {
  const std::vector<Value> results = graph.ops(op, std::move(inputs), std::move(attrs));
  const Node& node = *results.at(0).node;
  if (!node.op->gradient)
    throw Error(Code::Unsupported, std::string(op), node.source, "an op that has a gradient",
                std::string(op));
  if (dys.size() != results.size() || needed.size() != node.inputs.size())
    throw Error(Code::InvalidArgument, std::string(op), node.source,
                std::to_string(results.size()) + " gradients and " + std::to_string(node.inputs.size()) +
                    " flags of what is needed",
                std::to_string(dys.size()) + " and " + std::to_string(needed.size()));
  return node.op->gradient(graph, node, dys, needed);
}

}  // namespace deepseek
