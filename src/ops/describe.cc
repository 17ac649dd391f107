// The op table's public face. See include/deepseek/ops.h.
#include "deepseek/ops.h"
#include "graph/gradient.h"
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
  return op_gradient(graph, op, std::move(inputs), std::move(attrs), dys, needed);
}

}  // namespace deepseek
