// deepseek-opt FILE [--pass NAME]... [--disable NAME]... [--weight-bits 8|4] [--bf16] [--store bfloat16|float16]: reads a graph's text form, runs passes and prints what
// comes out. Without --pass: the whole pipeline. --list-passes and --list-rules name what there is. For tests.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepseek/graph.h"
#include "passes/pipeline.h"

namespace {

using deepseek::Code;
using deepseek::Error;
using deepseek::Graph;

struct Arguments {
  std::string file;
  std::vector<std::string> passes, disabled;
  int weight_bits = 0;
  bool bf16 = false;
  deepseek::DType stored = deepseek::DType::F32;
};

Arguments read_arguments(std::span<char*> argv) {
  Arguments a;
  for (std::size_t i = 1; i < argv.size(); ++i) {
    const std::string_view arg = argv[i];
    const bool takes_name = arg == "--pass" || arg == "--disable", takes_bits = arg == "--weight-bits",
               takes_type = arg == "--store";
    if ((takes_name || takes_bits || takes_type) && i + 1 == argv.size())
      throw Error(Code::InvalidArgument, "deepseek-opt", "", "a value after " + std::string(arg), "nothing");
    if (takes_name)
      (arg == "--pass" ? a.passes : a.disabled).emplace_back(argv[++i]);
    else if (arg == "--bf16")
      a.bf16 = true;
    else if (takes_type)
      a.stored = deepseek::parse_dtype(argv[++i]).value();
    else if (takes_bits)
      a.weight_bits = std::string_view(argv[++i]) == "4" ? 4 : 8;
    else if (a.file.empty())
      a.file = arg;
    else
      throw Error(Code::InvalidArgument, "deepseek-opt", "", "one file", std::string(arg));
  }
  if (a.file.empty())
    throw Error(Code::InvalidArgument, "deepseek-opt", "", "a file, or - for input", "nothing");
  return a;
}

std::string read_text(const std::string& path) {
  const auto all = [](std::istream& in) {
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  };
  if (path == "-") return all(std::cin);
  std::ifstream in(path);
  if (!in) throw Error(Code::NotFound, "deepseek-opt", path, "a file that can be read", "none");
  return all(in);
}

Graph run(const Graph& graph, const Arguments& a) {
  const deepseek::PassOptions options{
      .disabled = a.disabled, .bf16 = a.bf16, .stored = a.stored, .weight_bits = a.weight_bits};
  if (a.passes.empty()) return deepseek::run_pipeline(graph, options);
  Graph result = graph.clone();
  for (const std::string& name : a.passes) {
    const deepseek::Pass* found = nullptr;
    for (const deepseek::Pass& p : deepseek::pipeline())
      if (p.name == name) found = &p;
    if (!found) throw Error(Code::NotFound, "deepseek-opt", "", "a pass of --list-passes", name);
    result = found->run(result, options);
    result.verify();
  }
  return result;
}

void list(std::string_view what) {
  if (what == "--list-passes")
    for (const deepseek::Pass& p : deepseek::pipeline()) std::cout << p.name << "\n";
  else
    for (const auto rules : {deepseek::canonical_rules(), deepseek::simplify_rules(), deepseek::byte_rules(),
                             deepseek::scale_rules(), deepseek::layout_rules(), deepseek::view_rules()})
      for (const deepseek::Rule& r : rules) std::cout << r.name << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::span<char*> arguments(argv, static_cast<std::size_t>(argc));
    const std::string_view first = argc > 1 ? argv[1] : "";
    if (first == "--list-passes" || first == "--list-rules") {
      list(first);
      return 0;
    }
    const Arguments a = read_arguments(arguments);
    std::cout << run(Graph::parse(read_text(a.file)), a).str() << "\n";
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
