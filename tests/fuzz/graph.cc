// Graphs from any text: what parses prints and parses back to the same text, verifies, compiles and runs. Errors are the
// only exceptions.
#include "deepseek/graph.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "deepseek/error.h"
#include "passes/pipeline.h"
#include "run.h"

namespace {

using namespace deepseek;

// Loops may have no end.
bool may_not_end(const Graph& g) {
  return std::ranges::any_of(g.nodes(), [](const auto& n) {
    return n->op_name() == "while" || std::ranges::any_of(n->attrs, [](const auto& attr) {
             const auto* sub = std::get_if<std::shared_ptr<const Graph>>(&attr.second);
             return sub && *sub && may_not_end(**sub);
           });
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  unsigned seed = 0;
  for (std::size_t i = 0; i < size; ++i) seed = seed * 31 + data[i];
  try {
    const Graph graph = Graph::parse({reinterpret_cast<const char*>(data), size});
    const std::string text = graph.str();
    if (const std::string again = Graph::parse(text).str(); again != text) {
      std::fprintf(stderr, "%s\nprints as\n%s\n", text.c_str(), again.c_str());
      std::abort();
    }
    graph.verify();
    run_pipeline(graph, {}).verify();
    if (!may_not_end(graph)) fuzz::compile_and_run(graph, seed);
  } catch (const Error& e) {
    if (e.code() == Code::Internal) {
      std::fprintf(stderr, "%s\n", e.what());
      std::abort();
    }
  }
  return 0;
}
