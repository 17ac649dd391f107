// The transposed convolution: the gradient of a convolution with respect to its input, as a layer.
#include "ops/conv.h"

namespace deepseek {
namespace {

using List = std::vector<std::int64_t>;

void fill_defaults(Node& n) {
  const auto count = static_cast<std::size_t>(std::max(0, n.in(0).rank() - 2));
  for (const char* key : {"strides", "dilation"}) fill_spatial(n, key, count, 1);
  for (const char* key : {"pad_low", "pad_high", "output_padding"}) fill_spatial(n, key, count, 0);
}

std::vector<Type> infer(const Node& n) {
  const Value x = n.in(0), w = n.in(1);
  const std::int64_t groups = integer(n, "groups");
  if (x.rank() < 2 || w.rank() != x.rank() || groups < 1 || !may_equal(x.dim(1), w.dim(0)) ||
      !may_equal(mod(w.dim(0), Dim(groups)), Dim(0)))
    bad_input(n, "x [N, I, ...] and kernel [I, O/groups, ...]", str(x.type()) + " and " + str(w.type()));
  Shape shape = {x.dim(0), w.dim(1) * Dim(groups)};
  for (int i = 2; i < x.rank(); ++i) {
    const auto k = static_cast<std::size_t>(i - 2);
    const Dim size = (x.dim(i) - 1) * Dim(ints(n, "strides")[k]) + dilated(w.dim(i), ints(n, "dilation")[k]) +
                     Dim(ints(n, "output_padding")[k]) - Dim(ints(n, "pad_low")[k]) -
                     Dim(ints(n, "pad_high")[k]);
    if (size.is_static() && size.value() < 0) bad_input(n, "a result of at least size 0", size.str());
    shape.push_back(size);
  }
  return {{x.dtype(), shape}};
}

std::vector<Value> conv_transpose(Graph& graph, const Node& n) {
  GraphBuilder g(graph);
  const Value x = n.in(0);
  Value w = n.in(1);
  const std::int64_t groups = integer(n, "groups");
  const int rank = x.rank();
  if (rank > 2) w = g.reverse(w, axes_range(2, rank));
  if (groups > 1) {
    // [G * i, o, ...] -> [i, G * o, ...]
    Shape split = w.shape(), merged = w.shape();
    split[0] = floordiv(split[0], Dim(groups));
    split.insert(split.begin(), Dim(groups));
    merged[0] = split[1];
    merged[1] = merged[1] * Dim(groups);
    auto perm = axes_range(0, rank + 1);
    std::swap(perm[0], perm[1]);
    w = g.reshape(g.transpose(g.reshape(w, split), perm), merged);
  }
  List low, high;
  for (int i = 2; i < rank; ++i) {
    const auto k = static_cast<std::size_t>(i - 2);
    const Dim taps = dilated(n.in(1).dim(i), ints(n, "dilation")[k]);
    if (!taps.is_static()) bad_input(n, "a kernel whose spatial dims are known", taps.str());
    low.push_back((taps - 1 - Dim(ints(n, "pad_low")[k])).value());
    high.push_back((taps - 1 - Dim(ints(n, "pad_high")[k]) + Dim(ints(n, "output_padding")[k])).value());
  }
  return {g.op("conv", {x, w},
               {{"input_dilation", ints(n, "strides")},
                {"kernel_dilation", ints(n, "dilation")},
                {"pad_low", low},
                {"pad_high", high},
                {"feature_groups", groups},
                {"kernel_layout", renamed(default_layout("OI", rank), "OI", "IO")}})};
}

}  // namespace

void add_conv_transpose_ops(OpTable& t) {
  t.add("conv_transpose")
      .doc(
          "The transposed convolution of x [N, I, ...] with a kernel [I, O/groups, ...]: each element of x "
          "adds its multiple of the kernel at stride distance; pad_low and pad_high are taken off the ends, "
          "output_padding is added at the end.")
      .input("x", Accepts::Number)
      .input("kernel", Accepts::Number)
      .attr("strides", AttrKind::Ints, List{}, "By spatial dim; empty: 1.")
      .attr("pad_low", AttrKind::Ints, List{}, "What is taken off the start, by spatial dim; empty: 0.")
      .attr("pad_high", AttrKind::Ints, List{}, "What is taken off the end, by spatial dim; empty: 0.")
      .attr("output_padding", AttrKind::Ints, List{}, "What is added at the end, by spatial dim; empty: 0.")
      .attr("dilation", AttrKind::Ints, List{},
            "Distance between the kernel's taps, by spatial dim; empty: 1.")
      .attr("groups", AttrKind::Int, std::int64_t{1}, "Parts of the channels that do not mix.")
      .normalize(fill_defaults)
      .infer(infer)
      .composed(conv_transpose);
}

}  // namespace deepseek
