#include "import/onnx/importer.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

namespace deepseek::onnx_import {

namespace {

constexpr int kMaxDepth = 64;  // of sub-graphs and functions
constexpr std::int64_t kElementsPerNode = 1024;
constexpr std::int64_t kOldestOpset = 6;
constexpr std::int64_t kMaxAsked = 1024;  // elements of an input whose value may decide shapes

std::string domain_of(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

// Ops that are now as they were in opset 1.
bool never_changed(const std::string& type) {
  static const std::unordered_set<std::string> types = {
      "Conv",          "ConvTranspose", "DepthToSpace", "Floor", "Ceil",  "GlobalAveragePool",
      "GlobalMaxPool", "Identity",      "LRN",          "Not",   "Shape", "Size",
      "Softplus",      "Softsign",      "Transpose"};
  return types.contains(type);
}

std::string key_of(const std::string& domain, const std::string& type) {
  const std::string d = domain_of(domain);
  return d.empty() ? type : d + ":" + type;
}

}  // namespace

// -- source --------------------------------------------------------------------------------------------------
Source::Source(std::span<const std::byte> bytes, OnnxImportOptions o)
    : model(parse_model(bytes, o.model)), options(std::move(o)), reader(model, options.folder) {}

const Tensor& Source::tensor(const onnx::TensorProto& proto) {
  const auto it = tensors.find(&proto);
  if (it != tensors.end()) return it->second;
  try {
    return tensors.emplace(&proto, reader.read(proto)).first->second;
  } catch (const Error& e) {
    throw e.with_context("initializer", options.model + ": '" + proto.name() + "'");
  }
}

std::string Source::label(const onnx::NodeProto& node) const {
  std::string name = node.name();
  if (name.empty()) {
    for (const std::string& o : node.output())
      if (!o.empty()) name += (name.empty() ? "" : ", ") + o;
    name = "node of " + name;
  }
  return name;
}

OnnxKind kind_of(const onnx::TypeProto& type) {
  if (type.has_sequence_type()) return OnnxKind::Sequence;
  if (!type.has_optional_type()) return OnnxKind::Tensor;
  return type.optional_type().elem_type().has_sequence_type() ? OnnxKind::OptionalSequence
                                                              : OnnxKind::Optional;
}

std::string element_name(const std::string& sequence, std::size_t i) {
  return sequence + "[" + std::to_string(i) + "]";
}

std::vector<OnnxInput> Source::inputs() {
  std::unordered_set<std::string> initialised;
  for (const auto& t : model->graph().initializer()) initialised.insert(t.name());
  std::vector<OnnxInput> result;
  std::unordered_set<std::string> seen;
  for (const auto& v : model->graph().input()) {
    if (initialised.contains(v.name())) continue;
    const auto bad = [&](Code code, std::string expected, std::string got) {
      throw Error(code, "input", options.model + ": '" + v.name() + "'", std::move(expected), std::move(got));
    };
    if (!seen.insert(v.name()).second)
      bad(Code::InvalidArgument, "a name that is not taken", "the same again");
    OnnxInput input{v.name(), {}, kind_of(v.type())};
    const onnx::TypeProto* type = &v.type();
    if (type->has_optional_type()) type = &type->optional_type().elem_type();
    if (type->has_sequence_type()) type = &type->sequence_type().elem_type();
    if (!type->has_tensor_type())
      bad(Code::Unsupported, "a tensor, or a sequence or optional of tensors",
          v.has_type() ? "a map" : "no type");
    const auto& t = type->tensor_type();
    try {
      input.type.dtype = dtype_of(t.elem_type());
    } catch (const Error& e) {
      throw e.with_context("input", options.model + ": '" + v.name() + "'");
    }
    if (input.kind != OnnxKind::Tensor) {
      result.push_back(std::move(input));
      continue;
    }
    const auto given = options.shapes.find(v.name());
    if (given != options.shapes.end()) {
      input.type.shape = given->second;
    } else {
      if (!t.has_shape()) bad(Code::Unsupported, "an input of known rank", "no shape");
      for (int i = 0; i < t.shape().dim_size(); ++i) {
        const auto& d = t.shape().dim(i);
        if (d.has_dim_value() && (d.dim_value() < 0 || d.dim_value() > kMaxDim))
          bad(Code::InvalidArgument, "dims from 0 to 2^48", std::to_string(d.dim_value()));
        if (d.has_dim_value())
          input.type.shape.emplace_back(d.dim_value());
        else
          input.type.shape.push_back(
              Dim::symbol(d.dim_param().empty() ? v.name() + "_" + std::to_string(i) : d.dim_param()));
      }
    }
    if (is_static(input.type.shape)) numel(static_dims(input.type.shape));  // throws on overflow
    result.push_back(std::move(input));
  }
  return result;
}

// -- importer ------------------------------------------------------------------------------------------------
Importer::Importer(Source& source, const OnnxProgram::Values& values, const Wanted& wanted)
    : source_(source), values_(values), wanted_(wanted) {
  for (const auto& f : source.model->functions())
    functions_[key_of(f.domain(), f.name()) + "/" + f.overload()] = &f;
  for (const auto& o : source.model->opset_import()) opsets_[domain_of(o.domain())] = o.version();
}

std::int64_t Importer::opset(const std::string& domain) const {
  const auto it = opsets_.find(domain_of(domain));
  return it == opsets_.end() ? 1 : it->second;
}

void Importer::count_nodes(std::size_t n) {
  const std::size_t most = source_.options.max_nodes;
  if (n > most || nodes_ > most - n)
    throw Error(Code::ResourceExhausted, "", "", "at most " + std::to_string(most) + " nodes after unrolling",
                "more");
  nodes_ += n;
}

void Importer::count_elements(std::int64_t rows, std::int64_t columns) {
  std::int64_t n = 0;
  if (__builtin_mul_overflow(rows, columns, &n)) n = std::numeric_limits<std::int64_t>::max();
  count_nodes(static_cast<std::size_t>(n / kElementsPerNode));
}

// A placeholder of this name; its value is known where it is wanted and given.
Item Importer::declare(const std::string& name, const Type& type, const std::optional<Tensor>& value) {
  Item item(graph_.placeholder(name, type.dtype, type.shape));
  if (!value || !wanted_.values.contains(name)) return item;
  if (value->dtype() != type.dtype || value->dims().size() != type.shape.size())
    throw Error(Code::InvalidArgument, "input", source_.options.model + ": '" + name + "'", str(type),
                std::string(deepseek::name(value->dtype())) + str(value->dims()));
  if (auto k = Known::of(*value)) item.known = std::make_shared<const Known>(std::move(*k));
  return item;
}

void Importer::declare_inputs(Scope& scope) {
  for (const OnnxInput& input : source_.inputs()) {
    if (input.kind == OnnxKind::Tensor) {
      const bool fixed = wanted_.shapes.contains(input.name);
      const bool asked = values_ && (fixed || wanted_.values.contains(input.name));
      const auto value = asked ? values_(input.name) : std::nullopt;
      Type type = input.type;
      if (fixed && value && value->dims().size() == type.shape.size()) type.shape = to_shape(value->dims());
      scope.items[input.name] = declare(input.name, type, value);
      continue;
    }
    if (!values_) throw NeedsInputs{{input.name}, {}};
    // Each element has the shape that came.
    const auto given = [&](const std::string& name) -> std::optional<Item> {
      const auto value = values_(name);
      if (!value) return std::nullopt;
      return declare(name, {input.type.dtype, to_shape(value->dims())}, value);
    };
    if (input.kind == OnnxKind::Optional) {
      scope.items[input.name] = given(input.name).value_or(Item());
      continue;
    }
    std::vector<Item> elements;
    while (const auto item = given(element_name(input.name, elements.size()))) elements.push_back(*item);
    const bool absent = input.kind == OnnxKind::OptionalSequence && elements.empty();
    scope.items[input.name] = absent ? Item() : Item(std::move(elements));
  }
}

// Names a result in the graph: a tensor, or each element of a sequence.
void Importer::give_output(const std::string& name, Item item, Scope& scope) {
  if (item.kind == Item::Kind::Tensor) return graph_.output(name, value(item, scope));
  if (item.kind == Item::Kind::Absent) return;
  for (std::size_t i = 0; i < item.sequence->size(); ++i)
    give_output(element_name(name, i), (*item.sequence)[i], scope);
}

Graph Importer::run() {
  const onnx::GraphProto& g = source_.model->graph();
  Scope scope;
  scope.graph = &graph_;
  for (const auto& t : g.initializer()) scope.initializers[t.name()] = &t;
  if (g.sparse_initializer_size() > 0)
    throw Error(Code::Unsupported, "initializer", source_.options.model, "dense initializers",
                "a sparse one");
  declare_inputs(scope);
  for (const auto& node : g.node()) run_node(node, scope);
  bool any = false;
  for (const auto& o : g.output()) {
    const std::string where = source_.options.model + ": '" + o.name() + "'";
    graph_.set_source(where);
    try {
      const Item item = lookup(o.name(), scope);
      any = any || item.kind == Item::Kind::Tensor ||
            (item.kind == Item::Kind::Sequence && !item.sequence->empty());
      give_output(o.name(), item, scope);
    } catch (const Error& e) {
      throw e.with_context("output", where);
    }
  }
  if (!any)
    throw Error(Code::Unsupported, "output", source_.options.model, "at least one tensor as a result",
                "none");
  graph_.remove_dead();
  return std::move(graph_);
}

Item Importer::lookup(const std::string& name, Scope& scope) {
  for (Scope* s = &scope; s; s = s->parent) {
    const auto it = s->items.find(name);
    if (it != s->items.end()) return it->second;
    const auto init = s->initializers.find(name);
    if (init == s->initializers.end()) continue;
    Item item(graph_.constant(source_.tensor(*init->second), name));
    s->items[name] = item;
    return item;
  }
  throw Error(Code::InvalidArgument, "", "", "a value that an earlier node, an input or an initializer gives",
              "'" + name + "'");
}

Value Importer::value(Item& item, Scope& scope) {
  if (item.kind != Item::Kind::Tensor)
    throw Error(Code::InvalidArgument, "", "", "a tensor",
                item.kind == Item::Kind::Absent ? "nothing" : "a sequence");
  if (item.value) return item.value;
  const Known& k = *item.known;
  if (k.is_static()) {
    item.value = scope.graph->constant(k.tensor());
  } else {
    Emit e(*scope.graph);
    std::vector<Value> dims;
    for (const Dim& d : k.ints) dims.push_back(e.reshape(e.dim(d, k.dtype), {1}));
    item.value = e.reshape(e.concat(std::move(dims), 0), to_shape(k.dims));
  }
  return item.value;
}

void Importer::run_node(const onnx::NodeProto& node, Scope& scope) {
  const std::string label = source_.label(node);
  const std::string where = source_.options.model + ": " + label;
  const std::string before = scope.graph->source();
  scope.graph->set_source(label);
  try {
    count_nodes(1);
    translate(node, scope);
  } catch (const Error& e) {
    // An inner node's error says where it happened already.
    if (e.source().starts_with(source_.options.model + ": ")) throw;
    throw Error(e.code(), node.op_type(), where, e.expected(), e.got());
  } catch (const std::bad_alloc&) {
    throw Error(Code::ResourceExhausted, node.op_type(), where, "memory", "none left");
  } catch (const std::exception& e) {
    // at() of a shape or list that is shorter than the op needs
    throw Error(Code::InvalidArgument, node.op_type(), where, "inputs of the ranks that the op takes",
                e.what());
  }
  scope.graph->set_source(before);
}

void Importer::translate(const onnx::NodeProto& node, Scope& scope) {
  const std::string key = key_of(node.domain(), node.op_type());
  const auto f = functions_.find(key + "/" + node.overload());
  if (f != functions_.end()) return call(*f->second, node, scope);
  const Translate* t = translators().find(key);
  if (!t) throw Error(Code::Unsupported, "", "", "an op that we have", "'" + key + "'");
  const std::int64_t oldest = key == "Upsample" ? 7 : kOldestOpset;  // its scales had other names before
  if (key == node.op_type() && opset("") < oldest && !never_changed(key))
    throw Error(Code::Unsupported, "", "", "opset " + std::to_string(oldest) + " or newer",
                std::to_string(opset("")));
  Context c(*this, node, scope, opset(node.domain()));
  if (auto k = fold(c)) return c.out(0, Item(std::move(*k)));
  (*t)(c);
  for (int i = 0; i < c.outputs(); ++i)
    if (c.wants(i) && !scope.items.contains(node.output(i)))
      throw Error(Code::Unsupported, "", "", "fewer outputs", "output " + std::to_string(i));
}

void Importer::call(const onnx::FunctionProto& f, const onnx::NodeProto& node, Scope& scope) {
  if (++depth_ > kMaxDepth)
    throw Error(Code::InvalidArgument, "", "", "functions that do not call themselves", "'" + f.name() + "'");
  Bindings bindings;
  for (const auto& a : f.attribute_proto()) bindings[a.name()] = &a;
  for (const auto& a : node.attribute()) {
    const onnx::AttributeProto* given = &a;
    if (!a.ref_attr_name().empty()) {
      const auto it = scope.bindings ? scope.bindings->find(a.ref_attr_name()) : Bindings::const_iterator{};
      if (!scope.bindings || it == scope.bindings->end()) continue;
      given = it->second;
    }
    bindings[a.name()] = given;
  }
  Scope body;
  body.graph = scope.graph;
  body.bindings = &bindings;
  if (node.input_size() > f.input_size() || node.output_size() > f.output_size())
    throw Error(Code::InvalidArgument, "", "", "as many inputs and outputs as the function has", "more");
  for (int i = 0; i < f.input_size(); ++i)
    body.items[f.input(i)] =
        i < node.input_size() && !node.input(i).empty() ? lookup(node.input(i), scope) : Item();
  const auto outer_opsets = opsets_;
  for (const auto& o : f.opset_import()) opsets_[domain_of(o.domain())] = o.version();
  for (const auto& n : f.node()) run_node(n, body);
  opsets_ = outer_opsets;
  for (int i = 0; i < node.output_size(); ++i)
    if (!node.output(i).empty()) scope.items[node.output(i)] = lookup(f.output(i), body);
  --depth_;
}

std::vector<Item> Importer::inline_graph(const onnx::GraphProto& g, std::vector<Item> inputs, Scope& parent) {
  if (++depth_ > kMaxDepth)
    throw Error(Code::InvalidArgument, "", "", "sub-graphs less deep", "more than 64");
  Scope scope;
  scope.parent = &parent;
  scope.graph = parent.graph;
  scope.bindings = parent.bindings;
  for (const auto& t : g.initializer()) scope.initializers[t.name()] = &t;
  if (static_cast<int>(inputs.size()) != g.input_size())
    throw Error(Code::InvalidArgument, "", "", std::to_string(inputs.size()) + " inputs of the sub-graph",
                std::to_string(g.input_size()));
  for (int i = 0; i < g.input_size(); ++i)
    scope.items[g.input(i).name()] = std::move(inputs[static_cast<std::size_t>(i)]);
  for (const auto& n : g.node()) run_node(n, scope);
  std::vector<Item> outputs;
  for (const auto& o : g.output()) outputs.push_back(lookup(o.name(), scope));
  --depth_;
  return outputs;
}

void Importer::ask_for(const Value& v, const Context& c) {
  std::vector<std::string> names;
  std::vector<const Node*> stack{v.node};
  std::unordered_set<const Node*> seen;
  bool small = true;
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    if (!seen.insert(n).second) continue;
    if (n->is_input()) {
      const Dim count = numel(n->outputs[0].shape);
      small =
          small && (!count.is_static() || count.value() <= kMaxAsked) && n->outputs[0].dtype != DType::String;
      if (!wanted_.values.contains(n->name)) names.push_back(n->name);
    }
    for (const Value& in : n->inputs)
      if (in) stack.push_back(in.node);
  }
  if (names.empty() || !small || !seen.contains(v.node))
    c.unsupported("a constant, or a value computed from shapes and small inputs",
                  "'" + v.node->name + "', computed from data");
  throw NeedsInputs{std::move(names), {}};
}

void Importer::ask_for_shapes(const Dim& d, const Context& c, std::string expected) {
  std::vector<std::string> symbols, names;
  d.symbols(symbols);
  for (const OnnxInput& input : source_.inputs()) {
    if (input.kind != OnnxKind::Tensor || wanted_.shapes.contains(input.name)) continue;
    std::vector<std::string> own;
    for (const Dim& dim : input.type.shape) dim.symbols(own);
    const bool has = std::any_of(symbols.begin(), symbols.end(), [&](const std::string& s) {
      return std::find(own.begin(), own.end(), s) != own.end();
    });
    if (has) names.push_back(input.name);
  }
  if (names.empty()) c.unsupported(std::move(expected), d.str());
  throw NeedsInputs{{}, std::move(names)};
}

// -- table ---------------------------------------------------------------------------------------------------
const Translate* Translators::find(const std::string& key) const {
  const auto it = table_.find(key);
  return it == table_.end() ? nullptr : &it->second;
}

const Translators& translators() {
  static const Translators table = [] {
    Translators t;
    add_elementwise(t);
    add_shape(t);
    add_reduce(t);
    add_nn(t);
    add_pool(t);
    add_control(t);
    add_sequence(t);
    add_attention(t);
    add_quantize(t);
    add_loss(t);
    add_index(t);
    add_resize(t);
    add_sample(t);
    add_signal(t);
    add_rnn(t);
    add_dynamic(t);
    add_ml(t);
    add_random(t);
    return t;
  }();
  return table;
}

}  // namespace deepseek::onnx_import
