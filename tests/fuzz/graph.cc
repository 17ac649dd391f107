// Graphs from any text: what parses prints and parses back to the same text, verifies, and goes through every pass.
// Errors are the only exceptions.
#include "deepseek/graph.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "deepseek/error.h"
#include "passes/pipeline.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using deepseek::Graph;
  try {
    const Graph graph = Graph::parse({reinterpret_cast<const char*>(data), size});
    const std::string text = graph.str();
    if (Graph::parse(text).str() != text) std::abort();
    graph.verify();
    deepseek::run_pipeline(graph, {}).verify();
  } catch (const deepseek::Error& e) {
    if (e.code() == deepseek::Code::Internal) std::abort();
  }
  return 0;
}
