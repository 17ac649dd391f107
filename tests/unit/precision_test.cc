// fp32 contractions with operands of bf16: what comes out is what fp64 makes of the rounded operands.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "deepseek/compile.h"
#include "ops/graph_builder.h"
#include "support/amx_emulator.h"
#include "support/gemm_program.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"
#include "targets/llvm/object.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using kernels::Precision;
using testing::random_tensor;

bool has_bf16(const Target& target) {
  for (const TileShape& tile : target.info().tiles)
    if (tile.operands == DType::BF16) return true;
  return false;
}

std::shared_ptr<Target> amx() {
  testing::emulate_amx();
  return emulated_cpu_target("amx");
}

// The targets that multiply bf16: the checking interpreter, the CPU where it does, and where it has all but the matrix
// registers, those emulated.
std::vector<testing::NamedTarget> targets_with_bf16() {
  std::vector<testing::NamedTarget> found;
  if (host_has("avx512_bf16")) found.push_back({"amx", amx});
  for (const testing::NamedTarget& t : testing::every_target())
    if (has_bf16(*t.make())) found.push_back(t);
  return found;
}

class Bf16 : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  // `draw` makes the graph from what rounds its operands. The reference rounds by a cast.
  template <class Draw>
  void expect_rounded(const Draw& draw, const NamedTensors& inputs, bool in_bf16 = true) const {
    Graph g, rounded;
    g.output("y", draw(g, [](Graph&, const Value& v) { return v; }));
    rounded.output("y", draw(rounded, [in_bf16](Graph& to, const Value& v) {
                     if (!in_bf16) return v;
                     return to.op("cast", {to.op("cast", {v}, {{"dtype", DType::BF16}})},
                                  {{"dtype", DType::F32}});
                   }));
    const auto target = GetParam().make();
    const Executable e = testing::compile_for(g, *target, {}, Precision::Bf16);
    EXPECT_NE(e.explain().find(in_bf16 ? " in bfloat16" : " in float32"), std::string::npos) << e.explain();
    testing::expect_close(e.run(inputs).at("y"), testing::reference(rounded, inputs).at("y"), 2e-5);
  }
};

TEST_P(Bf16, MatmulOfAnyShape) {
  std::mt19937 random(7);
  const auto upto = [&](int n) { return std::uniform_int_distribution<std::int64_t>(1, n)(random); };
  const std::vector<std::array<std::int64_t, 4>> corners = {
      {1, 1, 16, 1}, {1, 1, 33, 64}, {1, 14, 32, 2}, {1, 37, 47, 31}, {3, 15, 65, 7}, {1, 70, 130, 100}};
  for (int round = 0; round < 20; ++round) {
    const auto [b, m, n, k] = static_cast<std::size_t>(round) < corners.size()
                                  ? corners[static_cast<std::size_t>(round)]
                                  : std::array{upto(3), upto(70), 15 + upto(90), upto(90)};
    SCOPED_TRACE(::testing::Message() << b << " x " << m << " x " << n << " x " << k);
    const bool weight = round % 2 == 0;  // known before the run, and shared by the batch
    const Dims of_b = weight ? Dims{k, n} : Dims{b, k, n};
    const Tensor right = random_tensor(of_b, 2);
    expect_rounded(
        [&](Graph& g, const auto& round_to) {
          const Value x = g.placeholder("x", DType::F32, {b, m, k});
          const Value w = weight ? g.constant(right, "w") : g.placeholder("w", DType::F32, {b, k, n});
          const Value y = g.op("matmul", {round_to(g, x), round_to(g, w)});
          return g.op("relu", {g.op("add", {y, g.placeholder("r", DType::F32, {n})})});
        },
        weight
            ? NamedTensors{{"x", random_tensor({b, m, k}, 1)}, {"r", random_tensor({n}, 3)}}
            : NamedTensors{{"x", random_tensor({b, m, k}, 1)}, {"w", right}, {"r", random_tensor({n}, 3)}});
  }
}

TEST_P(Bf16, FewColumnsStayInFp32) {
  expect_rounded(
      [&](Graph& g, const auto& round_to) {
        return g.op("matmul", {round_to(g, g.placeholder("x", DType::F32, {20, 30})),
                               round_to(g, g.placeholder("w", DType::F32, {30, 1}))});
      },
      {{"x", random_tensor({20, 30}, 1)}, {"w", random_tensor({30, 1}, 2)}}, false);
}

TEST_P(Bf16, DynamicDims) {
  const auto draw = [](Graph& g, const auto& round_to) {
    const Dim m = Dim::symbol("m"), k = Dim::symbol("k");
    return g.op("matmul", {round_to(g, g.placeholder("x", DType::F32, {2, m, k})),
                           round_to(g, g.placeholder("w", DType::F32, {2, k, 24}))});
  };
  for (const auto& [m, k] : {std::pair{1, 1}, {7, 40}, {33, 15}, {0, 5}, {5, 0}})
    expect_rounded(draw, {{"x", random_tensor({2, m, k}, 1)}, {"w", random_tensor({2, k, 24}, 2)}});
}

TEST_P(Bf16, Convolutions) {
  const std::vector<std::int64_t> one = {1, 1}, two = {2, 1};
  for (const std::int64_t groups : {1, 2})
    for (const std::int64_t channels : {3, 8}) {
      SCOPED_TRACE(::testing::Message() << groups << " groups of " << channels);
      const Dims x = {2, groups * channels, 9, 7}, w = {groups * 20, channels, 3, 2};
      expect_rounded(
          [&](Graph& g, const auto& round_to) {
            return g.op("conv",
                        {round_to(g, g.placeholder("x", DType::F32, Shape(x.begin(), x.end()))),
                         round_to(g, g.constant(random_tensor(w, 2), "w"))},
                        {{"strides", two}, {"pad_low", one}, {"pad_high", one}, {"feature_groups", groups}});
          },
          {{"x", random_tensor(x, 1)}});
    }
}

// Rows of whole steps of the depth are read in place, by matrix registers too; few channels are packed out of a copy.
TEST_P(Bf16, ConvolutionsOfChannelsLast) {
  const std::vector<std::int64_t> ones = {1, 1};
  for (const std::int64_t channels : {3, 32, 96})
    for (const std::int64_t stride : {1, 2})
      for (const auto& [height, width, low] : {std::tuple{6, 37, 1}, {9, 7, 0}, {1, 16, 1}}) {
        SCOPED_TRACE(::testing::Message()
                     << channels << " channels, " << height << " x " << width << ", stride " << stride);
        const Dims x = {2, height, width, channels}, w = {40, channels, height > 1 ? 3 : 1, 3};
        expect_rounded(
            [&](Graph& g, const auto& round_to) {
              return g.op("conv",
                          {round_to(g, g.placeholder("x", DType::F32, Shape(x.begin(), x.end()))),
                           round_to(g, g.constant(random_tensor(w, 2), "w"))},
                          {{"strides", std::vector<std::int64_t>{stride, stride}},
                           {"pad_low", std::vector<std::int64_t>{low, low}},
                           {"pad_high", ones},
                           {"input_layout", std::string("N01C")},
                           {"output_layout", std::string("N01C")}});
            },
            {{"x", random_tensor(x, 1)}});
      }
}

// What contractions multiply is stored in bf16, also for those who add it, reduce it or look at its other end.
TEST_P(Bf16, ValuesBetweenContractionsAreStoredRounded) {
  const std::vector<std::int64_t> ones = {1, 1};
  const auto draw = [&](Graph& g, const auto& round_to, bool narrow) {
    GraphBuilder b(g);
    const auto stored = [&](Value v) { return narrow ? b.widen(b.cast(v, DType::BF16)) : v; };
    const auto conv = [&](Value x, Dims shape, unsigned seed) {
      const bool pads = shape[2] > 1;
      const std::vector<std::int64_t> border = pads ? ones : std::vector<std::int64_t>{0, 0};
      return g.op("conv", {x, round_to(g, g.constant(random_tensor(shape, seed)))},
                  {{"pad_low", border},
                   {"pad_high", border},
                   {"input_layout", std::string("N01C")},
                   {"output_layout", std::string("N01C")}});
    };
    const Value x = round_to(g, g.placeholder("x", DType::F32, {2, 5, 20, 32}));
    const Value a = stored(g.op("relu", {conv(x, {64, 32, 3, 3}, 2)}));
    const Value c = stored(b.add(conv(a, {64, 64, 3, 3}, 3), a));
    const Value d = stored(b.mul(b.reshape(b.mean(c, {1, 2}, true), {2, 64}), 3));
    const Value y = b.matmul(d, round_to(g, g.constant(random_tensor({64, 24}, 4))));
    g.output("y", b.add(y, b.reshape(b.max(conv(c, {24, 64, 1, 1}, 5), {1, 2}, true), {2, 24})));
  };
  Graph g, rounded;
  draw(g, [](Graph&, const Value& v) { return v; }, false);
  draw(
      rounded,
      [](Graph& to, const Value& v) {
        GraphBuilder b(to);
        return b.widen(b.cast(v, DType::BF16));
      },
      true);
  const NamedTensors inputs = {{"x", random_tensor({2, 5, 20, 32}, 1)}};
  const auto target = GetParam().make();
  const Executable e = testing::compile_for(g, *target, {}, Precision::Bf16);
  EXPECT_NE(e.explain().find("relu_cast"), std::string::npos) << e.explain();
  // Sums in another order may round to the neighbour.
  testing::expect_close(e.run(inputs).at("y"), testing::reference(rounded, inputs).at("y"), 2e-3);
}

INSTANTIATE_TEST_SUITE_P(, Bf16, ::testing::ValuesIn(targets_with_bf16()), testing::target_name);

int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(Amx, FourResultsForTwoOperandsOfEachSide) {
  const codegen::Machine machine = cpu_isa("amx").machine;
  const loops::Program bf16 = testing::gemm_program({64, 64, 64}, 32, 32, DType::BF16, DType::F32, 32,
                                                    testing::Interleaved{DType::BF16, 2});
  const loops::Program bytes = testing::gemm_program({64, 64, 128}, 32, 32, DType::U8, DType::I32, 64,
                                                     testing::Interleaved{DType::I8, 4});
  for (const auto& [program, unit] : {std::pair{bf16, "tdpbf16ps"}, {bytes, "tdpbusd"}}) {
    const std::string code = codegen::compile_assembly(program, machine);
    EXPECT_EQ(count(code, "ldtilecfg"), 1) << code;
    EXPECT_EQ(count(code, "tilerelease"), 1) << code;
    EXPECT_EQ(count(code, unit), 4) << code;
    EXPECT_EQ(count(code, "tileloadd"), 4) << code;
    EXPECT_EQ(count(code, "tilestored"), 4) << code;
    EXPECT_TRUE(codegen::imported_symbols(codegen::compile_object(program, machine)).empty());
  }
}

Graph product() {
  Graph g;
  g.output("y", g.op("matmul",
                     {g.placeholder("x", DType::F32, {8, 40}), g.constant(random_tensor({40, 32}, 2), "w")}));
  return g;
}

TEST(Precision, WhatATargetLacksIsSaidAndFp32IsUsed) {
  for (const std::string& isa : host_isas()) {
    CompileOptions options;
    options.target = "cpu";
    options.isa = isa;
    options.precision = "bf16";
    CompileReport said;
    const Executable e = compile(product(), options, &said);
    const bool bf16 = cpu_isa(isa).machine.dot_bf16;
    EXPECT_EQ(said.warnings.size(), bf16 ? 0U : 1U) << isa;
    EXPECT_EQ(e.explain().find("in bfloat16") != std::string::npos, bf16) << e.explain();
  }
}

TEST(Precision, MatrixRegistersAreUsedWhereTheyAreThere) {
  const codegen::Machine machine = cpu_isa("amx").machine;
  EXPECT_TRUE(machine.amx && machine.dot_bf16);
  if (!host_has("avx512_bf16")) return;
  const long before = testing::emulated_amx_instructions();
  const auto target = amx();
  const Executable e = testing::compile_for(product(), *target, {}, Precision::Bf16);
  e.run(NamedTensors{{"x", random_tensor({8, 40}, 1)}});
  EXPECT_EQ(testing::emulated_amx_instructions() > before, !host_has("amx"));
}

TEST(Precision, IsSavedWithTheExecutable) {
  CompileOptions options;
  options.target = "cpu";
  options.precision = "bf16";
  const Executable e = compile(product(), options);
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / ("precision" + std::to_string(getpid()) + ".ds");
  e.save(file);
  const Executable again = Executable::load(file);
  std::filesystem::remove(file);
  EXPECT_EQ(again.explain(), e.explain());
  const NamedTensors inputs = {{"x", random_tensor({8, 40}, 1)}};
  testing::expect_close(again.run(inputs).at("y"), e.run(inputs).at("y"), 0);
}

}  // namespace
}  // namespace deepseek
