// The importer: walks a model's nodes in order and emits ops into a Graph. One function per ONNX op (see
// Translators) gets a Context: the node's inputs, attributes and outputs, and a Graph to emit into.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "deepseek/import_onnx.h"
#include "import/onnx/emit.h"
#include "import/onnx/known.h"
#include "import/onnx/model.h"

namespace deepseek::onnx_import {

// What an ONNX name stands for. Sequences and optionals exist only while importing.
struct Item {
  enum class Kind : std::uint8_t { Absent, Tensor, Sequence } kind = Kind::Absent;
  Value value;  // may be empty while `known` is set: made when it is asked for
  std::shared_ptr<const Known> known;
  std::shared_ptr<const std::vector<Item>> sequence;

  Item() = default;
  Item(Value v) : kind(Kind::Tensor), value(v) {}  // NOLINT: a value is an item
  Item(Known k) : kind(Kind::Tensor), known(std::make_shared<const Known>(std::move(k))) {}  // NOLINT
  explicit Item(std::vector<Item> s)
      : kind(Kind::Sequence), sequence(std::make_shared<const std::vector<Item>>(std::move(s))) {}
};

// Thrown when something is needed that only the user's inputs give: values, or shapes that are declared as dynamic.
// The program asks for these and imports again.
struct NeedsInputs {
  std::vector<std::string> values, shapes;
};

// Names of inputs of which the importer knows, beside what the model says, the value or the shape.
struct Wanted {
  std::set<std::string, std::less<>> values, shapes;
  void add(const NeedsInputs& needs) {
    values.insert(needs.values.begin(), needs.values.end());
    shapes.insert(needs.shapes.begin(), needs.shapes.end());
  }
};

// Larger dims are a mistake or an attack: no machine addresses so much. Sizes stay far from overflow below it.
inline constexpr std::int64_t kMaxDim = std::int64_t{1} << 48;

class Importer;
struct Scope;

// One node being translated.
class Context {
 public:
  Context(Importer& importer, const onnx::NodeProto& node, Scope& scope, std::int64_t opset);

  Emit e;  // emits ops into the graph
  std::int64_t opset() const { return opset_; }
  const std::string& type() const { return node_.op_type(); }

  // -- inputs
  int inputs() const { return static_cast<int>(items_.size()); }
  bool has(int i) const {
    return i < inputs() && items_[static_cast<std::size_t>(i)].kind != Item::Kind::Absent;
  }
  const Item& item(int i);  // throws when absent
  Value in(int i);          // a tensor as a value
  Value in_or(int i, Value otherwise) { return has(i) ? in(i) : otherwise; }
  std::vector<Value> all();  // every input, absent ones empty
  DType dtype(int i);
  Shape shape(int i);
  int rank(int i) { return static_cast<int>(shape(i).size()); }
  // The value when it is known, null otherwise; `need` asks the user for what it derives from, or throws.
  const Known* known(int i);
  const Known& need(int i);
  std::vector<std::int64_t> need_ints(int i);  // static integers
  Shape need_dims(int i);                      // integers that may be symbolic
  Dim need_dim(int i);                         // of one element
  std::int64_t need_int(int i);
  std::vector<double> need_reals(int i);  // of any real dtype
  double need_real(int i);

  // -- attributes
  bool has_attr(std::string_view name) const { return find(name) != nullptr; }
  std::int64_t attr(std::string_view name, std::int64_t otherwise) const;
  std::int64_t need_attr(std::string_view name) const;
  double attr_f(std::string_view name, double otherwise) const;
  std::string attr_s(std::string_view name, std::string otherwise) const;
  std::vector<std::int64_t> attr_ints(std::string_view name, std::vector<std::int64_t> otherwise = {}) const;
  std::vector<double> attr_floats(std::string_view name, std::vector<double> otherwise = {}) const;
  std::vector<std::string> attr_strings(std::string_view name) const;
  std::optional<Tensor> attr_tensor(std::string_view name) const;
  const onnx::GraphProto& attr_graph(std::string_view name) const;
  DType attr_dtype(std::string_view name, DType otherwise) const;
  std::vector<std::string> attr_names() const;
  // Axes as an attribute, or as input `i` from the opset in which that came; nothing when neither is there.
  std::optional<std::vector<std::int64_t>> axes(int i);
  int axis(std::int64_t a, int rank) const;  // checked, counted from the start

  // -- outputs
  int outputs() const { return node_.output_size(); }
  bool wants(int k) const { return k < outputs() && !node_.output(k).empty(); }
  void out(int k, Item item);
  void out(Value v) { out(0, Item(v)); }

  // -- errors; op and node are added on the way out
  [[noreturn]] void bad(std::string expected, std::string got) const;
  [[noreturn]] void unsupported(std::string expected, std::string got) const;
  // A dim must be static: the shapes of the inputs that it comes from are asked for; without any: unsupported.
  [[noreturn]] void ask_for(std::string expected, const Dim& d);

  Importer& importer() { return importer_; }
  Scope& scope() { return scope_; }
  Value value(const Item& item);  // an item as a value, made from what is known if need be

 private:
  Importer& importer_;
  const onnx::NodeProto& node_;
  Scope& scope_;
  std::int64_t opset_;
  std::vector<Item> items_;
  const onnx::AttributeProto* find(std::string_view name) const;
};

using Translate = std::function<void(Context&)>;
class Translators {
 public:
  void add(std::string_view type, Translate f) {
    table_.insert_or_assign(std::string(type), std::move(f));
  }  // domain "" or "domain:Type"
  const Translate* find(const std::string& key) const;
  std::size_t size() const { return table_.size(); }

 private:
  std::map<std::string, Translate, std::less<>> table_;
};
const Translators& translators();
void add_elementwise(Translators& t);
void add_shape(Translators& t);
void add_reduce(Translators& t);
void add_nn(Translators& t);
void add_pool(Translators& t);
void add_control(Translators& t);
void add_sequence(Translators& t);
void add_attention(Translators& t);
void add_quantize(Translators& t);
void add_loss(Translators& t);
void add_index(Translators& t);
void add_resize(Translators& t);
void add_sample(Translators& t);
void add_signal(Translators& t);
void add_rnn(Translators& t);
void add_dynamic(Translators& t);
void add_ml(Translators& t);
void add_random(Translators& t);

// Known results of a node whose inputs are known, where it is shape arithmetic; nothing otherwise.
std::optional<Known> fold(Context& c);

// Attribute values that a function's caller gave, by name.
using Bindings = std::map<std::string, const onnx::AttributeProto*, std::less<>>;

// Names visible to the nodes of a graph or function body.
struct Scope {
  Scope* parent = nullptr;
  Graph* graph = nullptr;
  const Bindings* bindings = nullptr;
  std::unordered_map<std::string, Item> items;
  std::unordered_map<std::string, const onnx::TensorProto*> initializers;  // not yet used
};

OnnxKind kind_of(const onnx::TypeProto& type);
// The name that element i of a sequence at the graph's border has: "x[2]".
std::string element_name(const std::string& sequence, std::size_t i);

// What does not change between imports of one model.
struct Source {
  std::shared_ptr<const onnx::ModelProto> model;
  OnnxImportOptions options;
  TensorReader reader;
  std::unordered_map<const onnx::TensorProto*, Tensor> tensors;

  Source(std::span<const std::byte> bytes, OnnxImportOptions o);
  const Tensor& tensor(const onnx::TensorProto& proto);
  std::vector<OnnxInput> inputs();
  std::string label(const onnx::NodeProto& node) const;  // "model: node"
};

class Importer {
 public:
  // `values` gives those of the inputs that are asked for; empty: none can be had.
  Importer(Source& source, const OnnxProgram::Values& values, const Wanted& wanted);
  Graph run();

  Source& source() { return source_; }
  // Runs the nodes of a sub-graph in place, with `inputs` for its inputs; gives its outputs.
  std::vector<Item> inline_graph(const onnx::GraphProto& g, std::vector<Item> inputs, Scope& parent);
  // Inputs of the model from which the value is computed; throws NeedsInputs for them, or Error{Unsupported}.
  [[noreturn]] void ask_for(const Value& v, const Context& c);
  // The same for their shapes where a dim that is symbolic must be known.
  [[noreturn]] void ask_for_shapes(const Dim& d, const Context& c, std::string expected);
  Item lookup(const std::string& name, Scope& scope);
  Value value(Item& item, Scope& scope);
  void count_nodes(std::size_t n);  // throws Error{ResourceExhausted} beyond the option's max_nodes
  void count_elements(std::int64_t rows,
                      std::int64_t columns);  // of a table made here: the same, by its size
  std::int64_t opset(const std::string& domain) const;
  std::string fresh_symbol(std::string_view stem) {
    return std::string(stem) + "_" + std::to_string(++symbols_);
  }

 private:
  friend class Context;
  Source& source_;
  const OnnxProgram::Values& values_;
  const Wanted& wanted_;
  std::map<std::string, const onnx::FunctionProto*> functions_;
  std::map<std::string, std::int64_t> opsets_;
  std::size_t nodes_ = 0;
  int depth_ = 0, symbols_ = 0;
  Graph graph_;

  Item declare(const std::string& name, const Type& type, const std::optional<Tensor>& value);
  void declare_inputs(Scope& scope);
  void give_output(const std::string& name, Item item, Scope& scope);
  void run_node(const onnx::NodeProto& node, Scope& scope);
  void translate(const onnx::NodeProto& node, Scope& scope);
  void call(const onnx::FunctionProto& f, const onnx::NodeProto& node, Scope& scope);
};

}  // namespace deepseek::onnx_import
