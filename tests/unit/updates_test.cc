// Inputs that runs write: the new values are right wherever the old ones are read, and elementwise ones take no copy.
#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "passes/lower.h"
#include "passes/pipeline.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::expect_close;
using testing::random_tensor;
using testing::reference;
using Updates = std::vector<std::pair<int, int>>;

Tensor copy_of(const Tensor& t) {
  Tensor copy(t.dtype(), t.dims());
  std::memcpy(copy.data(), t.data(), t.bytes());
  return copy;
}

class UpdatesOf : public ::testing::TestWithParam<testing::NamedTarget> {
 protected:
  // Runs twice, each time against the graph that writes nothing; returns how many steps copy.
  int expect_updated(const Graph& g, const Updates& updates) {
    const auto target = GetParam().make();
    const Executable e = lower(run_pipeline(g, {}), *target, {.threads = 2, .updates = updates});
    EXPECT_EQ(e.outputs().size(), g.outputs().size() - updates.size());
    NamedTensors inputs;
    unsigned seed = 0;
    for (const Port& p : e.inputs()) {
      Dims dims;
      for (const Dim& d : p.type.shape) dims.push_back(d.is_static() ? d.value() : 7);
      inputs[p.name] = random_tensor(dims, ++seed);
    }
    for (int run = 0; run < 2; ++run) {
      NamedTensors before;
      for (const auto& [name, t] : inputs) before[name] = copy_of(t);
      const NamedTensors wanted = reference(g, before), got = e.run(inputs);
      for (const auto& [name, t] : got) expect_close(t, wanted.at(name));
      for (std::size_t i = 0; i < e.inputs().size(); ++i) {
        const std::string& name = e.inputs()[i].name;
        const Tensor* now = &before.at(name);
        for (const auto& [output, input] : updates)
          if (input == static_cast<int>(i))
            now = &wanted.at(g.outputs()[static_cast<std::size_t>(output)].name);
        SCOPED_TRACE(name);
        expect_close(inputs.at(name), *now);
      }
    }
    const std::string text = e.explain();
    int copies = 0;
    for (std::size_t at = text.find("copy_"); at != std::string::npos; at = text.find("copy_", at + 1))
      ++copies;
    return copies;
  }
};

Value op(Graph& g, const char* name, std::vector<Value> inputs) { return g.op(name, std::move(inputs)); }

// An optimizer's step: all three are read by each other's new values.
TEST_P(UpdatesOf, ElementwiseValuesAreStoredOverOldOnes) {
  for (const Shape& shape :
       {Shape{3, 5}, Shape{}, Shape{1}, Shape{0, 3}, Shape{70, 300}, Shape{Dim::symbol("n"), 13}}) {
    SCOPED_TRACE(str(shape));
    Graph g;
    const Value p = g.placeholder("p", DType::F32, shape), m = g.placeholder("m", DType::F32, shape),
                v = g.placeholder("v", DType::F32, shape), d = g.placeholder("d", DType::F32, shape);
    const Value m1 = op(g, "add", {op(g, "sin", {m}), d});
    const Value v1 = op(g, "add", {op(g, "mul", {d, d}), op(g, "cos", {v})});
    const Value step = op(g, "div", {m1, op(g, "exp", {v1})});
    g.output("p1", op(g, "sub", {p, step}));
    g.output("m1", m1);
    g.output("v1", v1);
    g.output("also", op(g, "mul", {step, d}));
    EXPECT_EQ(expect_updated(g, {{0, 0}, {1, 1}, {2, 2}}), 0);
  }
}

// Who reads what another element, or another group, needs.
TEST_P(UpdatesOf, OldElementsThatAreReadLaterAreKept) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {64, 64}), y = g.placeholder("y", DType::F32, {64, 64}),
              z = g.placeholder("z", DType::F32, {64}), u = g.placeholder("u", DType::F32, {64, 64});
  const Value turned = g.op("transpose", {x}, {{"perm", std::vector<std::int64_t>{1, 0}}});
  const Value x1 = op(g, "add", {x, turned});
  g.output("x1", x1);
  const Value y1 = op(g, "sin", {y});
  g.output("y1", y1);
  g.output("product", op(g, "matmul", {y1, y}));  // of the new and the old one
  g.output("old", op(g, "matmul", {u, x}));
  const Value mean = g.op("mean", {u}, {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", false}});
  g.output("z1", op(g, "add", {z, mean}));
  g.output("u1", op(g, "softmax", {u}));
  g.output("also", op(g, "mul", {op(g, "add", {x, u}), y}));
  expect_updated(g, {{0, 0}, {1, 1}, {4, 2}, {5, 3}});
}

// Values that are no group's: other inputs, the input itself, constants, one value twice, a returned one.
TEST_P(UpdatesOf, InputsAndConstantsAreCopied) {
  Graph g;
  std::vector<Value> in;
  for (const char* name : {"a", "b", "c", "d", "e", "f"})
    in.push_back(g.placeholder(name, DType::F32, {5, 4}));
  g.output("a1", in[1]);
  g.output("b1", in[0]);  // both at once
  g.output("c1", in[2]);
  const Value sum = op(g, "add", {in[3], in[4]});
  g.output("d1", sum);
  g.output("e1", sum);
  g.output("sum", sum);
  g.output("old", in[3]);
  g.output("f1", g.constant(random_tensor({5, 4}, 9)));
  expect_updated(g, {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 4}, {7, 5}});
}

TEST_P(UpdatesOf, ReshapedMemoryIsTheSame) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {6, 4}), y = g.placeholder("y", DType::F32, {24});
  const Value flat = g.op("reshape", {x}, {{"shape", Shape{24}}});
  const Value sum = op(g, "mul", {op(g, "add", {flat, y}), flat});
  g.output("x1", g.op("reshape", {sum}, {{"shape", Shape{6, 4}}}));
  g.output("y1", op(g, "neg", {sum}));
  EXPECT_EQ(expect_updated(g, {{0, 0}, {1, 1}}), 0);
}

INSTANTIATE_TEST_SUITE_P(Every, UpdatesOf, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

TEST(Updates, PairsThatNoRunCanKeepTo) {
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {3}), w = g.placeholder("w", DType::F32, {4});
  g.output("y", op(g, "sin", {x}));
  g.output("z", op(g, "sin", {w}));
  const auto target = testing::interpreter(false);
  for (const Updates& wrong : {Updates{{0, 1}}, Updates{{2, 0}}, Updates{{0, 2}}, Updates{{0, 0}, {0, 0}}})
    EXPECT_THROW(lower(run_pipeline(g, {}), *target, {.updates = wrong}), Error);
}

}  // namespace
}  // namespace deepseek
