// Contractions of quantised tensors: sums of products of bytes, exact, on every target.
#include <gtest/gtest.h>

#include <random>
#include <tuple>

#include "ops/graph_builder.h"
#include "passes/pipeline.h"
#include "support/amx_emulator.h"
#include "targets/cpu/cpu_target.h"
#include "targets/cpu/isa.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

Tensor random_bytes(DType t, Dims dims, unsigned seed) {
  Tensor x(t, std::move(dims));
  std::mt19937 rng(seed);
  std::uniform_int_distribution<int> any(0, 255);
  for (std::int64_t i = 0; i < x.numel(); ++i)
    static_cast<std::uint8_t*>(x.data())[i] = static_cast<std::uint8_t>(any(rng));
  return x;
}
Tensor filled(DType t, int value) {
  Tensor x(t, {});
  *static_cast<std::uint8_t*>(x.data()) = static_cast<std::uint8_t>(value);
  return x;
}

// Every target, and each instruction set that multiplies bytes.
std::vector<testing::NamedTarget> targets() {
  std::vector<testing::NamedTarget> found = testing::every_target();
  for (const char* isa : {"avx512_bf16", "avx512_vnni", "avx2_vnni"})
    if (host_has(isa)) found.push_back({isa, [isa] { return cpu_target(isa); }});
  if (host_has("avx512_vnni"))
    found.push_back({"amx", [] {
                       testing::emulate_amx();
                       return emulated_cpu_target("amx");
                     }});
  return found;
}

class Bytes : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  void expect_right(const Graph& g, const NamedTensors& inputs, double tolerance = 0) const {
    const auto target = GetParam().make();
    const Executable e = testing::compile_for(g, *target);
    const auto& tiles = target->info().tiles;
    bool has_unit = false, is_used = false;
    for (const DType unit : {DType::U8, DType::I16}) {
      has_unit |=
          std::any_of(tiles.begin(), tiles.end(), [&](const TileShape& t) { return t.operands == unit; });
      is_used |= e.explain().find(" in " + std::string(name(unit))) != std::string::npos;
    }
    EXPECT_EQ(has_unit, is_used) << e.explain();
    testing::expect_like_reference(e, g, inputs, tolerance);
  }
};

enum class Zero : std::uint8_t { None, Known, Given };

// x as int32 less its zero point.
Value centred(GraphBuilder& b, Value x, Zero kind, int zero) {
  const Value wide = b.cast(x, DType::I32);
  if (kind == Zero::None) return wide;
  const Value p = kind == Zero::Known ? b.graph().constant(filled(x.dtype(), zero), "p")
                                      : b.graph().placeholder("p", x.dtype(), {});
  return b.sub(wide, b.cast(p, DType::I32));
}

TEST_P(Bytes, MatmulOfIntegers) {
  for (const DType of_x : {DType::U8, DType::I8})
    for (const DType of_w : {DType::I8, DType::U8})
      for (const Zero zero : {Zero::None, Zero::Known, Zero::Given})
        for (const auto& [m, n, k] : {std::tuple{1, 16, 4}, {37, 33, 67}, {5, 3, 1}}) {
          SCOPED_TRACE(::testing::Message() << name(of_x) << " x " << name(of_w) << ", " << m << " x " << n
                                            << " x " << k << ", zero " << static_cast<int>(zero));
          Graph g;
          GraphBuilder b(g);
          const Value x = g.placeholder("x", of_x, {m, k});
          const Value w = g.constant(random_bytes(of_w, {k, n}, 2), "w");
          g.output("y", b.matmul(centred(b, x, zero, 77),
                                 centred(b, w, of_w == DType::U8 ? Zero::Known : Zero::None, 128)));
          NamedTensors inputs = {{"x", random_bytes(of_x, {m, k}, 1)}};
          if (zero == Zero::Given) inputs["p"] = filled(of_x, 119);
          expect_right(g, inputs);
        }
}

// Neighbours add up to more than 16 bits hold.
TEST_P(Bytes, SumsOfTheLargestProductsAreExact) {
  constexpr std::int64_t kRows = 13, kColumns = 40;
  for (const std::int64_t depth : {1, 6, 1027}) {
    Tensor left(DType::U8, {kRows, depth}), right(DType::I8, {depth, kColumns});
    for (std::int64_t i = 0; i < left.numel(); ++i) left.as<std::uint8_t>()[i] = i / depth == 5 ? i % 2 : 255;
    for (std::int64_t i = 0; i < right.numel(); ++i)
      right.as<std::int8_t>()[i] = static_cast<std::int8_t>(i % kColumns % 3 == 0 ? 127 : -128);
    Graph g;
    GraphBuilder b(g);
    const Value x = g.placeholder("x", DType::U8, {kRows, depth}), w = g.constant(right, "w");
    g.output("y", b.matmul(b.cast(x, DType::I32), b.cast(w, DType::I32)));
    expect_right(g, {{"x", left}});
  }
}

// Most activations are small, but not all: two at random in some rows.
TEST_P(Bytes, FewLargeActivationsAmongSmallOnes) {
  constexpr std::int64_t kLargest = 256;
  for (const std::int64_t depth : {16, 36, 64, 300})
    for (const std::int64_t rows : {1, 6, 50}) {
      SCOPED_TRACE(::testing::Message() << rows << " rows, " << depth << " deep");
      Tensor left = random_bytes(DType::U8, {rows, depth}, 1);
      std::mt19937 random(static_cast<unsigned>(rows * depth));
      for (std::int64_t i = 0; i < left.numel(); ++i) {
        auto& x = left.as<std::uint8_t>()[i];
        x = random() % 40 == 0 ? static_cast<std::uint8_t>(kLargest - 1 - x / 64) : x % 128;
      }
      Graph g;
      GraphBuilder b(g);
      const Value x = g.placeholder("x", DType::U8, {rows, depth}),
                  w = g.constant(random_bytes(DType::I8, {depth, 40}, 2), "w");
      g.output("y", b.matmul(b.cast(x, DType::I32), b.cast(w, DType::I32)));
      expect_right(g, {{"x", left}});
    }
}

TEST_P(Bytes, DequantisedLinearLayer) {
  Graph g;
  const Value x = g.placeholder("x", DType::U8, {2, 9, 50}), p = g.placeholder("p", DType::U8, {});
  const Value w = g.constant(random_bytes(DType::I8, {40, 50}, 2), "w");
  Tensor scales = random_tensor({40, 1}, 5);
  for (float& s : scales.as<float>()) s = 0.01F + std::abs(s) / 50;
  const Value a = g.op("dequantize", {x, g.placeholder("s", DType::F32, {}), p}),
              c = g.op("dequantize", {w, g.constant(scales, "t")});
  const std::vector<std::int64_t> turned = {1, 0};
  const Value y = g.op("matmul", {a, g.op("transpose", {c}, {{"perm", turned}})});
  g.output("y", g.op("relu", {g.op("add", {y, g.placeholder("r", DType::F32, {40})})}));
  Tensor scale(DType::F32, {});
  scale.as<float>()[0] = 0.02F;
  expect_right(g,
               {{"x", random_bytes(DType::U8, {2, 9, 50}, 1)},
                {"p", filled(DType::U8, 100)},
                {"s", scale},
                {"r", random_tensor({40}, 4)}},
               1e-5);
}

TEST_P(Bytes, ConvolutionWhoseBorderIsTheZeroPoint) {
  const std::vector<std::int64_t> one = {1, 1}, two = {2, 1};
  for (const std::int64_t groups : {1, 2})
    for (const DType t : {DType::U8, DType::I8}) {
      SCOPED_TRACE(::testing::Message() << groups << " groups of " << name(t));
      Graph g;
      GraphBuilder b(g);
      const Dims of_x = {2, groups * 8, 9, 7}, of_w = {groups * 20, 8, 3, 2};
      const Value x = g.placeholder("x", t, Shape(of_x.begin(), of_x.end()));
      const Value w = g.constant(random_bytes(DType::I8, of_w, 2), "w");
      g.output("y",
               g.op("conv", {centred(b, x, Zero::Known, 99), b.cast(w, DType::I32)},
                    {{"strides", two}, {"pad_low", one}, {"pad_high", one}, {"feature_groups", groups}}));
      expect_right(g, {{"x", random_bytes(t, of_x, 1)}});
    }
}

// Whole steps of the depth are read in place, by matrix registers too; few channels are packed out of a copy.
// An odd number of elements in a filter's row becomes even where pairs are multiplied.
TEST_P(Bytes, ConvolutionOfChannelsLast) {
  for (const std::int64_t channels : {3, 64, 128})
    for (const auto& [stride, taps, zero] : {std::tuple{1, 2, 0}, {2, 2, 0}, {1, 3, 99}, {2, 3, 99}}) {
      SCOPED_TRACE(::testing::Message() << channels << " channels, stride " << stride << ", zero " << zero);
      Graph g;
      GraphBuilder b(g);
      const Dims of_x = {2, 5, 37, channels}, of_w = {40, channels, 3, taps};
      const Value x = g.placeholder("x", DType::U8, Shape(of_x.begin(), of_x.end()));
      const Value w = g.constant(random_bytes(DType::I8, of_w, 2), "w");
      g.output("y", g.op("conv", {centred(b, x, Zero::Known, zero), b.cast(w, DType::I32)},
                         {{"strides", std::vector<std::int64_t>{stride, stride}},
                          {"pad_low", std::vector<std::int64_t>{1, 0}},
                          {"pad_high", std::vector<std::int64_t>{1, 1}},
                          {"input_layout", std::string("N01C")},
                          {"output_layout", std::string("N01C")}}));
      expect_right(g, {{"x", random_bytes(DType::U8, of_x, 1)}});
    }
}

// precision="int8": weights by column and activations by row, to 7 bits and a sign.
TEST_P(Bytes, LayersOfFloatsAreQuantised) {
  const std::vector<std::int64_t> one = {1, 1}, two = {2, 1};
  for (const bool conv : {false, true}) {
    Graph g;
    const Dims of_x = conv ? Dims{2, 8, 9, 7} : Dims{2, 9, 50};
    const Value x = g.placeholder("x", DType::F32, Shape(of_x.begin(), of_x.end()));
    const Value w = g.constant(random_tensor(conv ? Dims{40, 8, 3, 2} : Dims{50, 40}, 2), "w");
    g.output("y", conv ? g.op("conv", {x, w}, {{"strides", two}, {"pad_low", one}, {"pad_high", one}})
                       : g.op("matmul", {x, w}));
    const auto target = GetParam().make();
    const Executable e = testing::compile_for(g, *target, {}, kernels::Precision::Int8);
    const NamedTensors inputs = {{"x", random_tensor(of_x, 1)}};
    const Tensor got = e.run(inputs).at("y"), want = testing::reference(g, inputs).at("y");
    testing::expect_close(got, want, 0.02);
    double error = 0;
    for (std::int64_t i = 0; i < want.numel(); ++i) error += std::abs(got.at(i) - want.at(i));
    EXPECT_GT(error, 1e-3);  // it was rounded
  }
}

// As int16 bytes are worth less than the products that Winograd's algorithm saves.
TEST(BytesInWords, FloatsKeepWhatWinogradSaves) {
  for (const std::int64_t taps : {1, 3})
    for (const std::int64_t stride : {1, 2})
      for (const std::int64_t size : {8, 16}) {
        SCOPED_TRACE(::testing::Message() << taps << " taps, stride " << stride << ", size " << size);
        Graph g;
        const std::vector<std::int64_t> pad(2, taps / 2);
        const auto floats = [&](Value v) {
          return g.op("dequantize", {v, g.constant(random_tensor({1}, 1), "s")});
        };
        const Value x = g.placeholder("x", DType::U8, {1, 32, size * stride, size * stride});
        const Value w = g.constant(random_bytes(DType::I8, {32, 32, taps, taps}, 2), "w");
        g.output("y", g.op("conv", {floats(x), floats(w)},
                           {{"strides", std::vector<std::int64_t>{stride, stride}},
                            {"pad_low", pad},
                            {"pad_high", pad}}));
        const Graph made = run_pipeline(g, {.bytes_in_words = true});
        const bool saves = taps == 3 && stride == 1 && size == 16;
        for (const auto& n : made.nodes())
          if (n->op && n->op->name == "conv") {
            EXPECT_EQ(n->outputs[0].dtype, saves ? DType::F32 : DType::I32);
          }
      }
}

INSTANTIATE_TEST_SUITE_P(, Bytes, ::testing::ValuesIn(targets()), testing::target_name);

}  // namespace
}  // namespace deepseek
