// ds-import MODEL...: prints the graph that each ONNX model becomes, or its error. With --check only one line per
// model, and its exit status is the number of models that failed (at most 125).
#include <cstdio>
#include <cstring>

#include "deepseek/import_onnx.h"

int main(int argc, char** argv) {
  bool brief = false;
  int failed = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--check") == 0) {
      brief = true;
      continue;
    }
    try {
      deepseek::OnnxProgram program{std::filesystem::path(argv[i])};
      std::string asks;
      for (const std::string& name : program.shape_inputs()) asks += (asks.empty() ? "" : ", ") + name;
      if (!asks.empty()) {
        std::printf("%s: needs the values of %s\n", argv[i], asks.c_str());
        continue;
      }
      const auto graph = program.graph_for({});
      graph->verify();
      if (brief)
        std::printf("%s: %zu nodes\n", argv[i], graph->nodes().size());
      else
        for (const auto& n : graph->nodes())
          std::printf("%s = %s : %s\n", n->name.c_str(), std::string(n->op_name()).c_str(),
                      deepseek::str(n->outputs[0]).c_str());
    } catch (const deepseek::Error& e) {
      ++failed;
      std::printf("%s: ERROR %s\n", argv[i], e.what());
    }
  }
  return failed > 125 ? 125 : failed;
}
