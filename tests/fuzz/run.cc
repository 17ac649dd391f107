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
constexpr std::int64_t kMaxWork = 1 << 20;      // elements that a graph reads
constexpr std::size_t kMaxNodes = 200;

// Elements of a value; dims that only the run tells count nothing of their own.
Dim elements(const Type& t, DimEnv env) {
  std::vector<std::string> symbols;
  for (const Dim& d : t.shape) d.symbols(symbols);
  for (const std::string& s : symbols) env.try_emplace(s, 1);
  const std::int64_t count = numel(eval(t.shape, env));
  return count > kMaxElements ? kMaxWork : count;
}

Dim graph_reads(const Graph& g, const DimEnv& env);

// How many elements a node reads, about: each of its inputs, and for each of its results what that is made of. Loops turn
// at most once for each element that they carry.
Dim reads(const Node& n, const DimEnv& env) {
  Dim results = 0, total = 1;
  for (const Type& t : n.outputs) results = results + elements(t, env);
  for (const Value& v : n.inputs)
    if (v) total = total + elements(v.type(), env);
  total = total + results;
  if (const auto it = n.attrs.find("window"); it != n.attrs.end()) {
    Dim taps = results;
    for (const std::int64_t w : std::get<std::vector<std::int64_t>>(it->second)) taps = taps * Dim(w);
    total = total + taps;
  }
  const std::string_view name = n.op_name();
  if (name == "matmul" || name == "squared_distance")
    total = total + results * elements({n.in(0).dtype(), {n.in(0).dim(-1)}}, env);
  if (name == "conv") total = total + results * elements(n.in(1).type(), env);
  for (const auto& [key, attr] : n.attrs)
    if (const auto* sub = std::get_if<std::shared_ptr<const Graph>>(&attr); sub && *sub)
      total = total + graph_reads(**sub, env) * (name == "while" ? results : Dim(1));
  return total;
}

Dim graph_reads(const Graph& g, const DimEnv& env) {
  Dim total = 0;
  for (const auto& n : g.nodes()) total = total + reads(*n, env);
  return total;
}

bool small(const Graph& g, const DimEnv& env) {
  return g.nodes().size() <= kMaxNodes && graph_reads(g, env).value() < kMaxWork;
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
