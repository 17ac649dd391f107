// The spine: what the structure must carry, from graph to machine code, on every target. Each is compared with its
// definition in the plain interpreter, and with loops written out here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph/gradient.h"
#include "ops/graph_builder.h"
#include "unit/models.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_close;
using testing::expect_like_reference;
using testing::random_tensor;
using List = std::vector<std::int64_t>;

class Spine : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  Executable compile(const Graph& g) const { return testing::compile_for(g, *GetParam().make()); }
};

float at(const Tensor& t, std::initializer_list<std::int64_t> coords) {
  std::int64_t index = 0;
  std::size_t axis = 0;
  for (const std::int64_t c : coords) index = index * t.dims()[axis++] + c;
  return t.as<float>()[static_cast<std::size_t>(index)];
}

// -- grouped convolution and its gradients -----------------------------------------------------------------------

struct Convolution {
  Dims x, kernel;
  Attrs attrs;
};
std::vector<Convolution> convolutions() {
  const List one = {1, 1}, two = {2, 2}, uneven = {2, 1}, none = {0, 0};
  return {
      {{2, 4, 5, 6},
       {6, 2, 3, 3},
       {{"pad_low", one}, {"pad_high", one}, {"feature_groups", std::int64_t{2}}}},
      {{1, 6, 7, 6},
       {6, 1, 3, 2},
       {{"strides", uneven}, {"pad_low", one}, {"pad_high", none}, {"feature_groups", std::int64_t{6}}}},
      {{2, 3, 8, 7}, {4, 3, 2, 3}, {{"strides", two}, {"kernel_dilation", uneven}, {"pad_high", one}}},
  };
}

// y, and the gradients of sum(y * dy).
Graph with_gradients(const Convolution& c, DType t) {
  Graph g;
  const Value x = g.placeholder("x", t, to_shape(c.x)), w = g.placeholder("w", t, to_shape(c.kernel));
  const Value y = g.op("conv", {x, w}, c.attrs);
  const Value dy = g.placeholder("dy", t, y.shape());
  const Value xs[] = {x, w};
  const std::vector<Value> d = gradients(g, y, dy, xs);
  g.output("y", y);
  g.output("dx", d.at(0));
  g.output("dw", d.at(1));
  return g;
}

TEST_P(Spine, GroupedConvolutionAndItsGradients) {
  for (const Convolution& c : convolutions()) {
    const Graph g = with_gradients(c, DType::F32);
    const Dims dy = static_dims(g.inputs().at(2)->outputs[0].shape);
    expect_like_reference(
        compile(g), g,
        {{"x", random_tensor(c.x, 1)}, {"w", random_tensor(c.kernel, 2)}, {"dy", random_tensor(dy, 3)}});
  }
}

Tensor in_double(const Tensor& x) {
  Tensor result(DType::F64, x.dims());
  for (std::int64_t i = 0; i < x.numel(); ++i) result.set(i, x.at(i));
  return result;
}

// Convolution is linear in each input, so central differences are exact up to rounding, whatever the step.
TEST(SpineGradients, ConvolutionAgainstFiniteDifferences) {
  for (const Convolution& c : convolutions()) {
    const Graph g = with_gradients(c, DType::F64);
    const Dims dy_dims = static_dims(g.inputs().at(2)->outputs[0].shape);
    NamedTensors in = {{"x", in_double(random_tensor(c.x, 1))},
                       {"w", in_double(random_tensor(c.kernel, 2))},
                       {"dy", in_double(random_tensor(dy_dims, 3))}};
    const Executable e = testing::compile_for(g, *testing::interpreter(false));
    const NamedTensors out = e.run(in);
    const auto loss = [&] {
      const Tensor y = e.run(in).at("y");
      double sum = 0;
      for (std::int64_t i = 0; i < y.numel(); ++i) sum += y.at(i) * in.at("dy").at(i);
      return sum;
    };
    for (const auto& [input, gradient] : {std::pair{"x", "dx"}, {"w", "dw"}}) {
      Tensor t = in.at(input);
      Tensor differences(DType::F64, t.dims());
      for (std::int64_t i = 0; i < t.numel(); ++i) {
        const double there = t.at(i);
        t.set(i, there + 1);
        const double above = loss();
        t.set(i, there - 1);
        differences.set(i, (above - loss()) / 2);
        t.set(i, there);
      }
      expect_close(out.at(gradient), differences, 1e-12);
    }
  }
}

// -- attention ---------------------------------------------------------------------------------------------------

struct Attention {
  bool causal, mask;
};

Graph attention_graph(const Attention& a) {
  constexpr int kHeads = 6, kGroups = 2, kSize = 8, kValues = 5;
  const Dim s = Dim::symbol("s"), t = a.causal ? s : Dim::symbol("t");
  Graph g;
  std::vector<Value> in = {g.placeholder("q", DType::F32, {2, kHeads, s, kSize}),
                           g.placeholder("k", DType::F32, {2, kGroups, t, kSize}),
                           g.placeholder("v", DType::F32, {2, kGroups, t, kValues})};
  if (a.mask) in.push_back(g.placeholder("mask", DType::Bool, {2, 1, s, t}));
  g.output("y", g.op("attention", in, {{"causal", a.causal}}));
  return g;
}

Tensor attention_by_hand(const NamedTensors& in, bool causal) {
  const Tensor &q = in.at("q"), &k = in.at("k"), &v = in.at("v");
  const std::int64_t heads = q.dims()[1], groups = k.dims()[1], queries = q.dims()[2], keys = k.dims()[2];
  Tensor y(DType::F32, {q.dims()[0], heads, queries, v.dims()[3]});
  std::int64_t next = 0;
  for (std::int64_t b = 0; b < q.dims()[0]; ++b)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t group = h / (heads / groups);
        std::vector<double> weights;
        for (std::int64_t j = 0; j < keys; ++j) {
          double score = 0;
          for (std::int64_t d = 0; d < q.dims()[3]; ++d)
            score += static_cast<double>(at(q, {b, h, i, d})) * at(k, {b, group, j, d});
          const bool hidden = (causal && j > i) ||
                              (in.contains("mask") && in.at("mask").at((b * queries + i) * keys + j) == 0);
          weights.push_back(hidden ? 0 : std::exp(score / std::sqrt(static_cast<double>(q.dims()[3]))));
        }
        const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
        for (std::int64_t d = 0; d < v.dims()[3]; ++d) {
          double total = 0;
          for (std::int64_t j = 0; j < keys; ++j)
            total += weights[static_cast<std::size_t>(j)] * at(v, {b, group, j, d});
          y.set(next++, sum == 0 ? 0 : total / sum);
        }
      }
  return y;
}

TEST_P(Spine, AttentionAtADynamicLength) {
  for (const Attention& a : {Attention{false, false}, {true, false}, {false, true}, {true, true}}) {
    const Graph g = attention_graph(a);
    const Executable e = compile(g);
    for (const auto& [queries, other] : {std::pair{1, 1}, {5, 9}, {17, 33}, {40, 3}}) {
      const std::int64_t keys = a.causal ? queries : other;
      NamedTensors in = {{"q", random_tensor({2, 6, queries, 8}, 1)},
                         {"k", random_tensor({2, 2, keys, 8}, 2)},
                         {"v", random_tensor({2, 2, keys, 5}, 3)}};
      if (a.mask) {
        Tensor mask(DType::Bool, {2, 1, queries, keys});
        for (std::int64_t i = 0; i < mask.numel(); ++i) mask.set(i, i % 3 != 1);
        in["mask"] = mask;
      }
      expect_like_reference(e, g, in);
      expect_close(e.run(in).at("y"), attention_by_hand(in, a.causal));
    }
  }
}

// -- sorting, data-dependent sizes ---------------------------------------------------------------------------------

TEST_P(Spine, TopK) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3, Dim::symbol("n"), 2});
  const std::vector<Value> best = g.ops("topk", {x}, {{"k", Shape{4}}, {"axis", std::int64_t{1}}});
  g.output("values", g.op("exp", {best[0]}));
  g.output("indices", best[1]);
  const Executable e = compile(g);
  for (const std::int64_t n : {4, 11, 64}) {
    Tensor in = random_tensor({3, n, 2}, 5);
    for (float& v : in.as<float>()) v = std::round(v * 8) / 8;  // ties
    const NamedTensors inputs = {{"x", in}};
    expect_like_reference(e, g, inputs);
    const NamedTensors got = e.run(inputs);
    for (std::int64_t row = 0; row < 3; ++row)
      for (std::int64_t column = 0; column < 2; ++column) {
        std::vector<std::int64_t> order(static_cast<std::size_t>(n));
        std::iota(order.begin(), order.end(), 0);
        std::ranges::sort(order, [&](std::int64_t i, std::int64_t j) {
          const float a = at(in, {row, i, column}), b = at(in, {row, j, column});
          return a > b || (a == b && i < j);
        });
        for (std::int64_t k = 0; k < 4; ++k)
          EXPECT_EQ(got.at("indices").at((row * 4 + k) * 2 + column), order[static_cast<std::size_t>(k)]);
      }
  }
}

TEST_P(Spine, NonZeroFeedsFurtherOps) {
  Graph g;
  GraphBuilder b(g);
  const Dim n = Dim::symbol("n");
  const Value x = g.placeholder("x", DType::F32, {n, 5}), w = g.placeholder("w", DType::F32, {2, 3});
  const Value found = g.op("nonzero", {b.op("relu", {b.sub(x, 0.25)})}, {{"symbol", std::string("count")}});
  // The rows that they stand in, through a product and a sum over the unknown count.
  const Value coords = b.cast(b.transpose(found, {1, 0}), DType::F32);
  g.output("coords", found);
  g.output("y", b.op("softmax", {b.matmul(coords, w)}, {{"axis", std::int64_t{-1}}}));
  g.output("total", b.sum(coords, {0}, false));
  const Executable e = compile(g);
  for (const std::int64_t rows : {1, 7, 30, 0}) {
    const Tensor in = random_tensor({rows, 5}, 11);
    const NamedTensors inputs = {{"x", in}, {"w", random_tensor({2, 3}, 12)}};
    expect_like_reference(e, g, inputs);
    std::vector<std::int64_t> want[2];
    for (std::int64_t i = 0; i < in.numel(); ++i)
      if (in.at(i) > 0.25) {
        want[0].push_back(i / 5);
        want[1].push_back(i % 5);
      }
    want[0].insert(want[0].end(), want[1].begin(), want[1].end());
    EXPECT_EQ(e.run(inputs).at("coords").to_int64(), want[0]);
  }
  const NamedTensors none =
      e.run({{"x", Tensor::zeros(DType::F32, {4, 5})}, {"w", random_tensor({2, 3}, 12)}});
  EXPECT_EQ(none.at("y").dims(), (Dims{0, 3}));
  EXPECT_EQ(none.at("total").at(0), 0);
}

// -- a loop --------------------------------------------------------------------------------------------------------

TEST_P(Spine, LstmInALoop) {
  const testing::Model m = testing::lstm(1);
  const Executable e = compile(m.graph);
  for (const std::int64_t steps : {1, 4, 9, 0}) {
    const NamedTensors inputs = testing::lstm(steps).inputs;
    expect_like_reference(e, m.graph, inputs);
    const NamedTensors out = e.run(inputs);
    if (steps == 0) continue;
    const Tensor y = out.at("y"), h = out.at("h");
    for (std::int64_t i = 0; i < h.numel(); ++i) EXPECT_EQ(h.at(i), y.at((steps - 1) * h.numel() + i));
  }
}

// -- all of it together ----------------------------------------------------------------------------------------------

TEST_P(Spine, SmallCnn) {
  const testing::Model m = testing::small_cnn();
  expect_like_reference(compile(m.graph), m.graph, m.inputs);
}

TEST_P(Spine, TransformerBlock) {
  const testing::Model m = testing::transformer_block();
  expect_like_reference(compile(m.graph), m.graph, m.inputs);
}

INSTANTIATE_TEST_SUITE_P(Targets, Spine, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
