// The graph: a DAG of tensor ops in SSA form. Nodes live in their Graph, in topological order; Values name one
// output of one node. Building checks shapes and dtypes at once and throws Error that names the op and the
// source line. A Graph is not thread-safe; a finished one may be read from many threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "deepseek/dtype.h"
#include "deepseek/error.h"
#include "deepseek/shape.h"
#include "deepseek/tensor.h"
#include "deepseek/type.h"

namespace deepseek {

struct OpDef;  // src/ops/op.h: the op table's entry
class Graph;
struct Node;

struct Value {
  Node* node = nullptr;
  int index = 0;
  explicit operator bool() const { return node != nullptr; }
  const Type& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  int rank() const { return static_cast<int>(shape().size()); }
  const Dim& dim(int axis) const;  // negative counts from the end
  friend bool operator==(const Value&, const Value&) = default;
};

// Attribute values. Shape covers lists of integers that may be symbolic (reshape's target).
using Attr = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                          std::vector<double>, DType, Shape, Tensor, std::shared_ptr<const Graph>>;
using Attrs = std::map<std::string, Attr, std::less<>>;

struct Node {
  const OpDef* op = nullptr;  // null for inputs and constants
  std::string name;           // unique in the graph
  std::vector<Value> inputs;  // optional inputs that are absent are empty Values
  Attrs attrs;                // every attribute of the op is present, defaults filled in
  std::vector<Type> outputs;
  std::string source;          // the user's line or module path
  Role role = Role::Argument;  // of inputs and constants
  Tensor data;                 // of a constant

  bool is_input() const { return op == nullptr && !data.defined(); }
  bool is_constant() const { return data.defined(); }
  std::string_view op_name() const;  // "placeholder" and "constant" where op is null
  Value out(int i = 0) const { return {const_cast<Node*>(this), i}; }
  Value in(int i) const { return inputs.at(static_cast<std::size_t>(i)); }
  bool has(int i) const { return i < static_cast<int>(inputs.size()) && inputs[static_cast<std::size_t>(i)]; }
  // Attribute of this name and type; throws Error{Internal} when it is not there.
  template <class T>
  const T& attr(std::string_view key) const;
};

struct Output {
  std::string name;
  Value value;
};

class Graph {
 public:
  Graph();
  ~Graph();
  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;
  Graph clone() const;

  Value placeholder(std::string name, DType dtype, Shape shape, Role role = Role::Argument);
  Value constant(Tensor data, std::string name = "");
  Value scalar(double value, DType dtype);  // rank 0
  // Any op of the table by name. Missing attributes take their defaults. `name`: for the result; made up if empty.
  Value op(std::string_view op, std::vector<Value> inputs, Attrs attrs = {}, std::string name = "");
  std::vector<Value> ops(std::string_view op, std::vector<Value> inputs, Attrs attrs = {},
                         std::string name = "");
  // Names a result. A graph with no named output returns its values that nothing uses.
  void output(std::string name, Value value);

  const std::vector<std::unique_ptr<Node>>& nodes() const { return nodes_; }  // topological
  std::vector<Node*> inputs() const;  // placeholders, in order of creation
  std::vector<Output> outputs() const;
  bool names_outputs() const { return !outputs_.empty(); }
  // Source given to nodes made from now on ("model.py:12", "encoder.layer.0").
  void set_source(std::string source) { source_ = std::move(source); }
  const std::string& source() const { return source_; }
  // Dims that must be equal when bound (broadcasts of different symbols), each pair once: as its first op says.
  const std::vector<EqualDims>& equalities() const { return equalities_; }
  void assume_equal(EqualDims dims);

  // Makes every use of `from` (outputs included) use `to`.
  void replace_uses(Value from, Value to);
  // Drops nodes from which no output can be reached; placeholders stay.
  void remove_dead();
  // Puts nodes back into topological order after replace_uses; throws Error{InvalidArgument} on a cycle.
  void sort();
  std::vector<std::vector<Node*>> users() const;  // by position in nodes()

  std::string str() const;                    // the text form
  static Graph parse(std::string_view text);  // throws Error with line and column
  void verify() const;  // throws Error{Internal}: SSA, order, types as the op table infers them

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Output> outputs_;
  std::vector<EqualDims> equalities_;
  std::map<std::string, int, std::less<>> names_;
  std::string source_;
  std::string unique(std::string name);
};

template <class T>
const T& Node::attr(std::string_view key) const {
  const auto it = attrs.find(key);
  const T* value = it == attrs.end() ? nullptr : std::get_if<T>(&it->second);
  if (!value)
    throw Error(Code::Internal, std::string(op_name()), source, "attribute " + std::string(key),
                "none of that type");
  return *value;
}

}  // namespace deepseek
