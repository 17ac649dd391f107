// Attention as one kernel against the definition: which groups are joined, and what they give.
#include <gtest/gtest.h>

#include "ops/graph_builder.h"
#include "targets/registry.h"
#include "unit/support.h"

namespace deepseek {
namespace {

struct Sizes {
  std::int64_t batch, heads, shared, queries, keys, head, value;  // `shared`: heads of keys and values
};

Graph attention_of(const Sizes& s, const Shape& extra, Attrs attrs, bool dynamic) {
  Graph g;
  const Dim queries = dynamic ? Dim::symbol("S") : Dim(s.queries),
            keys = dynamic ? Dim::symbol("T") : Dim(s.keys);
  std::vector<Value> inputs = {g.placeholder("q", DType::F32, {s.batch, s.heads, queries, s.head}),
                               g.placeholder("k", DType::F32, {s.batch, s.shared, keys, s.head}),
                               g.placeholder("v", DType::F32, {s.batch, s.shared, keys, s.value})};
  if (!extra.empty()) inputs.push_back(g.placeholder("mask", DType::F32, extra));
  g.output("y", g.op("attention", inputs, std::move(attrs)));
  return g;
}

NamedTensors inputs_of(const Sizes& s, const Dims& mask = {}) {
  NamedTensors inputs = {{"q", testing::random_tensor({s.batch, s.heads, s.queries, s.head}, 1)},
                         {"k", testing::random_tensor({s.batch, s.shared, s.keys, s.head}, 2)},
                         {"v", testing::random_tensor({s.batch, s.shared, s.keys, s.value}, 3)}};
  if (!mask.empty()) inputs.insert({"mask", testing::random_tensor(mask, 4)});
  return inputs;
}

bool is_joined(const Executable& e) { return e.explain().find(": attention") != std::string::npos; }

class Attention : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  std::shared_ptr<Target> target = GetParam().make();

  // Joined where the target's registers multiply tiles. A row of one element is no row.
  void expect_right(const Graph& g, const NamedTensors& inputs) const {
    const Executable e = testing::compile_for(g, *target);
    const bool rows = !(g.inputs()[1]->outputs[0].shape.end()[-2] == Dim(1));
    if (target->info().name == "cpu") EXPECT_EQ(is_joined(e), rows) << e.explain();
    testing::expect_like_reference(e, g, inputs);
  }
};

constexpr Sizes kSizes[] = {
    {1, 1, 1, 1, 1, 1, 1},       {2, 3, 3, 17, 17, 8, 8},   {1, 2, 2, 1, 40, 16, 24},
    {1, 4, 2, 29, 13, 5, 70},    {2, 6, 1, 7, 65, 33, 1},   {1, 1, 1, 40, 131, 64, 96},
    {1, 12, 12, 20, 20, 64, 64}, {1, 1, 1, 3, 600, 16, 16}, {3, 1, 1, 14, 32, 256, 256}};

TEST_P(Attention, IsTheDefinition) {
  for (const Sizes& s : kSizes) {
    SCOPED_TRACE(s.queries * 1000 + s.keys);
    expect_right(attention_of(s, {}, {}, false), inputs_of(s));
  }
}

TEST_P(Attention, Causal) {
  for (const Sizes& s : kSizes) {
    if (s.keys < s.queries) continue;
    SCOPED_TRACE(s.queries * 1000 + s.keys);
    const Attrs attrs = {{"causal", true}, {"causal_offset", Shape{s.keys - s.queries}}};
    expect_right(attention_of(s, {}, attrs, false), inputs_of(s));
  }
}

TEST_P(Attention, WithAMask) {
  const Sizes s = kSizes[3];
  expect_right(attention_of(s, {s.batch, 1, s.queries, s.keys}, {{"scale", 0.3}}, false),
               inputs_of(s, {s.batch, 1, s.queries, s.keys}));
}

TEST_P(Attention, LengthsComeWithTheRun) {
  const Graph g = attention_of({2, 3, 3, 0, 0, 8, 20}, {}, {}, true);
  for (const auto& [queries, keys] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 33}, {29, 64}, {64, 7}})
    expect_right(g, inputs_of({2, 3, 3, queries, keys, 8, 20}));
}

// A few queries read keys and values where they lie, of any length.
TEST_P(Attention, OfOneQuery) {
  Graph g;
  const Dim keys = Dim::symbol("T");
  const Value q = g.placeholder("q", DType::F32, {2, 3, 1, 20}),
              k = g.placeholder("k", DType::F32, {2, 3, keys, 20}),
              v = g.placeholder("v", DType::F32, {2, 3, keys, 37});
  g.output("y", g.op("attention", {q, k, v}));
  for (const std::int64_t length : {1, 15, 16, 50}) expect_right(g, inputs_of({2, 3, 3, 1, length, 20, 37}));
}

TEST_P(Attention, KeysThatLieTurned) {
  for (const std::int64_t queries : {1, 5, 40}) {
    Graph g;
    GraphBuilder b(g);
    const Value q = g.placeholder("q", DType::F32, {2, queries, 24}),
                k = g.placeholder("k", DType::F32, {2, 24, 45}),
                v = g.placeholder("v", DType::F32, {2, 45, 30});
    g.output("y", b.matmul(g.op("softmax", {b.matmul(q, k)}), v));
    const NamedTensors inputs = {{"q", testing::random_tensor({2, queries, 24}, 1)},
                                 {"k", testing::random_tensor({2, 24, 45}, 2)},
                                 {"v", testing::random_tensor({2, 45, 30}, 3)}};
    expect_right(g, inputs);
  }
}

TEST_P(Attention, RowsInMorePrecision) {
  Graph g;
  GraphBuilder b(g);
  const Value q = g.placeholder("q", DType::F32, {2, 5, 24}), k = g.placeholder("k", DType::F32, {2, 24, 45}),
              v = g.placeholder("v", DType::F32, {2, 45, 30});
  const Value weights = g.op("softmax", {b.cast(b.matmul(q, k), DType::F64)});
  g.output("y", b.matmul(b.cast(weights, DType::F32), v));
  const NamedTensors inputs = {{"q", testing::random_tensor({2, 5, 24}, 1)},
                               {"k", testing::random_tensor({2, 24, 45}, 2)},
                               {"v", testing::random_tensor({2, 45, 30}, 3)}};
  testing::expect_like_reference(testing::compile_for(g, *target), g, inputs);
}

INSTANTIATE_TEST_SUITE_P(Targets, Attention, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

// What is no attention stays apart, and right.
class NoAttention : public ::testing::Test {
 protected:
  Graph g;
  GraphBuilder b{g};
  Value q = g.placeholder("q", DType::F32, {2, 9, 8}), k = g.placeholder("k", DType::F32, {2, 9, 8}),
        v = g.placeholder("v", DType::F32, {2, 9, 9});
  Value scores = b.matmul(q, b.swap_last_two(k));

  void expect_apart() const {
    const Executable e = testing::compile_for(g, *find_target("cpu", ""));
    EXPECT_FALSE(is_joined(e)) << e.explain();
    testing::expect_like_reference(e, g,
                                   {{"q", testing::random_tensor({2, 9, 8}, 1)},
                                    {"k", testing::random_tensor({2, 9, 8}, 2)},
                                    {"v", testing::random_tensor({2, 9, 9}, 3)}});
  }
};

TEST_F(NoAttention, WhereScoresAreAResult) {
  g.output("scores", scores);
  g.output("y", b.matmul(g.op("softmax", {scores}), v));
  expect_apart();
}

TEST_F(NoAttention, WhereWeightsAreAResult) {
  const Value weights = g.op("softmax", {scores});
  g.output("y", b.matmul(weights, v));
  g.output("weights", weights);
  expect_apart();
}

TEST_F(NoAttention, WhereWeightsAreTurned) {
  g.output("y", b.matmul(b.swap_last_two(g.op("softmax", {scores})), v));
  expect_apart();
}

TEST_F(NoAttention, WhereWeightsAreTheRightOperand) {
  g.output("y", b.matmul(v, g.op("softmax", {scores})));
  expect_apart();
}

TEST_F(NoAttention, WhereScoresAreTurned) {
  g.output("y", b.matmul(g.op("softmax", {b.swap_last_two(scores)}), v));
  expect_apart();
}

TEST_F(NoAttention, WhereWeightsAreReadTwice) {
  const Value weights = g.op("softmax", {scores});
  g.output("y", b.add(b.matmul(weights, v), weights));
  expect_apart();
}

TEST_F(NoAttention, WhereWhatIsMultipliedIsKnown) {
  const Value w = g.constant(testing::random_tensor({9, 9}, 5));
  g.output("y", b.matmul(g.op("softmax", {scores}), w));
  expect_apart();
}

TEST_F(NoAttention, WhereAnotherRowsSumIsRead) {
  const Value e = b.exp(scores), sum = b.reduce("sum", e, {-1}, true);
  g.output("y", b.div(b.matmul(e, v), b.swap_last_two(sum)));
  expect_apart();
}

}  // namespace
}  // namespace deepseek
