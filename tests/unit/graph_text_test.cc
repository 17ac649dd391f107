// The text form of graphs: what is printed parses back to the same text, and what is wrong is named by place.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "deepseek/graph.h"

namespace deepseek {
namespace {

std::string around(std::string_view text) { return Graph::parse(text).str(); }

Error error_of(std::string_view text) {
  try {
    Graph::parse(text);
  } catch (const Error& e) {
    return e;
  }
  return {Code::Ok, "", "", "", "nothing thrown"};
}

TEST(GraphText, PrintsWhatItParses) {
  const std::string text = R"(graph {
  %x = placeholder float32[N, 4] at "model.py:1"
  %w = placeholder parameter float32[4, 8]
  %k = placeholder fixed int64[]
  %c = constant float32[3] {1, -2.5, 1e-30}
  %many = constant bfloat16[64, 64] splat 0.5
  %"odd name %" = relu(%x) : float32[N, 4] at "a \"b\" \\ \x0a"
  %y = matmul(%"odd name %", %w) : float32[N, 8] at "model.py:12"
  equal N, 2*M
  equal N, K+1, add at "model.py:7"
  output "first result" = %y
  output relu = %"odd name %"
})";
  EXPECT_EQ(around(text), text);
}

TEST(GraphText, ConstantsKeepTheirBits) {
  for (const DType t : {DType::F32, DType::F64, DType::F16, DType::BF16, DType::F8E4M3, DType::I8, DType::I64,
                        DType::U64, DType::Bool, DType::I4, DType::C64}) {
    for (const std::int64_t count : {0, 1, 3, 16, 17, 40}) {
      Tensor data = Tensor::zeros(t, {count});
      // Small patterns: every dtype has them (0 and 1 for bool), and they differ from byte to byte.
      std::uint8_t pattern = 0;
      for (auto& byte : data.as<std::uint8_t>())
        byte = t == DType::Bool ? pattern++ % 2 : static_cast<std::uint8_t>(37 * ++pattern);
      Graph g;
      g.output("y", g.constant(data, "c"));
      const Graph back = Graph::parse(g.str());
      const Tensor& again = back.nodes()[0]->data;
      ASSERT_EQ(again.dims(), data.dims()) << g.str();
      ASSERT_EQ(again.dtype(), t);
      // Unused bits of the last byte carry nothing.
      const std::size_t whole = static_cast<std::size_t>(bits(t) * count / 8);
      EXPECT_TRUE(whole == 0 || std::memcmp(again.data(), data.data(), whole) == 0) << g.str();
      if (t == DType::I4)
        for (std::int64_t i = 0; i < count; ++i) EXPECT_EQ(again.at(i), data.at(i));
    }
  }
}

TEST(GraphText, SpecialFloats) {
  Tensor t(DType::F32, {3});
  t.set(0, std::numeric_limits<double>::infinity());
  t.set(1, -std::numeric_limits<double>::infinity());
  t.set(2, -0.0);
  Graph g;
  g.output("y", g.constant(t, "c"));
  EXPECT_NE(g.str().find("{inf, -inf, -0}"), std::string::npos) << g.str();
  EXPECT_EQ(around(g.str()), g.str());
}

TEST(GraphText, AnyOpComesBack) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {Dim::symbol("N"), 8, 10, 10});
  const Value w = g.placeholder("w", DType::F32, {4, 2, 3, 3});
  const Value y = g.op("conv", {x, w},
                       {{"feature_groups", std::int64_t{4}}, {"strides", std::vector<std::int64_t>{2, 2}}});
  g.output("mean", g.op("mean", {y}, {{"axes", std::vector<std::int64_t>{2, 3}}}));
  const Graph back = Graph::parse(g.str());
  back.verify();
  EXPECT_EQ(back.str(), g.str());
  EXPECT_EQ(back.outputs().at(0).value.type(), g.outputs().at(0).value.type());
}

TEST(GraphText, CommentsAndLayoutDoNotMatter) {
  EXPECT_EQ(around("// RUN: nothing\ngraph{%x=placeholder float32[2]// a comment\n%y=relu(%x) output y=%y}"),
            "graph {\n  %x = placeholder float32[2]\n  %y = relu(%x) : float32[2]\n  output y = %y\n}");
}

TEST(GraphText, ErrorsNameThePlace) {
  const auto what = [](std::string_view text) { return std::string(error_of(text).what()); };
  const auto says = [&](std::string_view text, std::string_view part) {
    EXPECT_NE(what(text).find(part), std::string::npos) << what(text);
  };
  says("graph {\n  %y = relu(%x)\n}", "line 2, column 14");
  says("graph {\n  %y = no_such_op()\n}", "no_such_op");
  says("graph {\n  %x = placeholder float32[2]\n  %x = relu(%x)\n}", "line 3, column 4");
  says("graph { %x = placeholder float33[2] }", "a dtype");
  says("graph { %x = placeholder float32[2", "line 1");
  says("graph { %x = placeholder float32[2] %y = relu(%x#1) }", "one of its results");
  says("graph { %x = placeholder float32[2] %y = relu(%x) : float32[3] }", "float32[2]");
  says("graph { %x = placeholder float32[2] %y = relu(%x, mode=1) }", "an attribute of relu");
  says("graph { %c = constant float32[2] {1} }", "2 elements");
  says("graph { %c = constant float32[1] {1, 2} }", "'}' after 1");
  says("graph { %c = constant uint8[1] {256} }", "a value that the dtype has");
  says("graph { %c = constant float32[9999999999, 9999999999, 9999999999] splat 0 }", "");
  says("graph { %c = constant float32[1] hex \"0000\" }", "two hexadecimal digits");
  says("graph { } more", "the end of the text");
  says("", "'graph'");
  EXPECT_EQ(error_of("graph { %y = no_such_op() }").code(), Code::NotFound);
  EXPECT_EQ(error_of("graph { %c = constant float32[9999999999, 9999999999, 9999999999] splat 0 }").code(),
            Code::InvalidArgument);
}

}  // namespace
}  // namespace deepseek
