// Random numbers. An executable gives the same results for the same inputs, so a node that draws must say its seed; equal
// seeds draw equal numbers, in each run. They are ours (Philox), not those of another runtime.
#include <bit>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

// Of "random_uniform" or "random_normal", in float32.
Value draw(Context& c, std::string_view op, const Shape& shape) {
  if (!c.has_attr("seed")) c.unsupported("a seed", "none");
  const std::int64_t seed =
      c.type() == "Dropout" ? c.attr("seed", 0) : std::bit_cast<std::int64_t>(c.attr_f("seed", 0));
  const std::int64_t key[] = {seed};
  return c.e.op(op, {c.e.constant(Tensor::of<std::int64_t>(DType::I64, {}, key)), c.e.scalar(0, DType::I64)},
                {{"shape", shape}, {"dtype", DType::F32}});
}

// Shape and dtype: attributes or, for RandomUniformLike and RandomNormalLike, those of the input.
Type drawn(Context& c) {
  const bool like = c.inputs() > 0;
  const DType dtype = c.attr_dtype("dtype", like ? c.dtype(0) : DType::F32);
  if (!is_float(dtype)) c.bad("a float dtype", std::string(name(dtype)));
  return {dtype, like ? c.shape(0) : to_shape(c.attr_ints("shape"))};
}

void uniform(Context& c) {
  const auto [dtype, shape] = drawn(c);
  const double low = c.attr_f("low", 0), high = c.attr_f("high", 1);
  c.out(c.e.cast(c.e.add(c.e.mul(draw(c, "random_uniform", shape), high - low), low), dtype));
}

void normal(Context& c) {
  const auto [dtype, shape] = drawn(c);
  const double mean = c.attr_f("mean", 0), scale = c.attr_f("scale", 1);
  c.out(c.e.cast(c.e.add(c.e.mul(draw(c, "random_normal", shape), scale), mean), dtype));
}

void bernoulli(Context& c) {
  const Value p = c.in(0);
  const Value ones = c.e.less(draw(c, "random_uniform", p.shape()), c.e.cast(p, DType::F32));
  c.out(c.e.cast(ones, c.attr_dtype("dtype", p.dtype())));
}

// The largest of the log-probabilities plus Gumbel noise is a sample of their distribution (Gumbel, 1954).
void multinomial(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (x.rank() != 2) c.bad("log-probabilities [batch, classes]", str(x.type()));
  const std::int64_t samples = c.attr("sample_size", 1);
  const Value u = draw(c, "random_uniform", {x.dim(0), samples, x.dim(1)});
  const Value noise = e.unary("neg", e.unary("log", e.unary("neg", e.unary("log", u))));
  const Value noisy = e.add(e.unsqueeze(e.cast(x, DType::F32), Ints{1}), noise);
  c.out(e.cast(e.op("argmax", {noisy}, {{"axis", std::int64_t{2}}}), c.attr_dtype("dtype", DType::I32)));
}

// Each element stays with a chance of 1 - ratio, and is divided by that; the second result says which stay.
void dropout(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (c.opset() < 7 && c.attr("is_test", 0) == 0) c.unsupported("is_test = 1", "random dropout");
  const bool training = c.opset() >= 12 && c.has(2) && c.need_int(2) != 0;
  const double ratio = training && c.has(1) ? c.need_real(1) : training ? 0.5 : 0;
  if (!(ratio >= 0 && ratio < 1)) c.bad("a ratio in [0, 1)", std::to_string(ratio));
  if (ratio == 0) {
    c.out(0, Item(x));
    if (c.wants(1)) c.out(1, Item(c.opset() < 10 ? e.full_like(x, 1) : e.full(x.shape(), 1, DType::Bool)));
    return;
  }
  const Value stays =
      e.op("greater_equal", {draw(c, "random_uniform", x.shape()), e.scalar(ratio, DType::F32)});
  c.out(0, Item(e.select(stays, e.div(x, 1 - ratio), 0)));
  if (c.wants(1)) c.out(1, Item(stays));
}

}  // namespace

void add_random(Translators& t) {
  t.add("RandomUniform", uniform);
  t.add("RandomUniformLike", uniform);
  t.add("RandomNormal", normal);
  t.add("RandomNormalLike", normal);
  t.add("Bernoulli", bernoulli);
  t.add("Multinomial", multinomial);
  t.add("Dropout", dropout);
}

}  // namespace deepseek::onnx_import
