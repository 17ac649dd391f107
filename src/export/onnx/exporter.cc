#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <unordered_map>

#include "deepseek/export_onnx.h"
#include "export/onnx/rules.h"
#include "passes/rewrite.h"

namespace deepseek {
namespace onnx_export {

namespace {

constexpr std::int64_t kOpset = 21, kIrVersion = 10;

// Ops that move elements or convert them: ONNX takes narrow types there.
bool takes_narrow_types(std::string_view op) {
  static constexpr std::array kOps = {"bitcast",
                                      "broadcast_to",
                                      "cast",
                                      "concat",
                                      "copy",
                                      "dequantize",
                                      "dequantize_blocks",
                                      "dynamic_slice",
                                      "dynamic_update_slice",
                                      "full",
                                      "gather",
                                      "gather_elements",
                                      "gather_nd",
                                      "if",
                                      "iota",
                                      "pad",
                                      "quantize",
                                      "reshape",
                                      "reverse",
                                      "roll",
                                      "scatter_elements",
                                      "scatter_nd",
                                      "select",
                                      "shape_of",
                                      "slice",
                                      "split",
                                      "squeeze",
                                      "stack",
                                      "tile",
                                      "transpose",
                                      "triangular",
                                      "unsqueeze",
                                      "while"};
  return std::find(kOps.begin(), kOps.end(), op) != kOps.end();
}

// Narrow types whose arithmetic ONNX lacks or readers leave out: computed as we do, in a wider type, rounded after.
DType wider(DType t) { return t == DType::F16 ? t : compute_type(t); }

std::vector<Value> widened(Graph& g, const Node& n) {
  if (takes_narrow_types(n.op->name)) return {};
  bool narrow = false;
  std::vector<Value> inputs = n.inputs;
  for (Value& v : inputs) {
    if (!v || wider(v.dtype()) == v.dtype()) continue;
    v = g.op("cast", {v}, {{"dtype", wider(v.dtype())}});
    narrow = true;
  }
  if (!narrow) return {};
  std::vector<Value> results = g.ops(n.op->name, std::move(inputs), n.attrs, n.name);
  for (std::size_t i = 0; i < results.size(); ++i)
    if (results[i].dtype() != n.outputs[i].dtype)
      results[i] = g.op("cast", {results[i]}, {{"dtype", n.outputs[i].dtype}});
  return results;
}

// What rules can write: definitions in place of composed ops without a rule, no arithmetic of narrow types.
Graph prepared(const Graph& graph) {
  const deepseek::Rule passes[] = {
      {"definition",
       {},
       [](Graph& out, const Node& n) {
         const Composed* c = rules().find(n) ? nullptr : n.op->composed();
         return c ? c->fn(out, n) : std::vector<Value>{};
       }},
      {"wider", {}, widened},
  };
  return rewrite(graph, passes);
}

// Results without elements: readers differ on what operators make of none.
bool all_empty(const Node& n) {
  return !n.outputs.empty() && std::all_of(n.outputs.begin(), n.outputs.end(), [](const Type& t) {
    return is_static(t.shape) && std::find(t.shape.begin(), t.shape.end(), Dim(0)) != t.shape.end();
  });
}

void write(Writer& w, const Node& n) {
  if (all_empty(n)) {
    for (int i = 0; i < static_cast<int>(n.outputs.size()); ++i)
      w.define(n.out(i), w.full(n.out(i).type(), 0));
    return;
  }
  const Rule* rule = rules().find(n);
  if (!rule) unsupported("an op that ONNX has an operator for", "'" + n.op->name + "'");
  const Names results = rule->write(w, n);
  check(results.size() >= n.outputs.size(), "a name for each result");
  for (std::size_t i = 0; i < n.outputs.size(); ++i) w.define(n.out(static_cast<int>(i)), results[i]);
}

}  // namespace

void unsupported(std::string expected, std::string got) {
  throw Error(Code::Unsupported, "", "", std::move(expected), std::move(got));
}

DType wide_integer(DType t) { return is_integer(t) && bits(t) < 32 ? DType::I32 : t; }

const Rule* Rules::find(const Node& n) const {
  const auto it = rules_.find(n.op->name);
  if (it == rules_.end() || (it->second.applies && !it->second.applies(n))) return nullptr;
  return &it->second;
}

const Rules& rules() {
  static const Rules table = [] {
    Rules r;
    add_elementwise_rules(r);
    add_integer_rules(r);
    add_shape_rules(r);
    add_index_rules(r);
    add_reduce_rules(r);
    add_nn_rules(r);
    add_pool_rules(r);
    add_control_rules(r);
    add_expert_rules(r);
    return r;
  }();
  return table;
}

Names write_graph(Writer& w, const Graph& graph, const Names& inputs, const Names& wanted) {
  const Graph ready = prepared(graph);
  const std::vector<Output> outputs = ready.outputs();
  std::unordered_map<const Node*, std::vector<std::size_t>> of_node;
  for (std::size_t i = 0; i < outputs.size(); ++i) of_node[outputs[i].value.node].push_back(i);
  Names results(outputs.size());
  std::size_t next_input = 0;
  for (const auto& n : ready.nodes()) {
    const int first = w.nodes();
    try {
      if (n->is_input())
        w.define(n->out(), inputs.at(next_input++));
      else if (n->is_constant())
        w.define(n->out(), w.constant(n->data, n->name));
      else
        write(w, *n);
      for (const std::size_t i : of_node[n.get()]) {
        results[i] = w.name_of(outputs[i].value);
        if (wanted.empty()) continue;
        const bool named = std::find(wanted.begin(), wanted.end(), results[i]) != wanted.end();
        w.rename(results[i], wanted[i], named || n->op == nullptr ? w.nodes() : first);
        w.define(outputs[i].value, results[i]);
      }
    } catch (const Error& e) {
      throw e.with_context(std::string(n->op_name()), n->source);
    }
    w.describe(first, *n);
  }
  return results;
}

}  // namespace onnx_export

std::string export_onnx(const Graph& graph, const std::string& name) {
  using namespace onnx_export;
  Writer w;
  Names inputs, wanted;
  std::vector<Type> types;
  for (const Output& o : graph.outputs()) {
    wanted.push_back(o.name);
    types.push_back(o.value.type());
    w.reserve(o.name);
  }
  for (const Node* n : graph.inputs()) {
    inputs.push_back(n->name);
    try {
      if (std::find(wanted.begin(), wanted.end(), n->name) != wanted.end())
        throw Error(Code::InvalidArgument, "", "", "a result that is not called as an input is",
                    "'" + n->name + "'");
      w.reserve(n->name);
      set_type(*w.graph().add_input(), n->name, n->outputs[0]);
    } catch (const Error& e) {
      throw e.with_context("placeholder", n->source);
    }
  }
  write_graph(w, graph, inputs, wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i) set_type(*w.graph().add_output(), wanted[i], types[i]);
  w.remove_dead();
  onnx::ModelProto model;
  model.set_ir_version(kIrVersion);
  model.set_producer_name("deepseek");
  model.add_opset_import()->set_version(kOpset);
  model.mutable_graph()->Swap(&w.graph());
  model.mutable_graph()->set_name(name);
  const std::size_t size = model.ByteSizeLong();
  if (size > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw Error(Code::ResourceExhausted, "export_onnx", name, "a model below 2 GiB",
                std::to_string(size) + " bytes");
  return model.SerializeAsString();
}

void export_onnx(const Graph& graph, const std::filesystem::path& path) {
  const std::string bytes = export_onnx(graph, path.stem().string());
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush())
    throw Error(Code::NotFound, "export_onnx", path.string(), "a file that can be written", "none");
}

}  // namespace deepseek
