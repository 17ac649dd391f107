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
        const bool wide = bits(n.in(0).dtype()) > 16;
        const DType exact = wide ? DType::I64 : DType::I32;
        Expr q = loops::cast(exact, in[0]);
        if (n.has(2)) q = q - loops::cast(exact, in[2]);
        return loops::cast(in[1].type(), q) * in[1];
      });
}

}  // namespace deepseek
