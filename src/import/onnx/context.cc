#include <algorithm>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

Context::Context(Importer& importer, const onnx::NodeProto& node, Scope& scope, std::int64_t opset)
    : e(*scope.graph), importer_(importer), node_(node), scope_(scope), opset_(opset) {
  for (const std::string& name : node.input())
    items_.push_back(name.empty() ? Item() : importer.lookup(name, scope));
}

void Context::bad(std::string expected, std::string got) const {
  throw Error(Code::InvalidArgument, "", "", std::move(expected), std::move(got));
}

void Context::unsupported(std::string expected, std::string got) const {
  throw Error(Code::Unsupported, "", "", std::move(expected), std::move(got));
}

void Context::ask_for(std::string expected, const Dim& d) {
  importer_.ask_for_shapes(d, *this, std::move(expected));
}

// -- inputs --------------------------------------------------------------------------------------------------
const Item& Context::item(int i) {
  if (!has(i)) bad("an input " + std::to_string(i), "nothing");
  return items_[static_cast<std::size_t>(i)];
}

Value Context::value(const Item& item) {
  Item copy = item;
  return importer_.value(copy, scope_);
}

Value Context::in(int i) {
  item(i);
  return importer_.value(items_[static_cast<std::size_t>(i)], scope_);
}

std::vector<Value> Context::all() {
  std::vector<Value> result;
  for (int i = 0; i < inputs(); ++i) result.push_back(has(i) ? in(i) : Value());
  return result;
}

DType Context::dtype(int i) {
  const Item& x = item(i);
  if (x.kind != Item::Kind::Tensor) bad("a tensor", "a sequence");
  return x.value ? x.value.dtype() : x.known->dtype;
}

Shape Context::shape(int i) {
  const Item& x = item(i);
  if (x.kind != Item::Kind::Tensor) bad("a tensor", "a sequence");
  return x.value ? x.value.shape() : to_shape(x.known->dims);
}

const Known* Context::known(int i) {
  if (!has(i)) return nullptr;
  Item& x = items_[static_cast<std::size_t>(i)];
  if (!x.known && x.value && x.value.node->is_constant())
    if (auto k = Known::of(x.value.node->data)) x.known = std::make_shared<const Known>(std::move(*k));
  return x.known.get();
}

const Known& Context::need(int i) {
  item(i);
  if (const Known* k = known(i)) return *k;
  importer_.ask_for(in(i), *this);
}

std::vector<std::int64_t> Context::need_ints(int i) {
  std::vector<std::int64_t> result;
  for (const Dim& d : need_dims(i)) {
    if (!d.is_static()) ask_for("static integers in input " + std::to_string(i), d);
    result.push_back(d.value());
  }
  return result;
}

Shape Context::need_dims(int i) {
  const Known& k = need(i);
  if (k.real()) bad("integers in input " + std::to_string(i), std::string(name(k.dtype)));
  return k.ints;
}

Dim Context::need_dim(int i) {
  const Shape dims = need_dims(i);
  if (dims.size() != 1) bad("one integer in input " + std::to_string(i), std::to_string(dims.size()));
  return dims[0];
}

std::int64_t Context::need_int(int i) {
  const auto values = need_ints(i);
  if (values.size() != 1) bad("one integer in input " + std::to_string(i), std::to_string(values.size()));
  return values[0];
}

std::vector<double> Context::need_reals(int i) {
  const Known& k = need(i);
  if (k.real()) return k.reals;
  std::vector<double> result;
  for (const std::int64_t v : need_ints(i)) result.push_back(static_cast<double>(v));
  return result;
}

double Context::need_real(int i) {
  const auto values = need_reals(i);
  if (values.size() != 1) bad("one number in input " + std::to_string(i), std::to_string(values.size()));
  return values[0];
}

// -- attributes ----------------------------------------------------------------------------------------------
const onnx::AttributeProto* Context::find(std::string_view name) const {
  for (const auto& a : node_.attribute()) {
    if (a.name() != name) continue;
    if (a.ref_attr_name().empty()) return &a;
    if (!scope_.bindings) return nullptr;
    const auto it = scope_.bindings->find(a.ref_attr_name());
    return it == scope_.bindings->end() ? nullptr : it->second;
  }
  return nullptr;
}

namespace {
void expect(const onnx::AttributeProto& a, onnx::AttributeProto::AttributeType type) {
  // Models from before IR version 2 leave the type out.
  if (a.type() != type && a.type() != onnx::AttributeProto::UNDEFINED)
    throw Error(Code::InvalidArgument, "", "",
                "attribute '" + a.name() + "' of type " + onnx::AttributeProto_AttributeType_Name(type),
                onnx::AttributeProto_AttributeType_Name(a.type()));
}
}  // namespace

std::int64_t Context::attr(std::string_view name, std::int64_t otherwise) const {
  const auto* a = find(name);
  if (!a) return otherwise;
  expect(*a, onnx::AttributeProto::INT);
  return a->i();
}

std::int64_t Context::need_attr(std::string_view name) const {
  if (!find(name)) bad("attribute '" + std::string(name) + "'", "none");
  return attr(name, 0);
}

double Context::attr_f(std::string_view name, double otherwise) const {
  const auto* a = find(name);
  if (!a) return otherwise;
  expect(*a, onnx::AttributeProto::FLOAT);
  return static_cast<double>(a->f());
}

std::string Context::attr_s(std::string_view name, std::string otherwise) const {
  const auto* a = find(name);
  if (!a) return otherwise;
  expect(*a, onnx::AttributeProto::STRING);
  return a->s();
}

std::vector<std::int64_t> Context::attr_ints(std::string_view name,
                                             std::vector<std::int64_t> otherwise) const {
  const auto* a = find(name);
  if (!a) return otherwise;
  expect(*a, onnx::AttributeProto::INTS);
  return {a->ints().begin(), a->ints().end()};
}

std::vector<double> Context::attr_floats(std::string_view name, std::vector<double> otherwise) const {
  const auto* a = find(name);
  if (!a) return otherwise;
  expect(*a, onnx::AttributeProto::FLOATS);
  return {a->floats().begin(), a->floats().end()};
}

std::vector<std::string> Context::attr_strings(std::string_view name) const {
  const auto* a = find(name);
  if (!a) return {};
  expect(*a, onnx::AttributeProto::STRINGS);
  return {a->strings().begin(), a->strings().end()};
}

std::optional<Tensor> Context::attr_tensor(std::string_view name) const {
  const auto* a = find(name);
  if (!a) return std::nullopt;
  expect(*a, onnx::AttributeProto::TENSOR);
  return importer_.source().tensor(a->t());
}

const onnx::GraphProto& Context::attr_graph(std::string_view name) const {
  const auto* a = find(name);
  if (!a) bad("attribute '" + std::string(name) + "'", "none");
  expect(*a, onnx::AttributeProto::GRAPH);
  return a->g();
}

DType Context::attr_dtype(std::string_view name, DType otherwise) const {
  return find(name) ? dtype_of(attr(name, 0)) : otherwise;
}

std::vector<std::string> Context::attr_names() const {
  std::vector<std::string> names;
  for (const auto& a : node_.attribute()) names.push_back(a.name());
  return names;
}

std::optional<std::vector<std::int64_t>> Context::axes(int i) {
  if (has_attr("axes")) return attr_ints("axes");
  if (has(i)) return need_ints(i);
  return std::nullopt;
}

int Context::axis(std::int64_t a, int rank) const {
  const std::int64_t from_start = a < 0 ? a + rank : a;
  if (from_start < 0 || from_start >= rank)
    bad("an axis of a rank-" + std::to_string(rank) + " tensor", std::to_string(a));
  return static_cast<int>(from_start);
}

// -- outputs -------------------------------------------------------------------------------------------------
void Context::out(int k, Item item) {
  if (item.kind == Item::Kind::Tensor && item.value) {
    const Shape& shape = item.value.shape();
    for (const Dim& d : shape)
      if (d.is_static() && d.value() > kMaxDim) bad("dims of at most 2^48", str(shape));
    if (is_static(shape)) numel(static_dims(shape));  // throws on overflow
  }
  if (wants(k)) scope_.items[node_.output(k)] = std::move(item);
}

}  // namespace deepseek::onnx_import
