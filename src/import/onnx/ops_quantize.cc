// Quantisation. Integers are exact; floats round half to even.
#include <algorithm>

#include "import/onnx/window.h"

namespace deepseek::onnx_import {

namespace {

struct Range {
  double low, high;
};
std::optional<Range> integer_range(DType t) {
  switch (t) {
    case DType::U8:
      return Range{0, 255};
    case DType::I8:
      return Range{-128, 127};
    case DType::U16:
      return Range{0, 65535};
    case DType::I16:
      return Range{-32768, 32767};
    case DType::U4:
      return Range{0, 15};
    case DType::I4:
      return Range{-8, 7};
    case DType::U2:
      return Range{0, 3};
    case DType::I2:
      return Range{-2, 1};
    default:
      return std::nullopt;
  }
}

// A scale or zero point made to broadcast with x: one number, one per element of an axis, or one per block.
Value spread(Context& c, Value v, Value x) {
  Emit& e = c.e;
  if (numel(v.shape()) == Dim(1)) return e.reshape(v, {});
  const std::int64_t block = c.attr("block_size", 0);
  const int axis = c.axis(c.attr("axis", 1), x.rank());
  if (block == 0) {
    if (v.rank() != 1) c.bad("a scalar or a vector", str(v.type()));
    return e.along_axis(v, axis, x.rank());
  }
  if (block < 0 || v.rank() != x.rank()) c.bad("a scale per block of the axis", str(v.type()));
  Shape repeated = v.shape(), joined = v.shape();
  repeated.insert(repeated.begin() + axis + 1, Dim(block));
  joined[static_cast<std::size_t>(axis)] = joined[static_cast<std::size_t>(axis)] * Dim(block);
  const Value all = e.reshape(e.broadcast_to(e.unsqueeze(v, axis + 1), repeated), joined);
  return joined == x.shape() ? all : e.slice_axis(all, axis, 0, x.dim(axis));
}

// round(x) + zero limited to the range of t, as t.
Value to_integer(Emit& e, Value x, Value zero, DType t) {
  const auto range = integer_range(t);
  if (!range)
    throw Error(Code::InvalidArgument, "", "", "a zero point of an integer type of 16 bits at most",
                std::string(name(t)));
  Value y = e.round(x);
  if (zero) y = e.add(y, e.cast(zero, y.dtype()));
  return e.cast(e.op("clamp", {y, e.like(range->low, y), e.like(range->high, y)}), t);
}

void quantize_linear(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), scale = c.in(1);
  const DType t = c.has(2) ? c.dtype(2) : c.attr_dtype("output_dtype", DType::U8);
  const DType precision = c.attr("precision", 0) != 0 ? c.attr_dtype("precision", DType::F32)
                          : x.dtype() == DType::F64   ? DType::F64
                                                      : DType::F32;
  const Value zero = c.has(2) ? spread(c, c.in(2), x) : Value();
  if (integer_range(t) && precision == DType::F32)
    return c.out(e.op("quantize", {e.cast(x, precision), e.cast(spread(c, scale, x), precision), zero},
                      {{"dtype", t}}));
  const Value ratio = e.div(e.cast(x, precision), e.cast(spread(c, scale, x), precision));
  if (integer_range(t)) return c.out(to_integer(e, ratio, zero, t));
  const double limit = t == DType::F8E4M3 ? 448 : t == DType::F8E5M2 ? 57344 : 6;
  if (t != DType::F8E4M3 && t != DType::F8E5M2 && t != DType::F4E2M1)
    c.unsupported("a quantised type", std::string(name(t)));
  const bool saturate = c.attr("saturate", 1) != 0 || t == DType::F4E2M1;
  c.out(e.cast(saturate ? e.op("clamp", {ratio, e.like(-limit, ratio), e.like(limit, ratio)}) : ratio, t));
}

void dequantize_linear(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), scale = c.in(1);
  const DType t =
      c.attr("output_dtype", 0) != 0 ? c.attr_dtype("output_dtype", scale.dtype()) : scale.dtype();
  const DType wide = t == DType::F64 ? DType::F64 : DType::F32;
  if (wide == DType::F32 && is_integer(x.dtype()))
    return c.out(e.cast(e.op("dequantize", {x, e.cast(spread(c, scale, x), wide),
                                            c.has(2) ? spread(c, c.in(2), x) : Value()}),
                        t));
  Value y = e.cast(x, wide);
  if (c.has(2) && is_integer(x.dtype())) y = e.sub(y, e.cast(spread(c, c.in(2), x), wide));
  c.out(e.cast(e.mul(y, e.cast(spread(c, scale, x), wide)), t));
}

void dynamic_quantize(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const Ints axes = all_axes(x);
  const Value high = e.maximum(e.max(x, axes, false), 0), low = e.minimum(e.reduce("min", x, axes, false), 0);
  const Value span = e.sub(high, low);
  const Value scale = e.div(e.select(e.equal(span, 0), 1, span), 255);
  const Value zero = e.round(e.op("clamp", {e.sub(0, e.div(low, scale)), e.like(0, x), e.like(255, x)}));
  c.out(0, Item(to_integer(e, e.div(x, scale), zero, DType::U8)));
  c.out(1, Item(scale));
  c.out(2, Item(e.cast(zero, DType::U8)));
}

// x - zero in int32; `axis` is the one that a vector of zero points belongs to.
Value centred(Context& c, Value x, int zero, int axis) {
  Emit& e = c.e;
  const Value wide = e.cast(x, DType::I32);
  if (!c.has(zero)) return wide;
  const Value z = e.cast(c.in(zero), DType::I32);
  if (numel(z.shape()) == Dim(1)) return e.sub(wide, e.reshape(z, {}));
  return e.sub(wide, z.rank() == 1 && axis >= 0 ? e.along_axis(z, axis, x.rank()) : z);
}

// Integers times scales, back to integers.
Value requantised(Context& c, Value total, Value ratio, int zero, DType otherwise) {
  Emit& e = c.e;
  const Value real = e.mul(e.cast(total, DType::F32), ratio);
  return to_integer(e, real, c.has(zero) ? e.reshape(c.in(zero), {}) : Value(),
                    c.has(zero) ? c.dtype(zero) : otherwise);
}

Value scalar_or(Emit& e, Value v, int axis, int rank) {
  v = e.cast(v, DType::F32);
  if (numel(v.shape()) == Dim(1)) return e.reshape(v, {});
  return v.rank() == 1 && axis >= 0 ? e.along_axis(v, axis, rank) : v;
}

void qlinear_matmul(Context& c) {
  Emit& e = c.e;
  const Value a = c.in(0), b = c.in(3);
  const Value total = e.matmul(centred(c, a, 2, a.rank() - 2), centred(c, b, 5, b.rank() - 1));
  const int rank = total.rank();
  const Value ratio =
      e.div(e.mul(scalar_or(e, c.in(1), rank - 2, rank), scalar_or(e, c.in(4), rank - 1, rank)),
            scalar_or(e, c.in(6), rank - 1, rank));
  c.out(requantised(c, total, ratio, 7, a.dtype()));
}

void qlinear_conv(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), w = c.in(3);
  const Value total = convolve(c, centred(c, x, 2, 1), centred(c, w, 5, 0), c.in_or(8, {}));
  const Value ratio = e.div(e.mul(scalar_or(e, c.in(1), 1, x.rank()), scalar_or(e, c.in(4), 1, x.rank())),
                            scalar_or(e, c.in(6), 1, x.rank()));
  c.out(requantised(c, total, ratio, 7, x.dtype()));
}

void matmul_integer(Context& c) {
  const Value a = c.in(0), b = c.in(1);
  c.out(c.e.matmul(centred(c, a, 2, a.rank() - 2), centred(c, b, 3, b.rank() - 1)));
}

void conv_integer(Context& c) {
  c.out(convolve(c, centred(c, c.in(0), 2, 1), centred(c, c.in(1), 3, 0), {}));
}

}  // namespace

void add_quantize(Translators& t) {
  t.add("QuantizeLinear", quantize_linear);
  t.add("DequantizeLinear", dequantize_linear);
  t.add("DynamicQuantizeLinear", dynamic_quantize);
  t.add("QLinearMatMul", qlinear_matmul);
  t.add("QLinearConv", qlinear_conv);
  t.add("MatMulInteger", matmul_integer);
  t.add("ConvInteger", conv_integer);
}

}  // namespace deepseek::onnx_import
