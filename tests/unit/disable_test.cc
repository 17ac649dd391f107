// Results stay right without any one pass, rule or way.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/lowered.h"
#include "passes/pipeline.h"
#include "targets/registry.h"
#include "unit/models.h"
#include "unit/support.h"

namespace deepseek {
namespace {

std::vector<std::string> names() {
  std::vector<std::string> result = {"form_groups"};
  for (const Pass& p : pipeline())
    if (!p.required) result.emplace_back(p.name);
  for (const auto rules : {simplify_rules(), layout_rules(), view_rules()})
    for (const Rule& r : rules) result.push_back(r.name);
  for (const kernels::Way& w : kernels::ways())
    if (!w.required) result.emplace_back(w.name);
  result.emplace_back("winograd");  // all its sizes
  return result;
}

class Without : public ::testing::TestWithParam<std::string> {
 protected:
  void check(const testing::Model& m) const {
    const auto cpu = find_target("cpu", "");
    testing::expect_like_reference(testing::compile_for(m.graph, *cpu, {GetParam()}), m.graph, m.inputs);
  }
};

TEST_P(Without, SmallCnn) { check(testing::small_cnn()); }
TEST_P(Without, TransformerBlock) { check(testing::transformer_block()); }
TEST_P(Without, Lstm) { check(testing::lstm(5)); }

INSTANTIATE_TEST_SUITE_P(Names, Without, ::testing::ValuesIn(names()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
});

// What is left out is left out: else the tests above would prove nothing.
TEST(WithoutAWay, TheDefinitionIsTaken) {
  const testing::Model m = testing::small_cnn();
  const auto target = testing::interpreter(false);
  EXPECT_NE(testing::compile_for(m.graph, *target).explain().find(": gemm"), std::string::npos);
  const std::string without = testing::compile_for(m.graph, *target, {"gemm"}).explain();
  EXPECT_EQ(without.find(": gemm"), std::string::npos);
  EXPECT_NE(without.find(": definition"), std::string::npos);
}

TEST(WithoutAWay, DefinitionsStay) {
  const testing::Model m = testing::small_cnn();
  testing::expect_like_reference(
      testing::compile_for(m.graph, *testing::interpreter(false), {"map", "program"}), m.graph, m.inputs);
}

}  // namespace
}  // namespace deepseek
