// Sums over leading axes in parts, against the definition: rows that no part divides, few columns and many, what is
// elementwise before and after, and shapes that stay with the definition.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::compile_for;
using testing::expect_like_reference;
using testing::random_tensor;

using List = std::vector<std::int64_t>;

struct Case {
  Dims shape;
  List axes;
  bool in_parts;
};
const Case kCases[] = {
    {{4, 24, 24, 32}, {0, 1, 2}, true},
    {{1031, 16}, {0}, true},
    {{3, 211, 37}, {0, 1}, true},
    {{70, 1, 9, 31}, {0}, true},
    {{97, 1000}, {0}, true},
    {{20000, 8}, {0}, true},
    {{1, 64, 5, 64}, {1}, true},
    {{4, 32, 24, 24}, {0, 2, 3}, false},
    {{20000, 7}, {0}, false},
    {{63, 1000}, {0}, false},
    {{64, 17}, {0}, false},
};

class Columns : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(Columns, AreTheDefinition) {
  const auto target = GetParam().make();
  for (const char* op : {"sum", "mean"})
    for (const Case& c : kCases) {
      Graph g;
      const Value x = g.placeholder("x", DType::F32, Shape(c.shape.begin(), c.shape.end()));
      g.output("y", g.op(op, {x}, {{"axes", c.axes}, {"keepdims", false}}));
      const Executable e = compile_for(g, *target);
      SCOPED_TRACE(e.explain());
      if (!target->info().gpu_mapped) EXPECT_EQ(e.explain().find("columns") != std::string::npos, c.in_parts);
      expect_like_reference(e, g, {{"x", random_tensor(c.shape, 1)}});
    }
}

TEST_P(Columns, WithWhatIsElementwise) {
  const auto target = GetParam().make();
  const Dims dims = {3, 15, 14, 40}, row = {1, 1, 1, 40};
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3, 15, 14, 40}),
              y = g.placeholder("y", DType::F32, {3, 15, 14, 40}),
              m = g.placeholder("m", DType::F32, {1, 1, 1, 40});
  const Value product = g.op("mul", {g.op("relu", {x}), g.op("sub", {y, m})});
  const Value sum = g.op("sum", {product}, {{"axes", List{0, 1, 2}}, {"keepdims", true}});
  g.output("z", g.op("mul", {g.op("add", {sum, m}), sum}));
  expect_like_reference(
      compile_for(g, *target), g,
      {{"x", random_tensor(dims, 1)}, {"y", random_tensor(dims, 2)}, {"m", random_tensor(row, 3)}});
}

TEST_P(Columns, OfNothing) {
  const auto target = GetParam().make();
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim::symbol("N"), 16, 64});
  g.output("y", g.op("sum", {x}, {{"axes", List{0, 1}}, {"keepdims", false}}));
  const Executable e = compile_for(g, *target);
  for (const std::int64_t count : {0, 1, 33})
    expect_like_reference(e, g, {{"x", random_tensor({count, 16, 64}, 1)}});
}

INSTANTIATE_TEST_SUITE_P(Targets, Columns, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
