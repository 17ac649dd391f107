// Quantisation: integers that stand for floats. Passes fold the pair into kernels.
#include <algorithm>
#include <limits>

#include "ops/entries.h"

namespace deepseek {
namespace {

struct Range {
  double low, high;
};
Range range_of(DType t) {
  const double size = static_cast<double>(std::int64_t{1} << bits(t));
  return is_signed(t) ? Range{-size / 2, size / 2 - 1} : Range{0, size - 1};
}

// Whether x joined with another shape keeps its own. A symbol of x is taken to be what it meets.
bool keeps_shape(const Shape& x, const Shape& joined) {
  return std::ranges::equal(x, joined, [](const Dim& a, const Dim& b) { return !a.is_static() || a == b; });
}

// scale and zero_point broadcast to x.
std::vector<Type> infer(const Node& n, DType result) {
  for (int i = 1; i <= 2; ++i) {
    if (!n.has(i)) continue;
    const auto joined = broadcast_assuming(n.in(0).shape(), n.in(i).shape());
    if (!joined || !keeps_shape(n.in(0).shape(), *joined))
      bad_input(n,
                "'" + n.op->inputs[static_cast<std::size_t>(i)].name + "' that broadcasts to " +
                    str(n.in(0).shape()),
                str(n.in(i).type()));
  }
  return {{result, n.in(0).shape()}};
}

// Where differences of two numbers of this type are exact.
DType exact_type(DType t) { return bits(t) > 16 ? DType::I64 : DType::I32; }
Expr real(const Expr& whole, const Expr& scale) { return loops::cast(scale.type(), whole) * scale; }

}  // namespace

void add_quantize_ops(OpTable& t) {
  t.add("quantize")
      .doc("round(x / scale) + zero_point, halves to even, limited to the integer dtype's range.")
      .input("x", Accepts::Float)
      .input("scale", Accepts::Float)
      .input_optional("zero_point", Accepts::Integer, true)
      .attr("dtype", AttrKind::DType, DType::I8, "The integer dtype, 16 bits at most.")
      .infer([](const Node& n) {
        const DType to = n.attr<DType>("dtype");
        if (!is_integer(to) || bits(to) > 16)
          bad_input(n, "an integer dtype of 16 bits at most", std::string(name(to)));
        if (n.has(2) && n.in(2).dtype() != to)
          bad_input(n, "zero_point of " + std::string(name(to)), str(n.in(2).type()));
        return infer(n, to);
      })
      .pointwise([](const Node& n, std::span<const Expr> in) {
        const DType to = n.attr<DType>("dtype");
        Expr q = loops::make(loops::Op::Round, {in[0] / in[1]});
        if (n.has(2)) q = q + loops::cast(q.type(), in[2]);
        const Range r = range_of(to);
        return loops::cast(compute_type(to), loops::min(loops::max(q, Expr(r.low)), Expr(r.high)));
      });
  t.add("dequantize")
      .doc("(x - zero_point) * scale, in scale's dtype.")
      .input_free("x", Accepts::Integer)
      .input_free("scale", Accepts::Float)
      .input_optional("zero_point", Accepts::Integer, true)
      .infer([](const Node& n) {
        if (n.has(2) && n.in(2).dtype() != n.in(0).dtype())
          bad_input(n, "zero_point of " + std::string(name(n.in(0).dtype())), str(n.in(2).type()));
        return infer(n, n.in(1).dtype());
      })
      .pointwise([](const Node& n, std::span<const Expr> in) {
        const DType exact = exact_type(n.in(0).dtype());
        Expr q = loops::cast(exact, in[0]);
        if (n.has(2)) q = q - loops::cast(exact, in[2]);
        return real(q, in[1]);
      });
  t.add("dequantize_blocks")
      .doc(
          "(x - zero_point) * scale, in scale's dtype, where `block` neighbours along `axis` share a scale "
          "and a zero point (the last block may have fewer).")
      .input_free("x", Accepts::Integer)
      .input_free("scale", Accepts::Float)
      .input_optional("zero_point", Accepts::Integer, true)
      .attr("axis", AttrKind::Int, std::int64_t{-1}, "The axis that blocks divide.")
      .attr("block", AttrKind::Int, "Elements of a block.")
      .infer([](const Node& n) {
        const std::int64_t block = integer(n, "block");
        if (block < 1) bad_input(n, "a block of at least one element", std::to_string(block));
        Shape blocks = n.in(0).shape();
        Dim& d = blocks[static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()))];
        d = ceildiv(d, block);
        for (int i = 1; i <= 2; ++i)
          if (n.has(i) && !(n.in(i).shape() == blocks))
            bad_input(n, "'" + n.op->inputs[static_cast<std::size_t>(i)].name + "' of " + str(blocks),
                      str(n.in(i).type()));
        if (n.has(2) && n.in(2).dtype() != n.in(0).dtype())
          bad_input(n, "zero_point of " + std::string(name(n.in(0).dtype())), str(n.in(2).type()));
        return std::vector<Type>{{n.in(1).dtype(), n.in(0).shape()}};
      })
      .indexed([](const Node& n, Elements& e, std::span<const Expr> coords) {
        std::vector<Expr> of_block(coords.begin(), coords.end());
        Expr& at = of_block[static_cast<std::size_t>(normalize_axis(n, integer(n, "axis"), n.in(0).rank()))];
        at = floordiv(at, integer(n, "block"));
        const DType exact = exact_type(n.in(0).dtype());
        Expr q = loops::cast(exact, element(e, n, 0, coords));
        if (n.has(2)) q = q - loops::cast(exact, element(e, n, 2, of_block));
        return real(q, element(e, n, 1, of_block));
      });
}

}  // namespace deepseek
