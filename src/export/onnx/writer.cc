#include "export/onnx/writer.h"

#include <algorithm>

namespace deepseek::onnx_export {

onnx::TensorProto::DataType type_of(DType t) {
  using P = onnx::TensorProto;
  switch (t) {
    case DType::Bool:
      return P::BOOL;
    case DType::I8:
      return P::INT8;
    case DType::U8:
      return P::UINT8;
    case DType::I16:
      return P::INT16;
    case DType::U16:
      return P::UINT16;
    case DType::I32:
      return P::INT32;
    case DType::U32:
      return P::UINT32;
    case DType::I64:
      return P::INT64;
    case DType::U64:
      return P::UINT64;
    case DType::F16:
      return P::FLOAT16;
    case DType::BF16:
      return P::BFLOAT16;
    case DType::F32:
      return P::FLOAT;
    case DType::F64:
      return P::DOUBLE;
    case DType::F8E4M3:
      return P::FLOAT8E4M3FN;
    case DType::F8E5M2:
      return P::FLOAT8E5M2;
    case DType::F8E4M3FNUZ:
      return P::FLOAT8E4M3FNUZ;
    case DType::F8E5M2FNUZ:
      return P::FLOAT8E5M2FNUZ;
    case DType::I4:
      return P::INT4;
    case DType::U4:
      return P::UINT4;
    case DType::C64:
      return P::COMPLEX64;
    case DType::C128:
      return P::COMPLEX128;
    case DType::String:
      return P::STRING;
    case DType::F8E8M0:
    case DType::F4E2M1:
    case DType::I2:
    case DType::U2:
      break;
  }
  throw Error(Code::Unsupported, "", "", "an element type of ONNX's opset 21", std::string(name(t)));
}

void set_type(onnx::ValueInfoProto& info, const std::string& name, const Type& type) {
  info.set_name(name);
  auto* tensor = info.mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(type_of(type.dtype));
  auto* shape = tensor->mutable_shape();
  for (const Dim& d : type.shape) {
    auto* dim = shape->add_dim();
    if (d.is_static())
      dim->set_dim_value(d.value());
    else
      dim->set_dim_param(d.str());
  }
}

onnx::TensorProto tensor_of(const Tensor& t, const std::string& name) {
  onnx::TensorProto proto;
  proto.set_name(name);
  proto.set_data_type(type_of(t.dtype()));
  for (const std::int64_t d : t.dims()) proto.add_dims(d);
  proto.set_raw_data(t.bytes() > 0 ? std::string(static_cast<const char*>(t.data()), t.bytes())
                                   : std::string());
  return proto;
}

namespace {

constexpr std::size_t kSmall = 64;  // bytes of a constant that is looked for among those before

void set_attribute(onnx::AttributeProto& to, const Attribute& from) {
  using P = onnx::AttributeProto;
  if (const auto* i = std::get_if<std::int64_t>(&from)) {
    to.set_type(P::INT);
    to.set_i(*i);
  } else if (const auto* f = std::get_if<double>(&from)) {
    to.set_type(P::FLOAT);
    to.set_f(static_cast<float>(*f));
  } else if (const auto* s = std::get_if<std::string>(&from)) {
    to.set_type(P::STRING);
    to.set_s(*s);
  } else if (const auto* list = std::get_if<Ints>(&from)) {
    to.set_type(P::INTS);
    to.mutable_ints()->Assign(list->begin(), list->end());
  } else if (const auto* reals = std::get_if<std::vector<double>>(&from)) {
    to.set_type(P::FLOATS);
    for (const double v : *reals) to.add_floats(static_cast<float>(v));
  } else if (const auto* strings = std::get_if<Names>(&from)) {
    to.set_type(P::STRINGS);
    for (const std::string& v : *strings) to.add_strings(v);
  } else if (const auto* tensor = std::get_if<Tensor>(&from)) {
    to.set_type(P::TENSOR);
    *to.mutable_t() = tensor_of(*tensor, "");
  } else {
    to.set_type(P::GRAPH);
    *to.mutable_g() = std::get<onnx::GraphProto>(from);
  }
}

}  // namespace

// -- nodes ---------------------------------------------------------------------------------------------------
std::string Writer::add(std::string_view type, Names inputs, Attributes attributes) {
  return add_many(type, std::move(inputs), std::move(attributes), 1).front();
}

Names Writer::add_many(std::string_view type, Names inputs, Attributes attributes, int outputs) {
  while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
  Names results;
  for (int i = 0; i < outputs; ++i) results.push_back(fresh(type));
  onnx::NodeProto& node = *graph_.add_node();
  node.set_op_type(std::string(type));
  for (std::string& i : inputs) node.add_input(std::move(i));
  for (const std::string& o : results) node.add_output(o);
  for (const auto& [name, value] : attributes) {
    onnx::AttributeProto& a = *node.add_attribute();
    a.set_name(name);
    set_attribute(a, value);
  }
  return results;
}

std::string Writer::fresh(std::string_view stem) {
  std::string name(stem);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  const std::string base = name;
  for (int i = 1; !taken().insert(name).second; ++i) name = base + "_" + std::to_string(i);
  return name;
}

// -- short hands ---------------------------------------------------------------------------------------------
std::string Writer::constant(const Tensor& t, const std::string& stem) {
  onnx::TensorProto proto = tensor_of(t, "");
  std::string* known = nullptr;
  if (t.bytes() <= kSmall) {
    known = &small_[proto.SerializeAsString()];
    if (!known->empty()) return *known;
  }
  std::string name = fresh(stem);
  proto.set_name(name);
  *graph_.add_initializer() = std::move(proto);
  if (known) *known = name;
  return name;
}

std::string Writer::scalar(double value, DType t) {
  Tensor one(t, {});
  one.set(0, value);
  return constant(one);
}

std::string Writer::ints(const Ints& values) { return constant(Tensor::of_int64(values), "ints"); }

std::string Writer::full(const Type& type, double value) {
  Tensor one = Tensor::zeros(type.dtype, {1});
  if (value != 0) one.set(0, value);
  return add("ConstantOfShape", {dims(type.shape)}, {{"value", one}});
}

std::string Writer::cast(const std::string& x, DType to) {
  Attributes attributes = {{"to", std::int64_t{type_of(to)}}};
  if (is_float(to) && bits(to) == 8) attributes.emplace_back("saturate", std::int64_t{0});
  return add("Cast", {x}, std::move(attributes));
}

std::string Writer::reshape(const std::string& x, const Shape& shape) {
  const bool empty = std::any_of(shape.begin(), shape.end(), [](const Dim& d) { return d == Dim(0); });
  Attributes attributes;
  if (empty || !is_static(shape)) attributes.emplace_back("allowzero", std::int64_t{1});
  return add("Reshape", {x, dims(shape)}, std::move(attributes));
}

std::string Writer::transpose(const std::string& x, const Ints& perm) {
  bool same = true;
  for (std::size_t i = 0; i < perm.size(); ++i) same = same && perm[i] == static_cast<std::int64_t>(i);
  return same ? x : add("Transpose", {x}, {{"perm", perm}});
}

std::string Writer::slice(const std::string& x, const Ints& starts, const Ints& limits, const Ints& axes,
                          const Ints& steps) {
  return add("Slice", {x, ints(starts), ints(limits), ints(axes), steps.empty() ? "" : ints(steps)});
}

// -- dims ----------------------------------------------------------------------------------------------------
void Writer::know_dims(Value v) {
  for (int i = 0; i < v.rank(); ++i) {
    const Dim& d = v.dim(i);
    if (d.is_static() || d.terms().size() != 1) continue;
    const Dim::Term& t = d.terms()[0];
    if (t.coefficient == 1 && t.factors.size() == 1 && t.factors[0]->kind == Dim::Atom::Kind::Symbol)
      symbols_.emplace(t.factors[0]->symbol, std::pair(name_of(v), i));
  }
}

const std::pair<std::string, int>& Writer::place_of(const std::string& symbol) const {
  const auto it = symbols_.find(symbol);
  if (it != symbols_.end()) return it->second;
  if (outer_) return outer_->place_of(symbol);
  throw Error(Code::Unsupported, "", "", "symbols that are a dim of an input or of an earlier result",
              "'" + symbol + "'");
}

std::string Writer::atom(const Dim::Atom& a) {
  using Kind = Dim::Atom::Kind;
  if (a.kind == Kind::Symbol) {
    const auto& [value, axis] = place_of(a.symbol);
    const std::string one =
        add("Shape", {value}, {{"start", std::int64_t{axis}}, {"end", std::int64_t{axis} + 1}});
    return add("Squeeze", {one, ints({0})});
  }
  std::vector<std::string> args;
  for (const Dim& arg : a.args) args.push_back(dim(arg));
  if (a.kind == Kind::Min) return add("Min", args);
  if (a.kind == Kind::Max) return add("Max", args);
  const std::string &x = args.at(0), &y = args.at(1);
  const std::string rest = add("Mod", {x, y});  // of the divisor's sign
  return a.kind == Kind::Mod ? rest : add("Div", {add("Sub", {x, rest}), y});
}

std::string Writer::product(const Dim::Term& t) {
  std::string result;
  for (const auto& f : t.factors) result = result.empty() ? atom(*f) : add("Mul", {result, atom(*f)});
  if (result.empty()) return scalar(static_cast<double>(t.coefficient), DType::I64);
  return t.coefficient == 1 ? result
                            : add("Mul", {result, scalar(static_cast<double>(t.coefficient), DType::I64)});
}

std::string Writer::dim(const Dim& d) {
  if (d.is_static()) return scalar(static_cast<double>(d.value()), DType::I64);
  std::string sum;
  for (const Dim::Term& t : d.terms()) sum = sum.empty() ? product(t) : add("Add", {sum, product(t)});
  return sum;
}

std::string Writer::dims(const Shape& shape) {
  if (is_static(shape)) return ints(static_dims(shape));
  Names parts;
  for (const Dim& d : shape)
    parts.push_back(d.is_static() ? ints({d.value()}) : add("Unsqueeze", {dim(d), ints({0})}));
  return parts.size() == 1 ? parts[0] : add("Concat", parts, {{"axis", std::int64_t{0}}});
}

// -- values --------------------------------------------------------------------------------------------------
std::string Writer::in(const Node& n, int i) const { return n.has(i) ? name_of(n.in(i)) : std::string(); }

Names Writer::all(const Node& n) const {
  Names names;
  for (int i = 0; i < static_cast<int>(n.inputs.size()); ++i) names.push_back(in(n, i));
  return names;
}

void Writer::define(Value v, const std::string& name) {
  names_[{v.node, v.index}] = name;
  know_dims(v);
}

const std::string& Writer::name_of(Value v) const { return names_.at({v.node, v.index}); }

void Writer::rename(std::string& name, const std::string& wanted, int first_node) {
  onnx::NodeProto* maker = nullptr;
  int place = 0;
  for (int i = first_node; i < graph_.node_size(); ++i)
    for (int k = 0; k < graph_.node(i).output_size(); ++k)
      if (graph_.node(i).output(k) == name) maker = graph_.mutable_node(i), place = k;
  if (maker == nullptr) {
    onnx::NodeProto& copy = *graph_.add_node();
    copy.set_op_type("Identity");
    copy.add_input(name);
    copy.add_output(wanted);
  } else {
    maker->set_output(place, wanted);
    for (int i = first_node; i < graph_.node_size(); ++i)
      for (std::string& used : *graph_.mutable_node(i)->mutable_input())
        if (used == name) used = wanted;
  }
  name = wanted;
}

void Writer::describe(int first_node, const Node& n) {
  for (int i = first_node; i < graph_.node_size(); ++i) {
    onnx::NodeProto& node = *graph_.mutable_node(i);
    node.set_name(node.output_size() > 0 ? node.output(0) : n.name);
    if (!n.source.empty()) node.set_doc_string(n.source);
  }
}

namespace {

void collect(const onnx::GraphProto& graph, std::set<std::string>& names) {
  for (const auto& o : graph.output()) names.insert(o.name());
  for (const auto& n : graph.node()) {
    names.insert(n.input().begin(), n.input().end());
    for (const auto& a : n.attribute())
      if (a.has_g()) collect(a.g(), names);
  }
}

}  // namespace

void Writer::remove_dead() {
  std::set<std::string> needed;
  for (const auto& o : graph_.output()) needed.insert(o.name());
  std::vector<bool> kept(static_cast<std::size_t>(graph_.node_size()));
  for (int i = graph_.node_size() - 1; i >= 0; --i) {
    const auto& outputs = graph_.node(i).output();
    kept[static_cast<std::size_t>(i)] =
        std::any_of(outputs.begin(), outputs.end(), [&](const std::string& o) { return needed.contains(o); });
    if (!kept[static_cast<std::size_t>(i)]) continue;
    needed.insert(graph_.node(i).input().begin(), graph_.node(i).input().end());
    for (const auto& a : graph_.node(i).attribute())
      if (a.has_g()) collect(a.g(), needed);
  }
  onnx::GraphProto rest;
  for (int i = 0; i < graph_.node_size(); ++i)
    if (kept[static_cast<std::size_t>(i)]) rest.add_node()->Swap(graph_.mutable_node(i));
  rest.mutable_node()->Swap(graph_.mutable_node());
  for (auto& t : *graph_.mutable_initializer())
    if (needed.contains(t.name())) rest.add_initializer()->Swap(&t);
  rest.mutable_initializer()->Swap(graph_.mutable_initializer());
}

}  // namespace deepseek::onnx_export
