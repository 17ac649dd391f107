// Builds an ONNX graph node by node. Values are names; rules (see rules.h) ask for the names of a node's inputs and give
// those of its results.
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "deepseek/graph.h"
#include "onnx-ml.pb.h"

namespace deepseek::onnx_export {

using Ints = std::vector<std::int64_t>;
using Names = std::vector<std::string>;

// An attribute of an ONNX node.
using Attribute = std::variant<std::int64_t, double, std::string, Ints, std::vector<double>, Names, Tensor,
                               onnx::GraphProto>;
using Attributes = std::vector<std::pair<std::string, Attribute>>;

onnx::TensorProto::DataType type_of(DType t);
void set_type(onnx::ValueInfoProto& info, const std::string& name, const Type& type);
onnx::TensorProto tensor_of(const Tensor& t, const std::string& name);

class Writer {
 public:
  // A sub-graph's writer sees the names of the one around it.
  explicit Writer(Writer* outer = nullptr) : outer_(outer) {}

  // -- nodes; results are fresh names
  std::string add(std::string_view type, Names inputs, Attributes attributes = {});
  Names add_many(std::string_view type, Names inputs, Attributes attributes, int outputs);

  // -- short hands
  std::string constant(const Tensor& t, const std::string& stem = "constant");  // small equal ones are one
  std::string scalar(double value, DType t);
  std::string ints(const Ints& values);  // one-dimensional int64
  std::string dims(const Shape& shape);  // the same of dims, which may be symbolic
  std::string dim(const Dim& d);         // a scalar
  std::string full(const Type& type, double value);
  std::string cast(const std::string& x, DType to);
  std::string unsqueeze(const std::string& x, const Ints& axes) { return add("Unsqueeze", {x, ints(axes)}); }
  std::string reshape(const std::string& x, const Shape& shape);
  std::string transpose(const std::string& x, const Ints& perm);  // x itself for the identity
  // x[start:limit:step] along axes.
  std::string slice(const std::string& x, const Ints& starts, const Ints& limits, const Ints& axes,
                    const Ints& steps = {});

  // -- values of our graph
  std::string in(const Node& n, int i) const;  // "" where it is absent
  Names all(const Node& n) const;
  void define(Value v, const std::string& name);
  const std::string& name_of(Value v) const;
  // Gives the results of the node made last the name `wanted` where that is possible; else copies them.
  void rename(std::string& name, const std::string& wanted, int first_node);
  int nodes() const { return graph_.node_size(); }
  void describe(int first_node, const Node& n);  // names and sources of the nodes made since
  void remove_dead();                            // nodes and initializers that no output needs
  std::string fresh(std::string_view stem);
  void reserve(const std::string& name) { taken().insert(name); }

  onnx::GraphProto& graph() { return graph_; }
  // What a sub-graph refers to as symbols is known by the values of the graph around it.
  void know_dims(Value v);

 private:
  Writer* outer_;
  onnx::GraphProto graph_;
  std::map<std::pair<const Node*, int>, std::string> names_;
  std::map<std::string, std::pair<std::string, int>, std::less<>>
      symbols_;  // symbol: a value and an axis of it
  std::set<std::string> taken_;
  std::map<std::string, std::string> small_;  // constants by their bytes
  std::set<std::string>& taken() { return outer_ ? outer_->taken() : taken_; }
  const std::pair<std::string, int>& place_of(const std::string& symbol) const;
  std::string product(const Dim::Term& t);
  std::string atom(const Dim::Atom& a);
};

}  // namespace deepseek::onnx_export
