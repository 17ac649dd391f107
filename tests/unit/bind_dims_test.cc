// Graphs for sizes that are known.
#include "deepseek/bind_dims.h"

#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

const Dim n = Dim::symbol("n"), m = Dim::symbol("m");

TEST(BindDims, TypesAndAttributesAreThoseOfTheValues) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {n, m, 4});
  const Value y = g.op("reshape", {x}, {{"shape", Shape{n * m, 4}}});
  g.output("y", g.op("reshape", {y}, {{"shape", Shape{floordiv(n * m, Dim(2)), 8}}}));
  const Graph one = bind_dims(g, {{"n", 6}}), both = bind_dims(g, {{"n", 6}, {"m", 5}});
  EXPECT_EQ(str(one.outputs()[0].value.shape()), str(Shape{m * 3, 8}));
  EXPECT_EQ(str(both.outputs()[0].value.shape()), "[15, 8]");
  EXPECT_EQ(str(g.inputs()[0]->outputs[0].shape), "[n, m, 4]");  // untouched
  one.verify();
  both.verify();
  EXPECT_EQ(bind_dims(g, {}).str(), g.str());
}

TEST(BindDims, SubgraphsHaveSymbolsOfTheirOwn) {
  const auto branch = [](const char* op) {
    Graph g;
    g.output("b", g.op(op, {g.placeholder("a", DType::F32, {n, 4})}));
    return std::make_shared<const Graph>(std::move(g));
  };
  Graph g;
  const Value c = g.placeholder("c", DType::Bool, {}), x = g.placeholder("x", DType::F32, {n, 4});
  g.output("y", g.op("if", {c, x}, {{"then", branch("relu")}, {"otherwise", branch("neg")}}));
  EXPECT_THROW(bind_dims(g, {{"n", 3}}), Error);
  EXPECT_EQ(bind_dims(g, {}).nodes().size(), g.nodes().size());
}

TEST(BindDims, ConstantsShareTheirMemory) {
  Graph g;
  const Value w = g.constant(random_tensor({4, 4}, 1));
  g.output("y", g.op("matmul", {g.placeholder("x", DType::F32, {n, 4}), w}));
  const Graph bound = bind_dims(g, {{"n", 2}});
  for (const auto& node : bound.nodes())
    if (node->is_constant()) EXPECT_EQ(node->data.data(), w.node->data.data());
}

}  // namespace
}  // namespace deepseek
