// Losses and the optimisers' steps.
#include "deepseek/ops.h"
#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

Value reduced_loss(Context& c, Value loss, Value weight) {
  Emit& e = c.e;
  const std::string reduction = c.attr_s("reduction", "mean");
  if (reduction == "none") return loss;
  if (reduction != "sum" && reduction != "mean") c.bad("reduction none, sum or mean", "'" + reduction + "'");
  const Ints axes = all_axes(loss);
  if (reduction == "sum") return e.sum(loss, axes, false);
  return weight ? e.div(e.sum(loss, axes, false), e.sum(weight, axes, false)) : e.mean(loss, axes, false);
}

// -log_p[n, target[n, ...], ...] times the class's weight; targets to be ignored count nothing.
Value negative_log_likelihood(Context& c, Value log_p, Value target, Value weights) {
  Emit& e = c.e;
  if (log_p.rank() < 2 || target.rank() != log_p.rank() - 1)
    c.bad("scores [N, C, ...] and targets [N, ...]", str(log_p.type()) + " and " + str(target.type()));
  const bool ignores = c.has_attr("ignore_index");
  Value counted;
  if (ignores) {
    const Value ignored = e.constant([&] {
      Tensor t(target.dtype(), {});
      t.set(0, static_cast<double>(c.attr("ignore_index", 0)));
      return t;
    }());
    counted = e.op("not_equal", {target, ignored});
    target = e.select(counted, target, 0);
  }
  Value loss = e.neg(
      e.squeeze(e.op("gather_elements", {log_p, e.unsqueeze(target, 1)}, {{"axis", std::int64_t{1}}}), 1));
  Value weight;
  if (weights) weight = e.gather(weights, target, 0);
  if (ignores) weight = e.select(counted, weight ? weight : e.full(target.shape(), 1, loss.dtype()), 0);
  if (weight) loss = e.mul(loss, weight);
  return reduced_loss(c, loss, weight);
}

void nll_loss(Context& c) { c.out(negative_log_likelihood(c, c.in(0), c.in(1), c.in_or(2, {}))); }

void softmax_cross_entropy(Context& c) {
  const Value log_p = c.e.op("log_softmax", {c.in(0)}, {{"axis", std::int64_t{1}}});
  c.out(0, Item(negative_log_likelihood(c, log_p, c.in(1), c.in_or(2, {}))));
  c.out(1, Item(log_p));
}

// Inputs of an optimiser: R, T, then n tensors of each kind.
struct Optimised {
  Value rate, step;
  int count;
};
Optimised optimised(Context& c, int kinds) {
  if (c.inputs() < 2 + kinds || (c.inputs() - 2) % kinds != 0)
    c.bad("2 + " + std::to_string(kinds) + "n inputs", std::to_string(c.inputs()));
  return {c.e.reshape(c.in(0), {}), c.e.reshape(c.in(1), {}), (c.inputs() - 2) / kinds};
}

void adagrad(Context& c) {
  Emit& e = c.e;
  const Optimised o = optimised(c, 3);
  const double decay = c.attr_f("decay_factor", 0), norm = c.attr_f("norm_coefficient", 0),
               epsilon = c.attr_f("epsilon", 0);
  for (int i = 0; i < o.count; ++i) {
    const Value x = c.in(2 + i), gradient = c.in(2 + o.count + i), squares = c.in(2 + 2 * o.count + i);
    const Value rate = e.div(o.rate, e.add(e.mul(e.cast(o.step, o.rate.dtype()), decay), 1));
    const Value g = e.add(e.mul(x, norm), gradient);
    const Value h = e.add(squares, e.square(g));
    c.out(i, Item(e.sub(x, e.div(e.mul(rate, g), e.add(e.sqrt(h), epsilon)))));
    c.out(o.count + i, Item(h));
  }
}

void momentum(Context& c) {
  Emit& e = c.e;
  const Optimised o = optimised(c, 3);
  const double alpha = c.attr_f("alpha", 0), beta = c.attr_f("beta", 0),
               norm = c.attr_f("norm_coefficient", 0);
  const std::string mode = c.attr_s("mode", "standard");
  for (int i = 0; i < o.count; ++i) {
    const Value x = c.in(2 + i), gradient = c.in(2 + o.count + i), v = c.in(2 + 2 * o.count + i);
    const Value g = e.add(e.mul(x, norm), gradient);
    // The first step takes the whole gradient.
    const Value first = e.less_equal(o.step, 0);
    const Value share = e.select(first, e.like(1, x), e.like(beta, x));
    const Value next = e.add(e.mul(v, alpha), e.mul(g, share));
    const Value direction = mode == "nesterov" ? e.add(g, e.mul(next, alpha)) : next;
    c.out(i, Item(e.sub(x, e.mul(o.rate, direction))));
    c.out(o.count + i, Item(next));
  }
}

void adam(Context& c) {
  Emit& e = c.e;
  const Optimised o = optimised(c, 4);
  const double alpha = c.attr_f("alpha", 0.9), beta = c.attr_f("beta", 0.999),
               epsilon = c.attr_f("epsilon", 1e-8);
  const double norm = c.attr_f("norm_coefficient", 0), after = c.attr_f("norm_coefficient_post", 0);
  for (int i = 0; i < o.count; ++i) {
    const Value x = c.in(2 + i), gradient = c.in(2 + o.count + i);
    const Value v = c.in(2 + 2 * o.count + i), h = c.in(2 + 3 * o.count + i);
    const Value g = e.add(e.mul(x, norm), gradient);
    const Value v2 = e.add(e.mul(v, alpha), e.mul(g, 1 - alpha));
    const Value h2 = e.add(e.mul(h, beta), e.mul(e.square(g), 1 - beta));
    const Value step = e.cast(o.step, x.dtype());
    const Value corrected = e.div(e.mul(o.rate, e.sqrt(e.sub(1, e.pow(e.like(beta, x), step)))),
                                  e.sub(1, e.pow(e.like(alpha, x), step)));
    const Value rate = e.select(e.less(step, 1), o.rate, corrected);
    const Value next = e.sub(x, e.div(e.mul(rate, v2), e.add(e.sqrt(h2), epsilon)));
    c.out(i, Item(e.mul(next, 1 - after)));
    c.out(o.count + i, Item(v2));
    c.out(2 * o.count + i, Item(h2));
  }
}

// Gradients of `y`, which is one number, at the tensors that `xs` and `zs` name.
void gradient(Context& c) {
  const auto named = [&](const std::string& name) {
    Item item = c.importer().lookup(name, c.scope());
    return c.importer().value(item, c.scope());
  };
  const Value y = named(c.attr_s("y", ""));
  if (!is_static(y.shape()) || numel(y.shape()) != 1) c.unsupported("a y of one element", str(y.type()));
  std::vector<std::string> names = c.attr_strings("xs");
  const std::size_t count = names.size();
  for (const std::string& z : c.attr_strings("zs")) names.push_back(z);
  std::vector<Value> xs;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const Value x = named(names[i]);
    if (!(c.in(static_cast<int>(i)) == x))
      c.unsupported("the tensors that xs and zs name as inputs", "another for '" + names[i] + "'");
    if (i < count) xs.push_back(x);
  }
  const Value ys[] = {y}, ones[] = {Value()};
  const std::vector<Value> results = gradients(*c.scope().graph, ys, ones, xs);
  for (std::size_t i = 0; i < count; ++i) {
    if (!results[i]) c.bad("a y that derives from xs", "'" + names[i] + "'");
    c.out(static_cast<int>(i), Item(results[i]));
  }
}

}  // namespace

void add_loss(Translators& t) {
  t.add("NegativeLogLikelihoodLoss", nll_loss);
  t.add("SoftmaxCrossEntropyLoss", softmax_cross_entropy);
  t.add("ai.onnx.preview.training:Adagrad", adagrad);
  t.add("ai.onnx.preview.training:Momentum", momentum);
  t.add("ai.onnx.preview.training:Adam", adam);
  t.add("ai.onnx.preview.training:Gradient", gradient);
}

}  // namespace deepseek::onnx_import
