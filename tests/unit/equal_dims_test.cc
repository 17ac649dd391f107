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

// One dim that must not be above another, by an op on x [n, 6] and w [m].
struct Bounded {
  const char* name;
  const char* text;
};
void PrintTo(const Bounded& b, std::ostream* out) { *out << b.name; }

class BoundedDims : public ::testing::TestWithParam<Bounded> {};

TEST_P(BoundedDims, AreCheckedWhenBound) {
  const Graph g =
      Graph::parse(std::string("graph {\n%x = placeholder float32[n, 6]\n%w = placeholder float32[m]\n") +
                   GetParam().text + "\n%used = neg(%w)\noutput y = %y\noutput used = %used\n}");
  EXPECT_EQ(Graph::parse(g.str()).str(), g.str());
  const Executable e = testing::compile_for(g, *testing::interpreter(false));
  const auto run = [&](std::int64_t size) {
    e.run({{"x", random_tensor({5, 6}, 1)}, {"w", random_tensor({size}, 2)}});
  };
  EXPECT_NO_THROW(run(3));
  try {
    run(7);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::InvalidArgument) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ops, BoundedDims,
    ::testing::Values(
        Bounded{"Slice", "%y = slice(%x, starts=[0, 0], limits=[m, 6], steps=[1, 1])"},
        Bounded{"SliceDown", "%y = slice(%x, starts=[m-1, 0], limits=[-1, 6], steps=[-1, 1])"},
        Bounded{"TopK", "%y = topk(%x, k=[m], axis=0)"},
        Bounded{"DynamicSlice", "%at = constant int64[2] {0, 0}\n%y = dynamic_slice(%x, %at, sizes=[m, 6])"},
        Bounded{"GatherElements",
                "%i = full(shape=[m, 6], value=0, dtype=int64)\n%y = gather_elements(%x, %i, axis=1)"},
        Bounded{"ScatterElements",
                "%i = full(shape=[m, 6], value=0, dtype=int64)\n%u = full(shape=[m, 6], value=1)\n"
                "%y = scatter_elements(%x, %i, %u, axis=1)"},
        Bounded{"ReflectedPad",
                "%a = slice(%x, starts=[0, 0], limits=[max(0, 6-m), 6], steps=[1, 1])\n"
                "%y = pad(%a, low=[1, 0], high=[0, 0], mode=\"reflect\")"},
        Bounded{"ConvGroups",
                "%i = full(shape=[1, 3, 4], value=1)\n%k = full(shape=[m, 1, 2], value=1)\n"
                "%y = conv(%i, %k, feature_groups=3)"}),
    [](const auto& info) { return std::string(info.param.name); });

// What no graph can mean, whatever is bound.
TEST(ImpossibleSizes, AreRefused) {
  for (const char* text : {
           "%y = placeholder float32[-3]",
           "%y = placeholder float32[4611686018427387904, 4]",
           "%x = placeholder float32[4]\n%y = slice(%x, starts=[3], limits=[-1], "
           "steps=[-9223372036854775808])",
           "%x = placeholder float32[4]\n%y = pad(%x, low=[0], high=[0], inner=[9223372036854775807])",
           "%x = placeholder float32[4]\n%y = tile(%x, repeats=[-1])",
           "%x = placeholder float32[1, 1, 4]\n%y = max_pool(%x, window=[1], pad_low=[9223372036854775807], "
           "pad_high=[1])",
           "%x = placeholder float32[1, 1, 4]\n%y = adaptive_avg_pool(%x, size=[-2])",
           "%x = placeholder float32[4]\n%c = placeholder float32[9223372036854775807]\n%y = rope(%x, %c, "
           "%c)",
           "%x = placeholder float32[4]\n%i = placeholder int64[1, 9223372036854775807]\n"
           "%y = gather_nd(%x, %i, batch_dims=1)",
           "%c = placeholder bool[]\n%y = if(%c, then=none, otherwise=none)",
       }) {
    try {
      Graph::parse(std::string("graph {\n") + text + "\n}");
      ADD_FAILURE() << "no error for " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::InvalidArgument) << e.what();
    }
  }
}

TEST(ComplexNumbers, AreNoKernels) {
  const Graph g = Graph::parse("graph {\n%x = placeholder complex64[3]\n%y = pad(%x, low=[1], high=[0])\n}");
  try {
    testing::compile_for(g, *testing::interpreter(false));
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::Unsupported) << e.what();
  }
}

}  // namespace
}  // namespace deepseek
