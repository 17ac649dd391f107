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
  const auto limit = saturates_at(t);
  if (!limit) c.unsupported("a quantised type", std::string(name(t)));
  const bool saturate = c.attr("saturate", 1) != 0 || t == DType::F4E2M1;
  c.out(e.cast(saturate ? e.op("clamp", {ratio, e.like(-*limit, ratio), e.like(*limit, ratio)}) : ratio, t));
}

void dequantize_linear(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0), scale = c.in(1);
  const DType t =
      c.attr("output_dtype", 0) != 0 ? c.attr_dtype("output_dtype", scale.dtype()) : scale.dtype();
  const DType wide = t == DType::F64 ? DType::F64 : DType::F32;
  const std::int64_t block = c.attr("block_size", 0);
  if (block > 0 && wide == DType::F32 && is_integer(x.dtype()) && scale.rank() == x.rank())
    return c.out(e.cast(e.op("dequantize_blocks", {x, e.cast(scale, wide), c.has(2) ? c.in(2) : Value()},
                             {{"axis", std::int64_t{c.axis(c.attr("axis", 1), x.rank())}}, {"block", block}}),
                        t));
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

// Whole numbers of `bits` in bytes, low bits first, along the last axis: [..., n] of them.
Value unpacked(Context& c, Value bytes, std::int64_t bits, const Dim& n) {
  Emit& e = c.e;
  if (bytes.dtype() != DType::U8) c.bad("numbers packed in uint8", str(bytes.type()));
  const std::int64_t each = 8 / bits;
  Shape shape = bytes.shape();
  const int last = bytes.rank() - 1;
  if (each > 1) {
    const Value shifts =
        e.cast(e.mul(e.iota({Dim(each)}, DType::I64, 0), static_cast<double>(bits)), DType::U8);
    const Value parts = e.op("shift_right", {e.unsqueeze(bytes, last + 1), shifts});
    shape.back() = shape.back() * Dim(each);
    bytes = e.reshape(e.op("bit_and", {parts, e.like(static_cast<double>((1 << bits) - 1), parts)}), shape);
    bytes = e.cast(bytes, bits == 4 ? DType::U4 : DType::U2);
  }
  return n == shape.back() ? bytes : e.slice_axis(bytes, last, 0, n);
}

// ONNX Runtime's product with weights in 2, 4 or 8 bits: [N, blocks, bytes of a block], scales [N, blocks].
void matmul_nbits(Context& c) {
  Emit& e = c.e;
  const std::int64_t depth = c.need_attr("K"), columns = c.need_attr("N"), bits = c.attr("bits", 4),
                     block = c.need_attr("block_size");
  if (bits != 2 && bits != 4 && bits != 8) c.unsupported("2, 4 or 8 bits", std::to_string(bits));
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (depth < 1 || depth > kMost || columns < 1 || columns > kMost || block < 16 || block > kMost ||
      block % 8 != 0)
    c.bad("K and N of at least 1, a block_size of at least 16, whole bytes",
          std::to_string(depth) + ", " + std::to_string(columns) + ", " + std::to_string(block));
  if (c.has(4)) c.unsupported("rows in their order", "g_idx");
  const std::int64_t blocks = (depth + block - 1) / block;
  const Value packed = c.in(1), x = c.in(0);
  const Shape wanted = {columns, blocks, block * bits / 8};
  if (!(numel(packed.shape()) == numel(wanted)) || packed.dtype() != DType::U8)
    c.bad("B of uint8" + str(wanted), str(packed.type()));
  const auto turned = [&](Value v) { return e.transpose(v, {1, 0}); };
  const auto of_blocks = [&](Value v) { return turned(e.reshape(v, {columns, blocks})); };
  const Value whole =
      turned(unpacked(c, e.reshape(packed, {columns, blocks * block * bits / 8}), bits, depth));
  const Value scale = of_blocks(e.cast(c.in(2), DType::F32));
  const Attrs attrs = {{"axis", std::int64_t{0}}, {"block", block}};
  Value w;
  if (c.has(3) && is_float(c.dtype(3))) {
    const Value one = e.op("dequantize_blocks", {whole, e.full_like(scale, 1)}, attrs);
    const Value zeros = e.full(whole.shape(), 1, DType::I8);
    const Value spread_zero =
        e.op("dequantize_blocks", {zeros, of_blocks(e.cast(c.in(3), DType::F32))}, attrs);
    w = e.mul(e.sub(one, spread_zero), e.op("dequantize_blocks", {zeros, scale}, attrs));
  } else if (c.has(3)) {
    const std::int64_t row = (blocks * bits + 7) / 8;
    const Value zero = turned(unpacked(c, e.reshape(c.in(3), {columns, row}), bits, blocks));
    w = e.op("dequantize_blocks", {whole, scale, zero}, attrs);
  } else {
    const DType centred_type = bits == 8 ? DType::I8 : bits == 4 ? DType::I4 : DType::I2;
    const double middle = 1 << (bits - 1);
    const Value shifted = e.cast(e.sub(e.cast(whole, DType::I32), middle), centred_type);
    w = e.op("dequantize_blocks", {shifted, scale}, attrs);
  }
  Value y = e.matmul(e.cast(x, DType::F32), w);
  if (c.has(5)) y = e.add(y, e.cast(c.in(5), DType::F32));
  c.out(e.cast(y, x.dtype()));
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
  t.add("com.microsoft:MatMulNBits", matmul_nbits);
}

}  // namespace deepseek::onnx_import
