// Writing graphs as ONNX models (opset 21, IR version 10), for ONNX Runtime and whoever else reads them.
//
// Placeholders become inputs, constants initializers, symbolic dims dim_params; a node's source is its doc_string. An op
// becomes the ONNX operator of the same meaning or a few of them; a composed op without one its definition. What ONNX
// leaves undefined stays so: NaN in ArgMax, TopK and the like, casts of floats that an integer cannot hold.
#pragma once

#include <filesystem>
#include <string>

#include "deepseek/graph.h"

namespace deepseek {

// The model's bytes. Throws Error{Unsupported} that names the op and its source where ONNX has nothing of the meaning,
// and Error{ResourceExhausted} for a model of 2 GiB and more.
std::string export_onnx(const Graph& graph, const std::string& name = "graph");
// The same in a file; throws Error{NotFound} when it cannot be written.
void export_onnx(const Graph& graph, const std::filesystem::path& path);

}  // namespace deepseek
