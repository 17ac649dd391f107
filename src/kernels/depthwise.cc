// Depthwise convolution: each channel by itself, channels innermost. A task owns a row of results; vectors lie along the
// channels, and a strip of neighbouring results shares the taps and the columns of the input that it loads.
#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "ops/op.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kRegisters = 26;      // of results, columns and taps together, where there are 32
constexpr std::int64_t kUnrolledWidth = 16;  // rows up to this long: every strip by itself, borders known

struct Depthwise {
  const Node* conv = nullptr;
  std::int64_t height, width, channels;  // of the result
  std::int64_t taps_y, taps_x, stride;   // the stride along a row
};

// The group as one depthwise convolution and what is elementwise after it; nothing when it is something else.
std::optional<Depthwise> depthwise_of(const Group& g) {
  if (g.kind != GroupKind::Map) return std::nullopt;
  Depthwise d;
  for (const Node* n : g.members) {
    if (n->op->name == "conv" && d.conv == nullptr)
      d.conv = n;
    else if (n->op->pointwise() == nullptr && !is_view(*n))
      return std::nullopt;
  }
  if (d.conv == nullptr || !(d.conv->outputs[0].shape == g.domain)) return std::nullopt;
  const Node& n = *d.conv;
  if (n.in(0).rank() != 4 || n.outputs[0].dtype != DType::F32 || n.attr<std::int64_t>("batch_groups") != 1)
    return std::nullopt;
  if (n.attr<std::string>("input_layout") != "N01C" || n.attr<std::string>("output_layout") != "N01C")
    return std::nullopt;
  for (const std::int64_t x : n.attr<std::vector<std::int64_t>>("input_dilation"))
    if (x != 1) return std::nullopt;
  if (n.attr<std::vector<std::int64_t>>("kernel_dilation")[1] != 1) return std::nullopt;
  const Shape &x = n.in(0).shape(), &y = n.outputs[0].shape, &w = n.in(1).shape();
  const std::string& layout = n.attr<std::string>("kernel_layout");
  const Dim &down = w[layout.find('0')], &across = w[layout.find('1')];
  for (const Dim& s : {x[1], x[2], x[3], y[1], y[2], y[3], down, across})
    if (!s.is_static() || s.value() == 0) return std::nullopt;
  const std::int64_t groups = n.attr<std::int64_t>("feature_groups");
  if (x[3].value() != groups || y[3].value() != groups) return std::nullopt;
  d.height = y[1].value();
  d.width = y[2].value();
  d.channels = groups;
  d.taps_y = down.value();
  d.taps_x = across.value();
  d.stride = n.attr<std::vector<std::int64_t>>("strides")[1];
  return d;
}

// Results per strip: as many as the registers hold beside a row of taps, fewer where that divides a row.
std::int64_t strip_of(const Depthwise& d, const TargetInfo& target) {
  const std::int64_t registers = target.vector_bytes >= 64 ? kRegisters : kRegisters / 2;
  std::int64_t most = 1;
  while (most < 8 && (most + 1) + most * d.stride + 2 * d.taps_x <= registers) ++most;
  most = std::min(most, d.width);
  for (std::int64_t s = most; s * 2 > most; --s)
    if (d.width % s == 0) return s;
  return most;
}

class DepthwiseLowering {
 public:
  DepthwiseLowering(const Group& group, const Depthwise& d, const TargetInfo& target)
      : g_(group), d_(d), c_(contraction_of(*d.conv)), strip_(strip_of(d, target)) {}

  // Nothing when somebody in the group reads the convolution elsewhere than at the element that it makes.
  std::optional<Lowered> run() {
    Lowered result;
    result.temps = {Type{DType::F32, {Dim(d_.taps_y * d_.taps_x * d_.channels)}}};
    result.calls = {taps(result.temps[0]), convolve(result.temps[0])};
    result.calls[0].flops = Dim(d_.taps_y * d_.taps_x * d_.channels);  // elements moved
    result.calls[1].flops =
        d_.conv->outputs[0].shape[0] * Dim(d_.height * d_.width * d_.channels * d_.taps_y * d_.taps_x * 2);
    result.way = "depthwise";
    if (read_elsewhere_) return std::nullopt;
    return result;
  }

 private:
  // [tap][channel]
  Call taps(const Type& packed) {
    Assembly a(g_);
    const Axis y = make_axis("y", d_.taps_y), x = make_axis("x", d_.taps_x), c = make_axis("c", d_.channels);
    const std::vector<Expr> batch = {var(c.var)}, n = {0}, k = {var(y.var), var(x.var), 0};
    const Expr value = c_.right(a.scope(), batch, n, k, {});
    const Buffer out = a.temp(0, packed, Access::Write);
    const Expr index = (var(y.var) * d_.taps_x + var(x.var)) * d_.channels + var(c.var);
    std::vector<Stmt> body = a.scope().take_checks();
    body.push_back(stmt(Store{out, index, value, {}}));
    const std::vector<Axis> grid = {y, x};
    a.phase(parallel_over(grid, loop(c, LoopKind::Vector, block(std::move(body)))));
    return a.finish("taps_" + g_.name());
  }

  // The results from column `first` on.
  Stmt strip(Assembly& a, const Buffer& taps, const Expr& image, const Expr& row, const Expr& first,
             const Expr& channel) {
    std::vector<Stmt> stmts;
    std::vector<Expr> sums(static_cast<std::size_t>(strip_));
    const std::vector<Expr> batch = {channel};
    for (std::int64_t y = 0; y < d_.taps_y; ++y) {
      std::vector<Expr> columns, weights;
      for (std::int64_t x = 0; x < d_.taps_x; ++x)
        weights.push_back(let("w", load(taps, Expr((y * d_.taps_x + x) * d_.channels) + channel), stmts));
      for (std::int64_t x = 0; x < (strip_ - 1) * d_.stride + d_.taps_x; ++x) {
        // Column x is tap x % stride of the result x / stride, or a later tap of the strip's last one.
        const std::int64_t result = std::min(x / d_.stride, strip_ - 1);
        const std::vector<Expr> m = {image, row, first + result}, k = {y, x - result * d_.stride, 0};
        columns.push_back(let("x", c_.left(a.scope(), batch, m, k, {}), stmts));
      }
      for (std::int64_t r = 0; r < strip_; ++r)
        for (std::int64_t x = 0; x < d_.taps_x; ++x) {
          Expr& sum = sums[static_cast<std::size_t>(r)];
          const Expr &column = columns[static_cast<std::size_t>(r * d_.stride + x)],
                     &weight = weights[static_cast<std::size_t>(x)];
          sum = let("sum", sum.get() ? make(Op::Fma, {column, weight, sum}) : column * weight, stmts);
        }
    }
    std::vector<Stmt> checks = a.scope().take_checks();
    stmts.insert(stmts.begin(), checks.begin(), checks.end());
    for (std::int64_t r = 0; r < strip_; ++r) {
      const Expr sum = sums[static_cast<std::size_t>(r)];
      const std::vector<Expr> m = {image, row, first + r}, n = {0};
      const std::vector<Expr> coords = c_.result(batch, m, n);
      a.scope().bind(d_.conv->out(), [this, sum, coords](std::span<const Expr> at, const Expr&) {
        for (std::size_t i = 0; i < coords.size(); ++i)
          read_elsewhere_ =
              read_elsewhere_ || !(same(at[i], coords[i]) || d_.conv->outputs[0].shape[i] == Dim(1));
        return sum;
      });
      for (Stmt& s : store_outputs(a, g_, coords)) stmts.push_back(std::move(s));
    }
    return block(std::move(stmts));
  }

  Call convolve(const Type& packed) {
    Assembly a(g_);
    const Buffer taps = a.temp(0, packed, Access::Read);
    const Axis image = make_axis("image", expr_of(d_.conv->outputs[0].shape[0])),
               row = make_axis("row", d_.height), channel = make_axis("c", d_.channels);
    const std::int64_t strips = (d_.width + strip_ - 1) / strip_, last = d_.width - strip_;
    const auto at = [&](const Expr& first) {
      return split_on_predicates(strip(a, taps, var(image.var), var(row.var), first, var(channel.var)));
    };
    Stmt body;
    if (d_.width <= kUnrolledWidth) {
      std::vector<Stmt> all;
      for (std::int64_t s = 0; s < strips; ++s) all.push_back(at(std::min(s * strip_, last)));
      body = block(std::move(all));
    } else {
      const Axis s = make_axis("s", strips);
      const Expr first =
          d_.width % strip_ == 0 ? var(s.var) * strip_ : loops::min(var(s.var) * strip_, Expr(last));
      body = loop(s, LoopKind::Serial, at(first));
    }
    const std::vector<Axis> grid = {image, row};
    a.phase(parallel_over(grid, loop(channel, LoopKind::Vector, body)));
    return a.finish(g_.name());
  }

  const Group& g_;
  Depthwise d_;
  Contraction c_;
  std::int64_t strip_;
  bool read_elsewhere_ = false;
};

}  // namespace

std::optional<Lowered> lower_depthwise(const Group& group, const LoweringContext& context) {
  if (context.target.gpu_mapped) return std::nullopt;
  const auto d = depthwise_of(group);
  if (!d) return std::nullopt;
  return DepthwiseLowering(group, *d, context.target).run();
}

}  // namespace deepseek::kernels
