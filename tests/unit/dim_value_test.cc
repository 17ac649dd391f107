// Dims as numbers in kernels: each kind of expression over symbols, compared with Dim::eval.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

class DimValues : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(DimValues, AreThoseOfTheSymbols) {
  const Dim p = Dim::symbol("p"), q = Dim::symbol("q"), s = Dim::symbol("s");
  const std::vector<Dim> dims = {p * q - s,
                                 floordiv(p * 7, q),
                                 mod(p * 7, s),
                                 min(p, min(q, s)),
                                 max(p, max(q, s)),
                                 min(p, max(q, s)),
                                 min(min(p * 2, q + 1), min(s, p + q))};
  Graph g;
  g.placeholder("x", DType::F32, {p, q, s});
  for (std::size_t i = 0; i < dims.size(); ++i)
    g.output("y" + std::to_string(i),
             g.op("dim_value", {}, {{"dim", Shape{dims[i]}}, {"dtype", DType::I64}}));
  const Executable e = testing::compile_for(g, *GetParam().make());
  for (const auto& sizes :
       std::vector<std::vector<std::int64_t>>{{3, 4, 2}, {4, 2, 3}, {2, 3, 4}, {5, 5, 1}}) {
    const NamedTensors y = e.run({{"x", random_tensor(sizes, 1)}});
    const DimEnv env = {{"p", sizes[0]}, {"q", sizes[1]}, {"s", sizes[2]}};
    for (std::size_t i = 0; i < dims.size(); ++i)
      EXPECT_EQ(y.at("y" + std::to_string(i)).at(0), static_cast<double>(dims[i].eval(env))) << dims[i].str();
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, DimValues, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
