// The op table as a whole: every entry is complete, and the shape rules of the first ops.
#include <gtest/gtest.h>

#include "deepseek/graph.h"
#include "ops/op.h"

namespace deepseek {
namespace {

const Dim N = Dim::symbol("N");

Shape result_shape(std::string_view op, const std::vector<Type>& inputs, Attrs attrs = {}) {
  Graph g;
  std::vector<Value> values;
  for (const Type& t : inputs)
    values.push_back(g.placeholder("x" + std::to_string(values.size()), t.dtype, t.shape));
  const Value y = g.op(op, values, std::move(attrs));
  g.verify();
  return y.shape();
}
std::string failure(std::string_view op, const std::vector<Type>& inputs, Attrs attrs = {}) {
  try {
    result_shape(op, inputs, std::move(attrs));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::InvalidArgument);
    EXPECT_EQ(e.op(), op);
    return e.expected() + " | " + e.got();
  }
  return "no error";
}
Type f32(Shape s) { return {DType::F32, std::move(s)}; }
using List = std::vector<std::int64_t>;

TEST(OpTable, EveryEntrySaysWhatItIs) {
  for (const OpDef* op : op_table().all()) {
    EXPECT_FALSE(op->doc.empty()) << op->name;
    EXPECT_TRUE(op->infer) << op->name;
    EXPECT_FALSE(std::holds_alternative<std::monostate>(op->definition)) << op->name;
  }
}

TEST(OpTable, Broadcasting) {
  EXPECT_EQ(result_shape("add", {f32({N, 1, 3}), f32({4, 1})}), (Shape{N, 4, 3}));
  EXPECT_EQ(failure("add", {f32({2}), f32({3})}), "shapes that broadcast | [2] and [3]");
  EXPECT_EQ(failure("add", {f32({2}), {DType::I32, {2}}}), "'b' of dtype float32 | int32[2]");
  EXPECT_EQ(failure("sqrt", {{DType::I32, {2}}}), "a float dtype for 'x' | int32[2]");
}

TEST(OpTable, ScalesBroadcastToWhatIsQuantised) {
  EXPECT_EQ(result_shape("quantize", {f32({N, 3}), f32({1, 3})}), (Shape{N, 3}));
  EXPECT_EQ(failure("quantize", {f32({1}), f32({3})}), "'scale' that broadcasts to [1] | float32[3]");
  EXPECT_EQ(failure("quantize", {f32({1}), f32({0})}), "'scale' that broadcasts to [1] | float32[0]");
  EXPECT_EQ(failure("dequantize", {{DType::I8, {1, 4}}, f32({3, 1})}),
            "'scale' that broadcasts to [1, 4] | float32[3, 1]");
}

TEST(OpTable, Views) {
  EXPECT_EQ(result_shape("reshape", {f32({N, 6})}, {{"shape", Shape{N * 2, 3}}}), (Shape{N * 2, 3}));
  EXPECT_EQ(failure("reshape", {f32({4, 6})}, {{"shape", List{5, 5}}}), "a shape of 24 elements | [5, 5]");
  EXPECT_EQ(result_shape("transpose", {f32({N, 6, 2})}, {{"perm", List{2, 0, 1}}}), (Shape{2, N, 6}));
  EXPECT_EQ(result_shape("slice", {f32({N, 10})},
                         {{"starts", Shape{1, 9}}, {"limits", Shape{N, -1}}, {"steps", List{1, -2}}}),
            (Shape{N - 1, 5}));
  EXPECT_EQ(failure("slice", {f32({4})}, {{"starts", Shape{1}}, {"limits", Shape{5}}, {"steps", List{1}}}),
            "0 <= start <= limit <= 4 | start 1, limit 5 on axis 0");
  EXPECT_EQ(result_shape("concat", {f32({N, 2}), f32({3, 2})}, {{"axis", std::int64_t{0}}}),
            (Shape{N + 3, 2}));
  EXPECT_EQ(result_shape("pad", {f32({N, 4})}, {{"low", Shape{1, -1}}, {"high", Shape{2, 0}}}),
            (Shape{N + 3, 3}));
  EXPECT_EQ(result_shape("gather", {f32({5, N}), {DType::I64, {2, 3}}}), (Shape{2, 3, N}));
}

TEST(OpTable, Contractions) {
  EXPECT_EQ(result_shape("matmul", {f32({N, 1, 3, 4}), f32({5, 4, 6})}), (Shape{N, 5, 3, 6}));
  EXPECT_EQ(result_shape("matmul", {f32({4}), f32({4})}), (Shape{}));
  EXPECT_EQ(failure("matmul", {f32({2, 3}), f32({2, 3})}),
            "shapes [..., m, k] and [..., k, n] | float32[2, 3] and float32[2, 3]");
  const Attrs same = {{"pad_low", List{1, 1}}, {"pad_high", List{1, 1}}, {"strides", List{2, 2}}};
  EXPECT_EQ(result_shape("conv", {f32({N, 3, 224, 224}), f32({64, 3, 3, 3})}, same),
            (Shape{N, 64, 112, 112}));
  EXPECT_EQ(result_shape("max_pool", {f32({N, 3, 7, 7})}, {{"window", List{3, 3}}, {"strides", List{2, 2}}}),
            (Shape{N, 3, 3, 3}));
  EXPECT_EQ(failure("conv", {f32({1, 4, 5, 5}), f32({2, 3, 3, 3})}),
            "a kernel that takes 4 channels | float32[2, 3, 3, 3]");
}

TEST(OpTable, Reductions) {
  EXPECT_EQ(result_shape("sum", {f32({N, 3, 4})}, {{"axes", List{-1, 0}}}), (Shape{3}));
  EXPECT_EQ(result_shape("mean", {f32({N, 3})}, {{"axes", List{0}}, {"keepdims", true}}), (Shape{1, 3}));
  EXPECT_EQ(result_shape("argmax", {f32({N, 3})}, {{"axis", std::int64_t{1}}}), (Shape{N}));
}

}  // namespace
}  // namespace deepseek
