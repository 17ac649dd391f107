// A network of two layers whose batch size is known only when it runs.
#include <deepseek/deepseek.h>

#include <cstdio>
#include <vector>

namespace ds = deepseek;

int main() try {
  ds::Graph graph;
  const ds::Value x = graph.placeholder("x", ds::DType::F32, {ds::Dim::symbol("batch"), 2});
  const std::vector<float> weights = {1, -1, 2, 0.5F};
  const ds::Value w = graph.constant(ds::Tensor::of<float>(ds::DType::F32, {2, 2}, weights), "w");
  const ds::Value hidden = graph.op("relu", {graph.op("matmul", {x, w})});
  graph.output("y", graph.op("matmul", {hidden, w}));

  const ds::Executable program = ds::compile(graph);
  for (const std::int64_t batch : {1, 3}) {
    const std::vector<float> ones(static_cast<std::size_t>(2 * batch), 1);
    const auto results = program.run({{"x", ds::Tensor::of<float>(ds::DType::F32, {batch, 2}, ones)}});
    const ds::Tensor& y = results.at("y");
    std::printf("y%s:", ds::str(y.dims()).c_str());
    for (const float value : y.as<float>()) std::printf(" %g", value);
    std::printf("\n");
  }

  try {
    graph.op("matmul", {x, hidden, w});
  } catch (const ds::Error& e) {
    std::printf("an error says what is wrong: %s\n", e.what());
  }
} catch (const ds::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
