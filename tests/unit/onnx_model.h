// ONNX models in a few lines, for tests of the importer.
#pragma once

#include <gtest/gtest.h>

#include <cctype>
#include <string>
#include <vector>

#include "deepseek/import_onnx.h"
#include "onnx-ml.pb.h"

namespace deepseek::testing {

using onnx::TensorProto;

// "y = Relu(x)" as add("Relu", {"x"}, {"y"}).
class OnnxModel {
 public:
  explicit OnnxModel(int opset = 18) {
    proto.set_ir_version(8);
    proto.add_opset_import()->set_version(opset);
  }

  // A dim below 0 is dynamic without a name.
  OnnxModel& input(const std::string& name, const std::vector<std::string>& dims,
                   int type = TensorProto::FLOAT) {
    auto* t = describe(*graph().add_input(), name, type);
    for (const std::string& d : dims) {
      auto* dim = t->mutable_shape()->add_dim();
      if (d != "?" && (std::isdigit(static_cast<unsigned char>(d[0])) || d[0] == '-'))
        dim->set_dim_value(std::stoll(d));
      else if (d != "?")
        dim->set_dim_param(d);
    }
    if (dims.empty()) t->mutable_shape();
    return *this;
  }
  OnnxModel& output(const std::string& name) {
    describe(*graph().add_output(), name, TensorProto::FLOAT);
    return *this;
  }
  OnnxModel& ints(const std::string& name, const std::vector<std::int64_t>& values) {
    auto* t = graph().add_initializer();
    t->set_name(name);
    t->set_data_type(TensorProto::INT64);
    t->add_dims(static_cast<std::int64_t>(values.size()));
    for (const std::int64_t v : values) t->add_int64_data(v);
    return *this;
  }
  onnx::NodeProto& add(const std::string& type, const std::vector<std::string>& inputs,
                       const std::vector<std::string>& outputs, const std::string& name = "") {
    auto* n = graph().add_node();
    n->set_op_type(type);
    n->set_name(name);
    for (const auto& i : inputs) n->add_input(i);
    for (const auto& o : outputs) n->add_output(o);
    return *n;
  }
  onnx::GraphProto& graph() { return *proto.mutable_graph(); }
  std::string bytes() const { return proto.SerializeAsString(); }
  Graph import(OnnxImportOptions options = {}) const {
    const std::string b = bytes();
    return import_onnx(std::as_bytes(std::span(b)), options);
  }
  OnnxProgram program() const {
    const std::string b = bytes();
    return OnnxProgram(std::as_bytes(std::span(b)));
  }

  onnx::ModelProto proto;

 private:
  static onnx::TypeProto_Tensor* describe(onnx::ValueInfoProto& v, const std::string& name, int type) {
    v.set_name(name);
    auto* t = v.mutable_type()->mutable_tensor_type();
    t->set_elem_type(type);
    return t;
  }
};

inline void set_int(onnx::NodeProto& n, const std::string& name, std::int64_t value) {
  auto* a = n.add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::INT);
  a->set_i(value);
}

inline void set_ints(onnx::NodeProto& n, const std::string& name, const std::vector<std::int64_t>& values) {
  auto* a = n.add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::INTS);
  for (const std::int64_t v : values) a->add_ints(v);
}

inline void set_string(onnx::NodeProto& n, const std::string& name, const std::string& value) {
  auto* a = n.add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::STRING);
  a->set_s(value);
}

template <class F>
Error caught(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return {Code::Internal, "", "", "", ""};
}

}  // namespace deepseek::testing
