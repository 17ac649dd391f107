#include "run.h"

#include <memory>
#include <string_view>

#include "deepseek/compile.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/interpreter/interpreter_target.h"

namespace deepseek::fuzz {

namespace {

constexpr std::int64_t kMaxElements = 1 << 13;  // of one value of a graph that is run
constexpr std::int64_t kMaxWork = 1 << 24;      // elements that one node reads
constexpr std::size_t kMaxNodes = 200;

// Elements of a value; dims that only the run tells count nothing of their own.
Dim elements(const Type& t, DimEnv env) {
  std::vector<std::string> symbols;
  for (const Dim& d : t.shape) d.symbols(symbols);
  for (const std::string& s : symbols) env.try_emplace(s, 1);
  return numel(eval(t.shape, env));
}

// How often a node reads: once per element of its results, or per tap of its windows, which may be larger than what
// they slide over.
Dim reads(const Node& n, const DimEnv& env) {
  Dim total = 1;
  for (const Type& t : n.outputs) total = total + elements(t, env);
  if (const auto it = n.attrs.find("window"); it != n.attrs.end())
    for (const std::int64_t taps : std::get<std::vector<std::int64_t>>(it->second)) total = total * Dim(taps);
  return total;
}

bool small(const Graph& g, const DimEnv& env) {
  if (g.nodes().size() > kMaxNodes) return false;
  for (const auto& n : g.nodes()) {
    if (reads(*n, env).value() > kMaxWork) return false;
    for (const Type& t : n->outputs)
      if (elements(t, env).value() > kMaxElements) return false;
    for (const auto& [key, attr] : n->attrs)
      if (const auto* sub = std::get_if<std::shared_ptr<const Graph>>(&attr);
          sub && *sub && !small(**sub, env))
        return false;
  }
  return true;
}

}  // namespace

Tensor sample(DType dtype, const Dims& dims, unsigned seed) {
  Tensor t = Tensor::zeros(dtype, dims);
  for (std::int64_t i = 0; i < t.numel() && !is_complex(dtype); ++i)
    t.set(i, static_cast<double>((i + seed) % 3) + (is_float(dtype) ? 0.5 : 0));
  return t;
}

std::int64_t bound(std::string_view symbol, unsigned seed) {
  for (const char c : symbol) seed = seed * 31 + static_cast<unsigned char>(c);
  return seed % 4;
}

DimEnv bind(const Shape& shape, unsigned seed) {
  std::vector<std::string> symbols;
  for (const Dim& d : shape) d.symbols(symbols);
  DimEnv env;
  for (const std::string& s : symbols) env[s] = bound(s, seed);
  return env;
}

void compile_and_run(const Graph& g, unsigned seed) {
  DimEnv env;
  for (const Node* input : g.inputs()) env.merge(bind(input->outputs[0].shape, seed));
  if (!small(g, env)) return;
  const Graph ready = run_pipeline(g, {});
  if (!small(ready, env)) return;
  Executable executable;
  if (seed % 8 == 0) {
    executable = compile(g, {.target = "cpu", .threads = 1});
  } else {
    InterpreterTarget target({.interpreter = {.check = true, .seed = seed}});
    executable = lower(ready, target, {.threads = 1});
  }
  NamedTensors inputs;
  for (const Node* input : g.inputs()) {
    const Type& t = input->outputs[0];
    inputs.emplace(input->name, sample(t.dtype, eval(t.shape, env), seed));
  }
  executable.run(inputs);
}

}  // namespace deepseek::fuzz
