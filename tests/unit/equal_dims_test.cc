// Dims that a graph takes to be equal although their symbols differ are checked when they are bound.
#include <gtest/gtest.h>

#include "deepseek/error.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;

const Dim n = Dim::symbol("n"), m = Dim::symbol("m");

// Runs on x [5, 4] and w [size, 4].
void run(const std::string& op, std::int64_t size) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {n, 4}), w = g.placeholder("w", DType::F32, {m, 4});
  const std::vector<std::int64_t> swapped = {1, 0};
  if (op == "matmul")
    g.output("y", g.op(op, {g.op("transpose", {x}, {{"perm", swapped}}), w}));
  else if (op == "concat")
    g.output("y", g.op(op, {x, w}, {{"axis", std::int64_t{1}}}));
  else if (op == "reshape")
    g.output("y", g.op("add",
                       {g.op(op, {x}, {{"shape", Shape{m * 4}}}), g.op(op, {w}, {{"shape", Shape{m * 4}}})}));
  else
    g.output("y", g.op(op, {x, w}));
  const auto target = testing::interpreter(false);
  testing::compile_for(g, *target).run({{"x", random_tensor({5, 4}, 1)}, {"w", random_tensor({size, 4}, 2)}});
}

class EqualDims : public ::testing::TestWithParam<const char*> {};

TEST_P(EqualDims, AreCheckedWhenBound) {
  EXPECT_NO_THROW(run(GetParam(), 5));
  for (const std::int64_t size : {3, 7, 1}) {
    try {
      run(GetParam(), size);
      ADD_FAILURE() << "no error for 5 and " << size;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::InvalidArgument) << e.what();
      EXPECT_NE(e.expected().find("equal"), std::string::npos) << e.what();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, EqualDims, ::testing::Values("add", "matmul", "concat", "reshape"),
                         [](const auto& info) { return std::string(info.param); });

// A dim that is a number is one, whatever its partner is called.
TEST(EqualDimsWithNumbers, AreCheckedWhenBound) {
  Graph g;
  g.output("y", g.op("mul", {g.placeholder("x", DType::F32, {n}), g.placeholder("w", DType::F32, {8})}));
  const Executable e = testing::compile_for(g, *testing::interpreter(false));
  EXPECT_EQ(e.run({{"x", random_tensor({8}, 1)}, {"w", random_tensor({8}, 2)}}).at("y").numel(), 8);
  EXPECT_THROW(e.run({{"x", random_tensor({5}, 1)}, {"w", random_tensor({8}, 2)}}), Error);
}

}  // namespace
}  // namespace deepseek
