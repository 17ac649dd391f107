// Sums of many elements: their rounding error must not grow as it does when one accumulator takes them all in turn.
#include <gtest/gtest.h>

#include "unit/support.h"

namespace deepseek {
namespace {

class LongSum : public ::testing::TestWithParam<testing::NamedTarget> {};

// Over the first two of three dims, against a sum in double. All terms are positive.
void expect_exact(Target& target, const Shape& shape, const Dims& dims, const char* op) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, shape);
  g.output("y", g.op(op, {g.op("mul", {x, x})}, {{"axes", std::vector<std::int64_t>{0, 1}}}));
  const Executable e = testing::compile_for(g, target);
  const Tensor in = testing::random_tensor(dims, 1);
  const std::int64_t columns = dims[2], rows = in.numel() / columns;
  Tensor want(DType::F32, {columns});
  for (std::int64_t c = 0; c < columns; ++c) {
    double sum = 0;
    for (std::int64_t r = 0; r < rows; ++r) sum += in.at(r * columns + c) * in.at(r * columns + c);
    want.set(c, op == std::string("mean") ? sum / static_cast<double>(rows) : sum);
  }
  testing::expect_close(e.run({{"x", in}}).at("y"), want, 4e-7);
}

TEST_P(LongSum, OfKnownLength) {
  const auto target = GetParam().make();
  for (const Dims& dims :
       {Dims{2, 25000, 3}, Dims{1, 24989, 17}, Dims{300, 90, 2}, Dims{40000, 1, 1}, Dims{513, 3, 1}})
    expect_exact(*target, {dims[0], dims[1], dims[2]}, dims, "mean");
}

TEST_P(LongSum, OfUnknownLength) {
  const auto target = GetParam().make();
  const Shape shape = {Dim::symbol("n"), Dim::symbol("m"), 2};
  for (const Dims& dims : {Dims{2, 25000, 2}, Dims{25013, 1, 2}, Dims{3, 5, 2}})
    expect_exact(*target, shape, dims, "sum");
}

INSTANTIATE_TEST_SUITE_P(Targets, LongSum, ::testing::ValuesIn(testing::every_target()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
