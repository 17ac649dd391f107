// Choosing among ways: by measuring, by tolerance, remembered; whatever is chosen, the results are right.
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "deepseek/compile.h"
#include "deepseek/error.h"
#include "passes/lower.h"
#include "passes/pipeline.h"
#include "targets/registry.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_close;
using testing::random_tensor;
using testing::reference;

// Two equal 3x3 convolutions, large enough to be worth measuring.
Graph model() {
  Graph g;
  Value x = g.placeholder("x", DType::F32, {1, 48, 40, 40});
  for (unsigned i = 0; i < 2; ++i)
    x = g.op("relu", {g.op("conv", {x, g.constant(random_tensor({48, 48, 3, 3}, i))},
                           {{"pad_low", std::vector<std::int64_t>{1, 1}},
                            {"pad_high", std::vector<std::int64_t>{1, 1}}})});
  g.output("y", x);
  return g;
}

// The machine's cpu, with a memory of facts that the test sees.
class Remembering : public Target {
 public:
  explicit Remembering(std::shared_ptr<Target> cpu) : cpu_(std::move(cpu)) {}
  const TargetInfo& info() const override { return cpu_->info(); }
  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> programs) override {
    return cpu_->compile(programs);
  }
  std::optional<std::string> recall(const std::string& key) const override {
    const auto it = facts.find(key);
    return it == facts.end() ? std::nullopt : std::optional(it->second);
  }
  void remember(const std::string& key, const std::string& text) override { facts[key] = text; }
  std::map<std::string, std::string> facts;

 private:
  std::shared_ptr<Target> cpu_;
};

Executable tuned(Target& target, Tune tune) {
  return lower(run_pipeline(model(), {}), target, {.tune = tune});
}

TEST(Tune, MeasuredWaysAreShownAndRight) {
  Remembering target(find_target("cpu", ""));
  const Executable e = tuned(target, Tune::Full);
  const std::string text = e.explain();
  EXPECT_EQ(target.facts.size(), 1U) << "equal groups are one question";
  for (const char* way : {"winograd 4x4 ", "winograd 2x2 ", "gemm "})
    EXPECT_NE(text.find(std::string(way) + "0."), std::string::npos) << text;
  const NamedTensors inputs = {{"x", random_tensor({1, 48, 40, 40}, 7)}};
  expect_close(e.run(inputs).at("y"), reference(model(), inputs).at("y"));
}

TEST(Tune, WhatWasMeasuredIsRemembered) {
  Remembering target(find_target("cpu", ""));
  tuned(target, Tune::Full);
  ASSERT_EQ(target.facts.size(), 1U);
  // A line for each way, cheapest first: say that the last one is fastest.
  std::istringstream old(target.facts.begin()->second);
  std::string said, name;
  for (double seconds = 0, told = 0.5; old >> seconds && std::getline(old, name); told /= 2)
    said += std::to_string(told) + name + "\n";
  target.facts.begin()->second = said;
  const std::string text = tuned(target, Tune::Full).explain();
  EXPECT_NE(text.find(" 500.000 ms"), std::string::npos) << text;
  name = name.substr(name.find_first_not_of(' '));
  EXPECT_NE(text.find("conv_relu: " + name + " of "), std::string::npos) << text;
  EXPECT_EQ(target.facts.begin()->second, said) << "nothing was measured again";
}

// What a way keeps has a price: 4x4 keeps 0.2 MB more than the product, worth 4 us.
TEST(Tune, MemoryDecidesNearTies) {
  Remembering target(find_target("cpu", ""));
  tuned(target, Tune::Full);
  ASSERT_EQ(target.facts.size(), 1U);
  const std::string measured = target.facts.begin()->second;
  for (const auto& [seconds_of_4x4, chosen] :
       {std::pair("0.000018", "gemm"), std::pair("0.000014", "winograd 4x4")}) {
    std::istringstream old(measured);
    std::string said, name;
    for (double seconds = 0; old >> seconds && std::getline(old >> std::ws, name);)
      said += std::string(name == "winograd 4x4" ? seconds_of_4x4
                          : name == "gemm"       ? "0.000020"
                                                 : "0.000030") +
              " " + name + "\n";
    target.facts.begin()->second = said;
    const std::string text = tuned(target, Tune::Full).explain();
    EXPECT_NE(text.find("conv_relu: " + std::string(chosen) + " of "), std::string::npos) << text;
    EXPECT_NE(text.find(" ms 0.3 MB"), std::string::npos) << text;
  }
}

TEST(Tune, DamagedFactsAreMeasuredAgain) {
  Remembering target(find_target("cpu", ""));
  tuned(target, Tune::Full);
  ASSERT_EQ(target.facts.size(), 1U);
  for (const char* damage : {"", "0.1", "0.1 no such way\n", "\n\n\n"}) {
    target.facts.begin()->second = damage;
    tuned(target, Tune::Full);
    EXPECT_NE(target.facts.begin()->second, damage);
  }
}

TEST(Tune, OffMeasuresNothing) {
  Remembering target(find_target("cpu", ""));
  EXPECT_NE(tuned(target, Tune::Off).explain().find("price 1.00"), std::string::npos);
  EXPECT_TRUE(target.facts.empty());
}

TEST(Tune, ToleranceDecidesWhichWaysAreTaken) {
  const auto ways = [](double rtol) {
    return compile(model(), {.target = "cpu", .tune = "off", .rtol = rtol}).explain();
  };
  EXPECT_NE(ways(1e-5).find("winograd 4x4"), std::string::npos);
  EXPECT_EQ(ways(1e-6).find("winograd 4x4"), std::string::npos);
  EXPECT_NE(ways(1e-6).find("winograd 2x2"), std::string::npos);
  EXPECT_EQ(ways(0).find("winograd"), std::string::npos);
}

TEST(Tune, UnknownNamesAreRefused) {
  try {
    compile(model(), {.tune = "most"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::InvalidArgument);
    EXPECT_NE(std::string(e.what()).find("'most'"), std::string::npos);
  }
}

}  // namespace
}  // namespace deepseek
