// Convolution. Its gradients are convolutions again, so both dilations, both kinds of groups and the layouts
// are part of it (the semantics of XLA's ConvGeneralDilated).
#include "ops/conv.h"

#include <algorithm>

namespace deepseek {
namespace {

struct ConvDims {
  Layout in, kernel, out;
  std::vector<Window> windows;
  std::int64_t feature_groups, batch_groups;
};

ConvDims conv_dims(const Node& n) {
  const int rank = n.in(0).rank();
  return {parse_layout(n, text(n, "input_layout"), "NC", rank),
          parse_layout(n, text(n, "kernel_layout"), "OI", rank),
          parse_layout(n, text(n, "output_layout"), "NC", rank),
          conv_windows(n),
          integer(n, "feature_groups"),
          integer(n, "batch_groups")};
}

void check_divides(const Node& n, const Dim& d, std::int64_t groups, const std::string& what) {
  if (!may_equal(mod(d, Dim(groups)), Dim(0)))
    bad_input(n, what + " that " + std::to_string(groups) + " groups divide", d.str());
}

std::vector<Type> infer_conv(const Node& n) {
  const Value x = n.in(0), w = n.in(1);
  if (x.rank() != w.rank() || x.rank() < 2)
    bad_input(n, "input and kernel of one rank, 2 or more", str(x.type()) + " and " + str(w.type()));
  const ConvDims c = conv_dims(n);
  const std::int64_t groups = c.feature_groups;
  if (groups < 1 || c.batch_groups < 1 || (groups > 1 && c.batch_groups > 1))
    bad_input(n, "groups of at least 1, of one kind only",
              std::to_string(groups) + " and " + std::to_string(c.batch_groups));
  const Dim &channels = x.dim(c.in.minor), &taken = w.dim(c.kernel.minor), &made = w.dim(c.kernel.major);
  if (!may_equal(channels, taken * Dim(groups)))
    bad_input(n, "a kernel that takes " + floordiv(channels, Dim(groups)).str() + " channels", str(w.type()));
  check_divides(n, made, groups * c.batch_groups, "output channels");
  check_divides(n, x.dim(c.in.major), c.batch_groups, "a batch");
  Shape shape(static_cast<std::size_t>(x.rank()));
  shape[static_cast<std::size_t>(c.out.major)] = floordiv(x.dim(c.in.major), Dim(c.batch_groups));
  shape[static_cast<std::size_t>(c.out.minor)] = made;
  for (std::size_t i = 0; i < c.windows.size(); ++i)
    shape[static_cast<std::size_t>(c.out.spatial[i])] = window_positions(c.windows[i]);
  return {{product_dtype(n), shape}};
}

Expr conv_element(const Node& n, Elements& e, std::span<const Expr> coords) {
  const ConvDims c = conv_dims(n);
  const Value x = n.in(0), w = n.in(1);
  const auto at = [](const Layout& layout, Expr major, Expr minor, std::span<const Expr> spatial) {
    std::vector<Expr> result(static_cast<std::size_t>(layout.rank()));
    result[static_cast<std::size_t>(layout.major)] = std::move(major);
    result[static_cast<std::size_t>(layout.minor)] = std::move(minor);
    for (std::size_t i = 0; i < spatial.size(); ++i)
      result[static_cast<std::size_t>(layout.spatial[i])] = spatial[i];
    return result;
  };
  const Dim &taken = w.dim(c.kernel.minor), &made = w.dim(c.kernel.major);
  const Expr out_channel = coords[static_cast<std::size_t>(c.out.minor)];
  Expr batch = coords[static_cast<std::size_t>(c.out.major)];
  if (c.batch_groups > 1) {
    const Expr group = loops::floordiv(out_channel, e.dim(floordiv(made, Dim(c.batch_groups))));
    batch = group * e.dim(floordiv(x.dim(c.in.major), Dim(c.batch_groups))) + batch;
  }
  std::vector<Expr> extents = {e.dim(taken)};
  for (const Window& window : c.windows) extents.push_back(e.dim(window.taps));
  return e.reduce(loops::Reducer::Sum, extents, [&](std::span<const Expr> r) {
    Expr channel = r[0];
    if (c.feature_groups > 1)
      channel =
          loops::floordiv(out_channel, e.dim(floordiv(made, Dim(c.feature_groups)))) * e.dim(taken) + channel;
    std::vector<Expr> places;
    Expr valid = loops::constant(DType::Bool, std::int64_t{1});
    for (std::size_t i = 0; i < c.windows.size(); ++i) {
      const WindowTap tap =
          window_tap(e, c.windows[i], coords[static_cast<std::size_t>(c.out.spatial[i])], r[i + 1]);
      places.push_back(tap.at);
      valid = valid && tap.valid;
    }
    const Expr zero = loops::zero(compute_type(x.dtype()));
    const DType t = compute_type(n.outputs[0].dtype);
    return loops::cast(t, element(e, n, 0, at(c.in, batch, channel, places), valid, zero)) *
           loops::cast(t, element(e, n, 1, at(c.kernel, out_channel, r[0], r.subspan(1))));
  });
}

// -- gradients
// -----------------------------------------------------------------------------------------------

// [.., groups * k, .., m, ..] -> [.., k, .., groups * m, ..]: the groups move from one axis to another.
Value move_groups(GraphBuilder& g, Value v, std::int64_t groups, int from, int to) {
  Shape split = v.shape();
  const auto f = static_cast<std::size_t>(from);
  const Dim rest = floordiv(split[f], Dim(groups));
  split[f] = rest;
  split.insert(split.begin() + from, Dim(groups));
  v = g.reshape(v, split);
  // After the split, axis i >= from stands at i + 1. Put the groups axis right before `to`.
  std::vector<std::int64_t> perm;
  Shape merged;
  for (int i = 0; i + 1 < v.rank(); ++i) {
    const int here = i >= from ? i + 1 : i;
    if (i == to) perm.push_back(from);
    perm.push_back(here);
    merged.push_back(i == to ? v.dim(here) * Dim(groups) : v.dim(here));
  }
  return g.reshape(g.transpose(v, perm), merged);
}

// How far the last position's window ends before the padded input does. Paddings are attributes, so where a
// symbolic dim decides, the largest or the smallest it can be: the gradient comes out too large then and is
// cut.
std::int64_t room_left(const Window& w, bool largest) {
  const Dim room = dilated(w.input, w.input_dilation) + Dim(w.low + w.high) - dilated(w.taps, w.dilation);
  if (w.stride == 1) return 0;
  if (room.is_static()) return room.value() < 0 ? 0 : room.value() % w.stride;
  return largest ? w.stride - 1 : 0;
}

// (size of a dilated kernel) as a number; kernels of symbolic size have no gradient in closed form here.
std::int64_t static_taps(const Node& n, const Window& w) {
  const Dim d = dilated(w.taps, w.dilation);
  if (!d.is_static()) bad_input(n, "a kernel whose spatial dims are known, for a gradient", w.taps.str());
  return d.value();
}

Value cut(GraphBuilder& g, Value v, const std::vector<int>& axes, const std::vector<Dim>& sizes) {
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (!(v.dim(axes[i]) == sizes[i])) v = g.slice(v, axes[i], Dim(0), sizes[i]);
  return v;
}

Attrs conv_attrs(const std::vector<Window>& windows, std::string in, std::string kernel, std::string out,
                 std::int64_t feature_groups, std::int64_t batch_groups) {
  std::vector<std::int64_t> strides, low, high, input_dilation, dilation;
  for (const Window& w : windows) {
    strides.push_back(w.stride);
    low.push_back(w.low);
    high.push_back(w.high);
    input_dilation.push_back(w.input_dilation);
    dilation.push_back(w.dilation);
  }
  return {{"strides", strides},
          {"pad_low", low},
          {"pad_high", high},
          {"input_dilation", input_dilation},
          {"kernel_dilation", dilation},
          {"feature_groups", feature_groups},
          {"batch_groups", batch_groups},
          {"input_layout", std::move(in)},
          {"kernel_layout", std::move(kernel)},
          {"output_layout", std::move(out)}};
}

// dy slides over the kernel turned round: strides and input dilations change places.
Value input_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const ConvDims c = conv_dims(n);
  const std::int64_t groups = std::max(c.feature_groups, c.batch_groups);
  Value kernel = n.in(1);
  if (groups > 1) kernel = move_groups(g, kernel, groups, c.kernel.major, c.kernel.minor);
  std::vector<std::int64_t> spatial(c.kernel.spatial.begin(), c.kernel.spatial.end());
  if (!spatial.empty()) kernel = g.reverse(kernel, spatial);
  std::vector<Window> windows;
  std::vector<Dim> sizes;
  for (const Window& w : c.windows) {
    const std::int64_t taps = static_taps(n, w);
    Window back;
    back.stride = w.input_dilation;
    back.input_dilation = w.stride;
    back.dilation = w.dilation;
    back.low = taps - 1 - w.low;
    // Positions of the forward window end `room` before the padded input does.
    back.high = taps - 1 - w.high + room_left(w, true);
    windows.push_back(back);
    sizes.push_back(w.input);
  }
  const std::string kernel_layout = renamed(text(n, "kernel_layout"), "OI", "IO");
  Value dx =
      g.op("conv", {dy, kernel},
           conv_attrs(windows, text(n, "output_layout"), kernel_layout, text(n, "input_layout"), groups, 1));
  if (c.batch_groups > 1) dx = move_groups(g, dx, groups, c.in.minor, c.in.major);
  return cut(g, dx, c.in.spatial, sizes);
}

// The input slides over dy, which takes the kernel's place: batch and channels change places, and so do
// strides and kernel dilations.
Value kernel_gradient(GraphBuilder& g, const Node& n, Value dy) {
  const ConvDims c = conv_dims(n);
  if (numel(dy.shape()) == Dim(0)) return g.full_like(n.in(1), 0.0);
  std::vector<Window> windows;
  std::vector<Dim> sizes;
  for (const Window& w : c.windows) {
    Window back;
    back.stride = w.dilation;
    back.input_dilation = w.input_dilation;
    back.dilation = w.stride;
    back.low = w.low;
    back.high = w.high - room_left(w, false);
    windows.push_back(back);
    sizes.push_back(w.taps);
  }
  const Value dw =
      g.op("conv", {n.in(0), dy},
           conv_attrs(windows, renamed(text(n, "input_layout"), "NC", "CN"),
                      renamed(text(n, "output_layout"), "NC", "IO"),
                      renamed(text(n, "kernel_layout"), "OI", "CN"), c.batch_groups, c.feature_groups));
  return cut(g, dw, c.kernel.spatial, sizes);
}

void fill_defaults(Node& n) {
  const int rank = n.in(0).rank();
  const auto layout = [&](const char* key, std::string_view letters) {
    auto& given = std::get<std::string>(n.attrs.at(key));
    if (given.empty()) given = default_layout(letters, rank);
  };
  layout("input_layout", "NC");
  layout("kernel_layout", "OI");
  layout("output_layout", "NC");
  const auto count = static_cast<std::size_t>(std::max(0, rank - 2));
  for (const char* key : {"strides", "input_dilation", "kernel_dilation"}) fill_spatial(n, key, count, 1);
  for (const char* key : {"pad_low", "pad_high"}) fill_spatial(n, key, count, 0);
}

}  // namespace

void add_conv_ops(OpTable& t) {
  using List = std::vector<std::int64_t>;
  t.add("conv")
      .doc(
          "y[n, o, p] = sum over c, k of x[n, g*I + c, p*stride + k*kernel_dilation - pad_low] * w[o, c, "
          "k], x having input_dilation - 1 zeros between neighbours and zeros outside; g is o's feature "
          "group. Batch group b of B reads part b of the batch and writes part b of the output channels. "
          "Negative paddings crop. uint8 by int8 gives int32.")
      .input("x", Accepts::Number)
      .input_free("kernel", Accepts::Number)
      .attr("strides", AttrKind::Ints, List{}, "By spatial dim; empty: 1.")
      .attr("pad_low", AttrKind::Ints, List{}, "Zeros before, by spatial dim; empty: 0.")
      .attr("pad_high", AttrKind::Ints, List{}, "Zeros after, by spatial dim; empty: 0.")
      .attr("input_dilation", AttrKind::Ints, List{}, "By spatial dim; empty: 1.")
      .attr("kernel_dilation", AttrKind::Ints, List{}, "By spatial dim; empty: 1.")
      .attr("feature_groups", AttrKind::Int, std::int64_t{1}, "Parts of the channels that do not mix.")
      .attr("batch_groups", AttrKind::Int, std::int64_t{1}, "Parts of the batch with kernels of their own.")
      .attr("input_layout", AttrKind::String, std::string(),
            "Axes of x; empty: \"NC01\" for rank 4, and so on.")
      .attr("kernel_layout", AttrKind::String, std::string(),
            "Axes of the kernel; empty: \"OI01\" for rank 4.")
      .attr("output_layout", AttrKind::String, std::string(),
            "Axes of the result; empty: \"NC01\" for rank 4.")
      .normalize(fill_defaults)
      .infer(infer_conv)
      .indexed(conv_element)
      .gradient([](Graph& graph, const Node& n, std::span<const Value> dys, const std::vector<bool>& needed) {
        std::vector<Value> result(2);
        GraphBuilder g(graph);
        if (needed[0] && dys[0]) result[0] = input_gradient(g, n, dys[0]);
        if (needed[1] && dys[0]) result[1] = kernel_gradient(g, n, dys[0]);
        return result;
      });
}

}  // namespace deepseek
