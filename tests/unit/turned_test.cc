// Groups that read an operand across its memory, against the definition: sides that no square divides, other operands
// beside it, several axes around, dtypes of four bytes and others.
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
  List perm;
  bool turns;
};
const Case kCases[] = {
    {{64, 64}, {1, 0}, true},
    {{37, 53}, {1, 0}, true},
    {{16, 200}, {1, 0}, true},
    {{200, 17}, {1, 0}, true},
    {{3, 21, 130}, {0, 2, 1}, true},
    {{5, 7, 3, 66}, {3, 0, 1, 2}, true},
    {{2, 9, 5, 33}, {0, 3, 1, 2}, true},
    {{65, 3, 31}, {2, 1, 0}, true},
    {{4, 2, 2, 40}, {0, 3, 1, 2}, false},
    {{1, 300}, {1, 0}, false},
    {{6, 40}, {1, 0}, false},
    {{3, 16, 16, 5}, {1, 0, 2, 3}, false},
};

class Turns : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(Turns, IsTheDefinition) {
  const auto target = GetParam().make();
  const bool able = !target->info().gpu_mapped && target->info().vector_bytes == 64;
  for (const Case& c : kCases) {
    Graph g;
    const Value x = g.placeholder("x", DType::F32, Shape(c.shape.begin(), c.shape.end()));
    g.output("y", g.op("transpose", {x}, {{"perm", c.perm}}));
    const Executable e = compile_for(g, *target);
    SCOPED_TRACE(e.explain());
    if (able) EXPECT_EQ(e.explain().find("turned") != std::string::npos, c.turns);
    expect_like_reference(e, g, {{"x", random_tensor(c.shape, 1)}}, 0);
  }
}

TEST_P(Turns, WithWhatIsElementwise) {
  const auto target = GetParam().make();
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3, 40, 70}),
              z = g.placeholder("z", DType::F32, {3, 70, 40}), b = g.placeholder("b", DType::F32, {40});
  const Value turned = g.op("transpose", {x}, {{"perm", List{0, 2, 1}}});
  const Value sum = g.op("add", {g.op("mul", {turned, z}), b});
  g.output("y", g.op("add", {g.op("relu", {sum}), turned}));
  expect_like_reference(compile_for(g, *target), g,
                        {{"x", random_tensor({3, 40, 70}, 1)},
                         {"z", random_tensor({3, 70, 40}, 2)},
                         {"b", random_tensor({40}, 3)}});
}

TEST_P(Turns, TwoOperandsThatLieAcross) {
  const auto target = GetParam().make();
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {40, 70}), z = g.placeholder("z", DType::F32, {40, 70});
  const List perm = {1, 0};
  g.output("y",
           g.op("sub", {g.op("transpose", {x}, {{"perm", perm}}), g.op("transpose", {z}, {{"perm", perm}})}));
  expect_like_reference(compile_for(g, *target), g,
                        {{"x", random_tensor({40, 70}, 1)}, {"z", random_tensor({40, 70}, 2)}}, 0);
}

TEST_P(Turns, OtherTypesAndOpenDims) {
  const auto target = GetParam().make();
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim::symbol("N"), 33, 48});
  const Value turned = g.op("transpose", {x}, {{"perm", List{0, 2, 1}}});
  g.output("i", g.op("cast", {turned}, {{"dtype", DType::I64}}));
  g.output("b", g.op("less", {g.op("transpose", {x}, {{"perm", List{0, 2, 1}}}),
                              g.placeholder("z", DType::F32, {33})}));
  g.output("wide",
           g.op("transpose", {g.op("cast", {x}, {{"dtype", DType::F64}})}, {{"perm", List{0, 2, 1}}}));
  const Executable e = compile_for(g, *target);
  for (const std::int64_t batch : {1, 3})
    expect_like_reference(e, g, {{"x", random_tensor({batch, 33, 48}, 1)}, {"z", random_tensor({33}, 2)}}, 0);
}

INSTANTIATE_TEST_SUITE_P(Targets, Turns, ::testing::ValuesIn(testing::every_target()), testing::target_name);

}  // namespace
}  // namespace deepseek
