// ONNX Runtime running our executables: nodes deepseek:Executable, whose attribute `executable` (a string) holds
// Executable::bytes(), with the executable's inputs and outputs in order.
//
// libdeepseek_runtime is a custom-op library of ONNX Runtime's (1.16 and newer): a session whose options registered it
// may have such nodes. They run on the pool of threads that the executable was compiled for.
#pragma once

#include <string>

namespace deepseek {

// The file to hand to OrtApi::RegisterCustomOpsLibrary_V2 or SessionOptions.register_custom_ops_library.
std::string onnxruntime_library();

}  // namespace deepseek
