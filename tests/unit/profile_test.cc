#include "deepseek/profile.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "deepseek/compile.h"
#include "test_kernels.h"

namespace deepseek {
namespace {

using namespace test_kernels;

double sum_of_steps(const Profile& p) {
  double sum = 0;
  for (const StepProfile& s : p.steps) sum += s.seconds;
  return sum;
}

TEST(Profile, StepsAndWhatIsOutsideAddUpToTheRun) {
  const Profile p = profile(chain(3), std::vector<Tensor>{vec(std::vector<float>(100, 1))}, {.runs = 7});
  EXPECT_EQ(p.runs, 4);  // the faster half
  ASSERT_EQ(p.steps.size(), 6);
  EXPECT_NEAR(sum_of_steps(p) + p.outside, p.seconds, 1e-12);
  EXPECT_GE(p.outside, 0);
  double share = p.outside / p.seconds;
  for (const StepProfile& s : p.steps) {
    EXPECT_EQ(s.calls, 1);
    EXPECT_EQ(s.source, "model.py:7");
    EXPECT_GT(s.seconds, 0);
    EXPECT_LE(s.best_seconds, s.seconds * (1 + 1e-9));
    EXPECT_EQ(s.bytes, 800);  // read once, written once
    share += s.share;
  }
  EXPECT_NEAR(share, 1, 1e-9);
  EXPECT_TRUE(std::is_sorted(p.steps.begin(), p.steps.end(),
                             [](const auto& a, const auto& b) { return a.seconds > b.seconds; }));
}

Graph with_a_bottleneck() {
  Graph g;
  Dim n = Dim::symbol("N");
  g.set_source("small.py:1");
  Value x = g.placeholder("x", DType::F32, {n, Dim(16)});
  Value small = g.op(
      "relu", {g.op("matmul", {x, g.op("transpose", {x}, {{"perm", std::vector<std::int64_t>{1, 0}}})})});
  g.set_source("planted.py:42");
  Value big = g.placeholder("big", DType::F32, {n, Dim(40000)});
  Value slow = g.op("tanh", {big});
  g.output("small", small);
  g.output("slow", slow);
  return g;
}

TEST(Profile, FindsAPlantedBottleneckAndItsLine) {
  const Executable e = compile(with_a_bottleneck(), {.threads = 2});
  for (const std::int64_t n : {8, 32}) {
    const Profile p = profile(
        e, std::vector<Tensor>{Tensor::zeros(DType::F32, {n, 16}), Tensor::zeros(DType::F32, {n, 40000})},
        {.runs = 8});
    ASSERT_GE(p.steps.size(), 2);
    EXPECT_EQ(p.steps[0].source, "planted.py:42");
    EXPECT_EQ(p.steps[0].ops, "tanh");
    EXPECT_GT(p.steps[0].share, 0.5);
    EXPECT_EQ(p.steps[0].bytes, static_cast<double>(n * 40000 * 4 * 2));
    EXPECT_GT(p.steps[0].roof_seconds, 0);
    EXPECT_NE(p.steps[0].roof, "compute");
    EXPECT_NE(p.str().find("planted.py:42"), std::string::npos);
    const auto product = std::find_if(p.steps.begin(), p.steps.end(), [](const StepProfile& s) {
      return s.ops == "matmul, relu" && s.way == "gemm";
    });
    ASSERT_NE(product, p.steps.end());
    EXPECT_EQ(product->flops, static_cast<double>(2 * n * n * 16));
  }
}

TEST(Profile, TableCutsAndMergesRows) {
  Profile p;
  p.seconds = 10e-6;
  p.outside = 1e-6;
  p.runs = 1;
  for (int i = 0; i < 3; ++i)
    p.steps.push_back(
        {"k", "conv", "m.py:" + std::to_string(i), "gemm", 1, 3e-6, 2e-6, 0.3, 6e3, 9e3, 1e-6, "compute"});
  EXPECT_NE(p.str(2).find("1 more rows"), std::string::npos);
  const std::string merged = p.str(2, true);
  EXPECT_NE(merged.find("conv x3  (m.py:0)"), std::string::npos) << merged;
  EXPECT_NE(merged.find("90.0%"), std::string::npos) << merged;
  EXPECT_NE(merged.find("33% compute"), std::string::npos) << merged;
  EXPECT_EQ(merged.find("m.py:1"), std::string::npos) << merged;
  EXPECT_NE(merged.find("most to gain: 60% of the run, conv at m.py:0"), std::string::npos) << merged;
}

// A loop that adds 1 until x reaches 5: its own time is apart from that of its body.
TEST(Profile, LoopsTellOfTheirBodies) {
  const auto one = [](const char* name, float more) {
    ExecutableBuilder b;
    const ValueId x = b.input("x", {DType::F32, {1}});
    const ValueId y = b.temp({DType::F32, {1}});
    b.kernel(Phase::Run, info(name), {unary([more](float v) { return v + more; }), {}, {x, y}, {}});
    b.output("y", y);
    return b.finish();
  };
  ExecutableBuilder c;
  const ValueId at = c.input("x", {DType::F32, {1}});
  const ValueId go = c.temp({DType::Bool, {1}});
  c.kernel(Phase::Run, info("below"),
           {std::make_shared<TestKernel>([](void* const* b, const Dim64*, Dim64) {
              *static_cast<bool*>(b[1]) = f32(b, 0)[0] < 5;
              return 0;
            }),
            {},
            {at, go},
            {}});
  c.output("go", go);
  ExecutableBuilder b;
  const ValueId x = b.input("x", {DType::F32, {1}});
  b.output("y", b.loop(info("until"), c.finish(), one("more", 1), {x}, {}, {}, {{DType::F32, {1}}})[0]);
  const Profile p = profile(b.finish(), std::vector<Tensor>{vec({0})}, {.runs = 4});
  std::map<std::string, std::int64_t> calls;
  for (const StepProfile& s : p.steps) {
    calls[s.name] = s.calls;
    EXPECT_GE(s.seconds, 0);
  }
  EXPECT_EQ(calls, (std::map<std::string, std::int64_t>{{"below", 6}, {"more", 5}, {"until", 1}}));
  EXPECT_NEAR(sum_of_steps(p) + p.outside, p.seconds, 1e-12);
}

TEST(Profile, ParametersArePreparedOnce) {
  int prepared = 0;
  ExecutableBuilder b;
  const ValueId w = b.input("w", {DType::F32, {4}}, Role::Parameter);
  const ValueId twice = b.temp({DType::F32, {4}}), y = b.temp({DType::F32, {4}});
  b.kernel(Phase::Prepare, info("prepare"),
           {std::make_shared<TestKernel>(
                [&](void* const* v, const Dim64*, Dim64 i) {
                  prepared += i == 0;
                  f32(v, 1)[i] = 2 * f32(v, 0)[i];
                  return 0;
                },
                4),
            {},
            {w, twice},
            {}});
  b.kernel(Phase::Run, info("use"),
           {std::make_shared<TestKernel>(
                [](void* const* v, const Dim64*, Dim64 i) {
                  f32(v, 1)[i] = f32(v, 0)[i];
                  return 0;
                },
                4),
            {},
            {twice, y},
            {}});
  b.output("y", y);
  const Profile p = profile(b.finish(), std::vector<Tensor>{vec({1, 2, 3, 4})}, {.runs = 5});
  EXPECT_EQ(prepared, 1);
  EXPECT_EQ(p.steps.size(), 1);
}

TEST(Profile, TraceHasStepsAndWorkers) {
  const Executable e = compile(with_a_bottleneck(), {.threads = 2});
  const Profile p = profile(
      e, std::vector<Tensor>{Tensor::zeros(DType::F32, {8, 16}), Tensor::zeros(DType::F32, {8, 40000})},
      {.runs = 4});
  std::size_t steps = 0;
  for (const TraceSpan& t : p.trace) {
    EXPECT_LE(t.begin, t.end);
    steps += t.worker < 0;
    const auto inside = [&](const TraceSpan& s) {
      return s.worker < 0 && s.step == t.step && s.begin <= t.begin && t.end <= s.end;
    };
    EXPECT_TRUE(std::any_of(p.trace.begin(), p.trace.end(), inside));
  }
  EXPECT_EQ(steps, p.steps.size());
  EXPECT_GT(p.trace.size(), steps);
  const std::string path = testing::TempDir() + "profile_trace.json";
  p.write_chrome_trace(path);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  std::remove(path.c_str());
  EXPECT_NE(text.str().find("\"source\": \"planted.py:42\""), std::string::npos);
  EXPECT_NE(text.str().find("worker 0"), std::string::npos);
  EXPECT_THROW(p.write_chrome_trace("/nowhere/trace.json"), Error);
}

TEST(Profile, OpsMayLackOptionalInputs) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim(8)});
  g.output("y", g.op("clamp", {x, Value{}, g.scalar(1, DType::F32)}));
  const Profile p = profile(compile(g), std::vector<Tensor>{Tensor::zeros(DType::F32, {8})}, {.runs = 4});
  ASSERT_EQ(p.steps.size(), 1);
  EXPECT_EQ(p.steps[0].ops, "clamp");
}

TEST(Profile, RefusesANegativeNumberOfRuns) {
  EXPECT_THROW(profile(chain(1), std::vector<Tensor>{vec({1})}, {.runs = -1}), Error);
}

TEST(Roof, LevelsAreOrderedAndMeasured) {
  const Roof& r = measured_roof(1);
  EXPECT_EQ(&r, &measured_roof(1));
  EXPECT_GT(r.flops_per_s, 1e8);
  EXPECT_GE(r.vector_bits, 128);
  // Which is faster differs: where there are matrix registers, vectors may multiply bf16 slower than fp32.
  EXPECT_TRUE(r.bf16_flops_per_s == 0 || r.bf16_flops_per_s > 1e8);
  EXPECT_TRUE(r.int8_flops_per_s == 0 || r.int8_flops_per_s > 1e8);
  ASSERT_EQ(r.levels.size(), 4);
  for (std::size_t i = 0; i < r.levels.size(); ++i) {
    EXPECT_GT(r.levels[i].read, 1e8);
    EXPECT_GT(r.levels[i].write, 1e8);
    if (i > 0) EXPECT_LE(r.levels[i - 1].capacity, r.levels[i].capacity);
  }
  EXPECT_EQ(r.level(1).name, "L1");
  EXPECT_EQ(r.level(1e18).name, "memory");
  EXPECT_LE(measured_roof(1, 256).vector_bits, 256);
}

}  // namespace
}  // namespace deepseek
