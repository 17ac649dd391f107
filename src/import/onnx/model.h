// Reading a model: bytes to protobuf, initializers and external data to Tensors.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "deepseek/tensor.h"
#include "onnx-ml.pb.h"

namespace deepseek::onnx_import {

// Parses and checks what does not need a graph: IR version, opsets present, a graph present. Throws Error{DataLoss}.
std::shared_ptr<const onnx::ModelProto> parse_model(std::span<const std::byte> bytes,
                                                    const std::string& model);

// The dtype of an ONNX element type; throws Error{Unsupported} for one that we lack.
DType dtype_of(std::int64_t onnx_type);

// Turns TensorProtos into Tensors. Tensors share the memory of the proto or of the mapped file where they can.
class TensorReader {
 public:
  TensorReader(std::shared_ptr<const onnx::ModelProto> model, std::filesystem::path folder)
      : model_(std::move(model)), folder_(std::move(folder)) {}
  // Throws Error{DataLoss, InvalidArgument, NotFound} that says what is wrong; op and source are left empty.
  Tensor read(const onnx::TensorProto& proto);

 private:
  std::shared_ptr<const onnx::ModelProto> model_;
  std::filesystem::path folder_;
  std::map<std::string, std::shared_ptr<const std::span<const std::byte>>> files_;
  Tensor read_external(const onnx::TensorProto& proto, DType dtype, Dims dims);
};

}  // namespace deepseek::onnx_import
