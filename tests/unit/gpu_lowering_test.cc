// Graphs for a GPU: what the compiler's own lowering gives for a gpu_mapped target is right in the checking interpreter,
// and the same programs come out as PTX that NVIDIA's assembler takes.
#include <gtest/gtest.h>

#include "support/ptxas.h"
#include "targets/gpu/ptx.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

constexpr const char* kArchitecture = "sm_80";

// The GPU-mapped interpreter, which keeps the programs.
class RecordingTarget : public Target {
 public:
  std::vector<loops::Program> programs;

  const TargetInfo& info() const override { return interpreter_->info(); }
  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> p) override {
    programs.insert(programs.end(), p.begin(), p.end());
    return interpreter_->compile(p);
  }

 private:
  std::shared_ptr<Target> interpreter_ = testing::interpreter(true);
};

bool has_loop(const loops::Program& p, loops::LoopKind kind) {
  bool found = false;
  loops::visit_stmts(p.body, [&](const loops::Stmt& s) {
    const auto* f = loops::as<loops::For>(s);
    found = found || (f && f->kind == kind);
  });
  return found;
}

// Each program's PTX assembles; the results are right as well.
void check(const Graph& g, const NamedTensors& inputs, const std::string& kernel) {
  RecordingTarget target;
  testing::expect_like_reference(testing::compile_for(g, target), g, inputs);
  bool found = false;
  for (const loops::Program& p : target.programs) {
    SCOPED_TRACE(p.name);
    EXPECT_TRUE(has_loop(p, loops::LoopKind::Block) && has_loop(p, loops::LoopKind::Thread)) << print(p);
    const std::string ptx = emit_ptx(p, kArchitecture);
    EXPECT_EQ(ptx.find("call"), std::string::npos) << ptx;
    found = found || p.name.find(kernel) != std::string::npos;
    testing::expect_assembles(ptx, kArchitecture);
  }
  EXPECT_TRUE(found) << "no kernel is called " << kernel;
}

TEST(GpuLowering, GemmWithPrologueAndEpilogue) {
  for (const auto& [m, n, k] : {std::tuple{37, 40, 64}, {64, 64, 32}}) {
    Graph g;
    const Value a = g.placeholder("a", DType::F32, {m, k}), b = g.placeholder("b", DType::F32, {k, n});
    const Value r = g.placeholder("r", DType::F32, {n});
    g.output("y", g.op("gelu", {g.op("add", {g.op("matmul", {g.op("neg", {a}), b}), r})}));
    check(g, {{"a", random_tensor({m, k}, 1)}, {"b", random_tensor({k, n}, 2)}, {"r", random_tensor({n}, 3)}},
          "matmul_add");
  }
}

TEST(GpuLowering, GemmAtADynamicLength) {
  Graph g;
  const Value a = g.placeholder("a", DType::F32, {Dim::symbol("m"), 24}),
              b = g.placeholder("b", DType::F32, {24, 32});
  g.output("y", g.op("tanh", {g.op("matmul", {a, b})}));
  check(g, {{"a", random_tensor({19, 24}, 1)}, {"b", random_tensor({24, 32}, 2)}}, "matmul_tanh");
}

TEST(GpuLowering, Elementwise) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3, Dim::symbol("n"), 8}),
              c = g.placeholder("c", DType::F32, {8});
  g.output("y", g.op("sigmoid", {g.op("mul", {g.op("exp", {x}), c})}));
  check(g, {{"x", random_tensor({3, 11, 8}, 1)}, {"c", random_tensor({8}, 2)}}, "exp_mul");
}

TEST(GpuLowering, Softmax) {
  Graph g;
  g.output("y", g.op("softmax", {g.placeholder("x", DType::F32, {Dim::symbol("n"), 40})},
                     {{"axis", std::int64_t{-1}}}));
  check(g, {{"x", random_tensor({5, 40}, 1)}}, "max");
}

TEST(GpuLowering, Convolution) {
  Graph g;
  const std::vector<std::int64_t> one = {1, 1};
  g.output("y",
           g.op("conv",
                {g.placeholder("x", DType::F32, {1, 8, 9, 7}), g.placeholder("w", DType::F32, {16, 8, 3, 3})},
                {{"pad_low", one}, {"pad_high", one}}));
  check(g, {{"x", random_tensor({1, 8, 9, 7}, 1)}, {"w", random_tensor({16, 8, 3, 3}, 2)}}, "conv");
}

}  // namespace
}  // namespace deepseek
