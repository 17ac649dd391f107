#include "unit/models.h"

#include "ops/graph_builder.h"
#include "unit/support.h"

namespace deepseek::testing {
namespace {

using List = std::vector<std::int64_t>;

// Draws what the graph reads: arguments into `inputs`, weights as constants.
class Builder : public GraphBuilder {
 public:
  explicit Builder(Model& m) : GraphBuilder(m.graph), m_(m) {}
  Value input(const std::string& name, Shape shape, Dims dims) {
    m_.inputs[name] = random_tensor(std::move(dims), ++seed_);
    return graph().placeholder(name, DType::F32, std::move(shape));
  }
  Value weight(Dims dims) { return graph().constant(random_tensor(std::move(dims), ++seed_)); }
  // In [0.5, 1.5): a variance or a scale.
  Value positive(Dims dims) {
    Tensor t = random_tensor(std::move(dims), ++seed_);
    for (float& x : t.as<float>()) x = 1 + x / 2;
    return graph().constant(t);
  }
  Value normalized(Value x, std::int64_t channels) {
    return op("batch_norm",
              {x, positive({channels}), weight({channels}), weight({channels}), positive({channels})});
  }
  Value conv(Value x, Dims kernel, Attrs attrs) {
    return op("conv", {x, weight(std::move(kernel))}, std::move(attrs));
  }

 private:
  Model& m_;
  unsigned seed_ = 100;
};

}  // namespace

Model small_cnn() {
  Model m;
  Builder g(m);
  const List one = {1, 1}, two = {2, 2};
  Value x = g.input("x", {Dim::symbol("n"), 3, 12, 12}, {2, 3, 12, 12});
  const Shape edge = {Dim(0), Dim(0), Dim(1), Dim(1)};
  x = g.op("pad", {x}, {{"low", edge}, {"high", edge}});
  x = g.op("relu", {g.normalized(g.conv(x, {16, 3, 3, 3}, {}), 16)});
  const Value trunk = x;
  x = g.conv(x, {16, 8, 3, 3}, {{"pad_low", one}, {"pad_high", one}, {"feature_groups", std::int64_t{2}}});
  x = g.op("relu", {g.normalized(x, 16)});
  x = g.conv(x, {16, 1, 3, 3}, {{"pad_low", one}, {"pad_high", one}, {"feature_groups", std::int64_t{16}}});
  x = g.op("relu6", {g.normalized(x, 16)});
  x = g.add(g.conv(x, {16, 16, 1, 1}, {}), trunk);
  x = g.conv(x, {24, 16, 3, 3}, {{"strides", two}, {"pad_low", one}, {"pad_high", one}});
  x = g.op("silu", {g.normalized(x, 24)});
  x = g.concat({x, g.transpose(g.transpose(x, {0, 2, 3, 1}), {0, 3, 1, 2})}, 1);
  const Value pooled = g.mean(x, {2, 3}, false);
  m.graph.output("y", g.op("softmax", {g.op("linear", {pooled, g.weight({10, 48}), g.weight({10})})},
                           {{"axis", std::int64_t{-1}}}));
  return m;
}

Model transformer_block() {
  constexpr std::int64_t kWidth = 24, kHeads = 6, kGroups = 2, kSize = 4, kLength = 13;
  Model m;
  Builder g(m);
  const Dim n = Dim::symbol("length");
  const Value x = g.input("x", {2, n, kWidth}, {2, kLength, kWidth});
  const auto norm = [&](Value v) {
    return m.graph.ops("layer_norm", {v, g.positive({kWidth}), g.weight({kWidth})})[0];
  };
  const auto heads = [&](Value v, std::int64_t count) {
    const Value w = g.weight({count * kSize, kWidth});
    return g.transpose(g.reshape(g.op("linear", {v, w}), {2, n, Dim(count), Dim(kSize)}), {0, 2, 1, 3});
  };
  const Value a = norm(x);
  const Value attended =
      g.op("attention", {heads(a, kHeads), heads(a, kGroups), heads(a, kGroups)}, {{"causal", true}});
  const Value joined = g.reshape(g.transpose(attended, {0, 2, 1, 3}), {2, n, Dim(kWidth)});
  const Value h = g.add(x, g.op("linear", {joined, g.weight({kWidth, kWidth}), g.weight({kWidth})}));
  const Value b = norm(h);
  const Value gate = g.op("silu", {g.op("linear", {b, g.weight({40, kWidth})})});
  const Value up = g.op("gelu", {g.op("linear", {b, g.weight({40, kWidth}), g.weight({40})})});
  m.graph.output("y", g.add(h, g.op("linear", {g.mul(gate, up), g.weight({kWidth, 40})})));
  return m;
}

Model lstm(std::int64_t steps) {
  constexpr std::int64_t kBatch = 3, kIn = 5, kHidden = 7;
  const Dim length = Dim::symbol("T");
  const Shape sequence = {length, kBatch, kIn}, states = {length, kBatch, kHidden}, state = {kBatch, kHidden};
  const Shape input_weight = {kIn, 4 * kHidden}, hidden_weight = {kHidden, 4 * kHidden};

  const auto placeholders = [&](Graph& g) {
    return std::vector<Value>{
        g.placeholder("t", DType::I64, {1}),          g.placeholder("h", DType::F32, state),
        g.placeholder("c", DType::F32, state),        g.placeholder("y", DType::F32, states),
        g.placeholder("x", DType::F32, sequence),     g.placeholder("w", DType::F32, input_weight),
        g.placeholder("r", DType::F32, hidden_weight)};
  };
  auto condition = std::make_shared<Graph>();
  {
    GraphBuilder g(*condition);
    const std::vector<Value> in = placeholders(*condition);
    condition->output("more", g.less(in[0], g.reshape(g.dim(length, DType::I64), {1})));
  }
  auto body = std::make_shared<Graph>();
  {
    GraphBuilder g(*body);
    const std::vector<Value> in = placeholders(*body);
    const Value t = in[0], h = in[1], c = in[2], y = in[3], x = in[4], w = in[5], r = in[6];
    const Value zeros = g.full({2}, 0, DType::I64), starts = g.concat({t, zeros}, 0);
    const Value now =
        g.reshape(g.op("dynamic_slice", {x, starts}, {{"sizes", Shape{1, kBatch, kIn}}}), {kBatch, kIn});
    const Value gates = g.add(g.matmul(now, w), g.matmul(h, r));
    const auto gate = [&](std::int64_t k) { return g.slice(gates, 1, k * kHidden, (k + 1) * kHidden); };
    const Value cell = g.add(g.mul(g.sigmoid(gate(1)), c), g.mul(g.sigmoid(gate(0)), g.tanh(gate(2))));
    const Value hidden = g.mul(g.sigmoid(gate(3)), g.tanh(cell));
    body->output("t", g.add(t, 1));
    body->output("h", hidden);
    body->output("c", cell);
    body->output("y", g.op("dynamic_update_slice", {y, g.reshape(hidden, {1, kBatch, kHidden}), starts}));
  }
  Model m;
  Builder g(m);
  const Value x = g.input("x", sequence, {steps, kBatch, kIn});
  const Value zero = g.full(state, 0, DType::F32);
  const std::vector<Value> last =
      m.graph.ops("while",
                  {g.full({1}, 0, DType::I64), zero, zero, g.full(states, 0, DType::F32), x,
                   g.weight({kIn, 4 * kHidden}), g.weight({kHidden, 4 * kHidden})},
                  {{"condition", std::shared_ptr<const Graph>(condition)},
                   {"body", std::shared_ptr<const Graph>(body)},
                   {"carried", std::int64_t{4}}});
  m.graph.output("h", last[1]);
  m.graph.output("c", last[2]);
  m.graph.output("y", last[3]);
  return m;
}

}  // namespace deepseek::testing
