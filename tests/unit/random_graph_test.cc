// Graphs drawn at random, on every target, compared with the definitions one by one in the plain interpreter. They find what
// fusion, rules, layouts and views do to each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "deepseek/error.h"
#include "ops/graph_builder.h"
#include "unit/support.h"

namespace deepseek {
namespace {

using testing::random_tensor;
using List = std::vector<std::int64_t>;

// Draws one graph. Values stay around 1 in size, so that a result's error is that of its last op.
class RandomGraph {
 public:
  explicit RandomGraph(unsigned seed) : rng_(seed), g_(graph_) {
    const int inputs = pick(1, 3);
    for (int i = 0; i < inputs; ++i) values_.push_back(input(random_shape()));
    const int nodes = pick(3, 12);
    for (int i = 0; i < nodes; ++i) {
      const Value v = node();
      if (v && numel(sizes(v)) <= 4000) values_.push_back(v);
    }
    graph_.output("y", values_.back());
    for (int i = 0; i < 2; ++i)
      if (flip()) graph_.output("z" + std::to_string(i), any());
  }
  const Graph& graph() const { return graph_; }
  const NamedTensors& inputs() const { return inputs_; }

 private:
  std::mt19937 rng_;
  Graph graph_;
  GraphBuilder g_;
  NamedTensors inputs_;
  std::vector<Value> values_;
  DimEnv env_ = {{"n", 5}};

  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng_); }
  bool flip() { return pick(0, 1) == 1; }
  template <class T>
  T one(std::initializer_list<T> options) {
    return *(options.begin() + pick(0, static_cast<int>(options.size()) - 1));
  }
  Value any() { return values_[static_cast<std::size_t>(pick(0, static_cast<int>(values_.size()) - 1))]; }
  Dims sizes(Value v) const { return eval(v.shape(), env_); }

  Shape random_shape() {
    Shape s;
    const int rank = pick(1, 4);
    for (int i = 0; i < rank; ++i)
      s.push_back(pick(0, 4) == 0 ? Dim::symbol("n") : Dim(one({1, 2, 3, 4, 8, 17})));
    return s;
  }
  Value input(const Shape& s) {
    const std::string name = "in" + std::to_string(inputs_.size());
    const auto seed = static_cast<unsigned>(rng_());
    const Tensor data = random_tensor(eval(s, env_), seed);
    if (is_static(s) && pick(0, 2) == 0) return graph_.constant(data);
    inputs_[name] = data;
    return graph_.placeholder(name, DType::F32, s, pick(0, 3) == 0 ? Role::Parameter : Role::Argument);
  }
  // A value that broadcasts with x: an old one where there is one, else a new input with some dims dropped or 1.
  Value partner(Value x) {
    for (int i = 0; i < 4; ++i) {
      const Value v = any();
      const auto joined = broadcast(x.shape(), v.shape()),
                 real = broadcast(to_shape(sizes(x)), to_shape(sizes(v)));
      if (joined && *joined == x.shape() && real && *real == to_shape(sizes(x))) return v;
    }
    Shape s = x.shape();
    for (Dim& d : s)
      if (pick(0, 2) == 0) d = 1;
    if (flip() && !s.empty()) s.erase(s.begin());
    return input(s);
  }

  Value node() {
    const Value x = any();
    const int rank = x.rank();
    const auto axis = [&] { return static_cast<std::int64_t>(pick(0, rank - 1)); };
    switch (pick(0, rank == 0 ? 3 : 19)) {
      case 0:
      case 1:
        return g_.unary(one({"neg", "tanh", "sigmoid", "relu", "abs", "sin", "gelu", "silu", "floor"}), x);
      case 2:
      case 3: {
        const Value p = partner(x);
        const char* op = one({"add", "sub", "mul", "maximum", "minimum"});
        return flip() ? g_.binary(op, x, p) : g_.binary(op, p, x);
      }
      case 4:
        return g_.select(g_.less(x, partner(x)), x, flip() ? Operand(partner(x)) : Operand(0.5));
      case 5:
      case 6: {
        List axes;
        for (std::int64_t i = 0; i < rank; ++i)
          if (flip()) axes.push_back(i);
        if (axes.empty()) axes.push_back(rank - 1);
        return g_.reduce(one({"mean", "max", "min", "mean"}), x, axes, flip());
      }
      case 7:
        return g_.op("softmax", {x}, {{"axis", axis()}});
      case 8: {
        List perm(static_cast<std::size_t>(rank));
        for (std::size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<std::int64_t>(i);
        std::ranges::shuffle(perm, rng_);
        return g_.transpose(x, perm);
      }
      case 9: {  // neighbouring axes join
        if (rank < 2) return g_.unsqueeze(x, pick(0, rank));
        const auto at = static_cast<std::ptrdiff_t>(pick(0, rank - 2));
        Shape s = x.shape();
        s[static_cast<std::size_t>(at)] =
            s[static_cast<std::size_t>(at)] * s[static_cast<std::size_t>(at + 1)];
        s.erase(s.begin() + at + 1);
        return g_.reshape(x, s);
      }
      case 10: {
        const std::int64_t a = axis();
        const Dim d = x.dim(static_cast<int>(a));
        if (!d.is_static() || d.value() < 2) return g_.op("reverse", {x}, {{"axes", List{a}}});
        const int low = pick(0, static_cast<int>(d.value()) - 1);
        return g_.slice(x, static_cast<int>(a), low, pick(low + 1, static_cast<int>(d.value())));
      }
      case 11:
        return g_.concat({x, partner_of_shape(x), x}, static_cast<int>(axis()));
      case 12:
      case 13:
      case 14:
        return product(x);
      case 15: {
        if (rank < 3) return product(x);
        return convolution(x);
      }
      case 16: {
        Shape low(static_cast<std::size_t>(rank), Dim(0)), high = low;
        low[static_cast<std::size_t>(axis())] = pick(0, 2);
        high[static_cast<std::size_t>(axis())] = pick(0, 2);
        return g_.op("pad", {x}, {{"low", low}, {"high", high}, {"value", one({0.0, 0.5})}});
      }
      case 17:
        return g_.op("cumsum", {g_.mul(x, 0.1)}, {{"axis", axis()}});
      case 18: {
        if (x.shape().back() == Dim(1)) return g_.unary("exp", g_.neg(g_.abs(x)));
        return graph_.ops("layer_norm", {x, input({x.dim(-1)}), input({x.dim(-1)})}, {{"epsilon", 0.1}})[0];
      }
      default: {
        Shape s = x.shape();
        s.insert(s.begin(), Dim(pick(1, 3)));
        return g_.broadcast_to(x, s);
      }
    }
  }
  Value partner_of_shape(Value x) {
    for (const Value& v : values_)
      if (!(v == x) && v.shape() == x.shape()) return v;
    return input(x.shape());
  }
  // Scaled, so that sums of products stay around 1.
  Value product(Value x) {
    const double scale = 1 / std::sqrt(1.0 + static_cast<double>(sizes(x).back()));
    const Dim columns = one({1, 5, 16, 33});
    if (flip()) return g_.mul(g_.op("linear", {x, input({columns, x.dim(-1)}), input({columns})}), scale);
    for (int i = 0; i < 4; ++i) {
      const Value v = any();
      if (v.rank() >= 2 && v.rank() == x.rank() && v.dim(-2) == x.dim(-1) &&
          Shape(v.shape().begin(), v.shape().end() - 2) == Shape(x.shape().begin(), x.shape().end() - 2))
        return g_.mul(g_.matmul(x, v), scale);
    }
    if (x.rank() >= 2 && flip()) return g_.mul(g_.matmul(x, g_.swap_last_two(x)), scale);
    return g_.mul(g_.matmul(x, input({x.dim(-1), columns})), scale);
  }
  Value convolution(Value x) {
    const Dim channels = x.dim(1);
    const auto spatial = static_cast<std::size_t>(x.rank() - 2);
    if (!channels.is_static()) return g_.unary("relu", x);
    const std::int64_t c = channels.value(), groups = flip() ? 1 : c, each = one({1, 2, 8});
    Shape kernel = {Dim(groups * each), Dim(c / groups)};
    List pads, strides;
    for (std::size_t i = 0; i < spatial; ++i) {
      kernel.emplace_back(one({1, 3}));
      pads.push_back(1);
      strides.push_back(pick(1, 2));
    }
    const Value y =
        g_.op("conv", {x, input(kernel)},
              {{"strides", strides}, {"pad_low", pads}, {"pad_high", pads}, {"feature_groups", groups}});
    return g_.mul(y, 0.3);
  }
};

class RandomGraphs : public ::testing::TestWithParam<testing::NamedTarget> {};

TEST_P(RandomGraphs, GiveWhatTheirDefinitionsGive) {
  // DEEPSEEK_RANDOM_GRAPHS="first:count" looks further.
  unsigned first = 1, count = 40;
  if (const char* text = std::getenv("DEEPSEEK_RANDOM_GRAPHS")) {
    char* rest = nullptr;
    first = static_cast<unsigned>(std::strtoul(text, &rest, 10));
    if (*rest == ':') count = static_cast<unsigned>(std::strtoul(rest + 1, nullptr, 10));
  }
  const auto target = GetParam().make();
  for (unsigned seed = first; seed < first + count; ++seed) {
    const RandomGraph r(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + r.graph().str());
    try {
      testing::expect_like_reference(testing::compile_for(r.graph(), *target), r.graph(), r.inputs(), 3e-5);
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, RandomGraphs, ::testing::ValuesIn(testing::every_target_and_toy()),
                         testing::target_name);

}  // namespace
}  // namespace deepseek
