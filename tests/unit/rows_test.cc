// Rows too many for the second cache, which are computed in pieces with the next row's lines asked for, against the
// definition. (The conformance suite has the small ones.)
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

class Rows : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(Rows, FromMemoryAreTheDefinition) {
  const auto target = GetParam().make();
  constexpr std::int64_t kColumns = 512;
  const std::int64_t rows = 2 * target->info().l2_bytes / 4 / kColumns + 3;
  const Dims dims = {1, rows, kColumns};
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {1, rows, kColumns});
  g.output("y", g.op("softmax", {x}));
  g.output("z", g.op("layer_norm", {x, g.constant(testing::random_tensor({kColumns}, 1)),
                                    g.constant(testing::random_tensor({kColumns}, 2))}));
  const NamedTensors inputs = {{"x", testing::random_tensor(dims, 3)}};
  testing::expect_like_reference(testing::compile_for(g, *target), g, inputs);
}

// What stages keep is a result as well, beside one number per row; rows of one more task than there are whole ones.
TEST_P(Rows, FromMemoryWithFurtherResultsAreTheDefinition) {
  const auto target = GetParam().make();
  constexpr std::int64_t kColumns = 256;
  const std::int64_t rows = 2 * target->info().l2_bytes / 4 / kColumns + 17;
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {rows, kColumns});
  const Attrs along = {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", true}};
  const Value top = g.op("max", {x}, along), e = g.op("exp", {g.op("sub", {x, top})}),
              sum = g.op("sum", {e}, along);
  g.output("top", top);
  g.output("e", e);
  g.output("sum", sum);
  g.output("share", g.op("div", {e, sum}));
  const NamedTensors inputs = {{"x", testing::random_tensor({rows, kColumns}, 4)}};
  testing::expect_like_reference(testing::compile_for(g, *target), g, inputs);
}

INSTANTIATE_TEST_SUITE_P(Targets, Rows, ::testing::ValuesIn(testing::every_target()), testing::target_name);

}  // namespace
}  // namespace deepseek
