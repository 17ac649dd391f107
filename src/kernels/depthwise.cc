// Depthwise convolution: each channel by itself. A task owns a row of results.
#include "kernels/depthwise.h"

#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "ops/op.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kRegisters = 26;      // of results, columns and taps together, where there are 32
constexpr std::int64_t kUnrolledWidth = 16;  // rows up to this long: every strip by itself, borders known

}  // namespace

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

// As many as the registers hold beside a row of taps, fewer where that divides a row.
std::int64_t strip_of(const Depthwise& d, const TargetInfo& target) {
  const std::int64_t registers = target.vector_bytes >= 64 ? kRegisters : kRegisters / 2;
  std::int64_t most = 1;
  while (most < 8 && (most + 1) + most * d.stride + 2 * d.taps_x <= registers) ++most;
  most = std::min(most, d.width);
  for (std::int64_t s = most; s * 2 > most; --s)
    if (d.width % s == 0) return s;
  return most;
}

Type taps_type(const Depthwise& d) { return {DType::F32, {Dim(d.taps_y * d.taps_x * d.channels)}}; }

Call pack_taps(const Group& group, const Depthwise& d, int temp) {
  const Contraction contraction = contraction_of(*d.conv);
  Assembly a(group);
  const Axis y = make_axis("y", d.taps_y), x = make_axis("x", d.taps_x), c = make_axis("c", d.channels);
  const std::vector<Expr> batch = {var(c.var)}, n = {0}, k = {var(y.var), var(x.var), 0};
  const Expr value = contraction.right(a.scope(), batch, n, k, {});
  const Buffer out = a.temp(temp, taps_type(d), Access::Write);
  const Expr index = (var(y.var) * d.taps_x + var(x.var)) * d.channels + var(c.var);
  std::vector<Stmt> body = a.scope().take_checks();
  body.push_back(stmt(Store{out, index, value, {}}));
  const std::vector<Axis> grid = {y, x};
  a.phase(parallel_over(grid, loop(c, LoopKind::Vector, block(std::move(body)))));
  Call call = a.finish("taps_" + group.name());
  call.flops = Dim(d.taps_y * d.taps_x * d.channels);  // elements moved
  return call;
}

std::vector<Expr> strip_sums(const Depthwise& d, std::int64_t strip, const Buffer& taps, const Expr& channel,
                             const std::function<Expr(std::int64_t y, std::int64_t x)>& column,
                             std::vector<Stmt>& stmts) {
  std::vector<Expr> sums(static_cast<std::size_t>(strip));
  for (std::int64_t y = 0; y < d.taps_y; ++y) {
    std::vector<Expr> columns, weights;
    for (std::int64_t x = 0; x < d.taps_x; ++x)
      weights.push_back(let("w", load(taps, Expr((y * d.taps_x + x) * d.channels) + channel), stmts));
    for (std::int64_t x = 0; x < (strip - 1) * d.stride + d.taps_x; ++x)
      columns.push_back(let("x", column(y, x), stmts));
    for (std::int64_t r = 0; r < strip; ++r)
      for (std::int64_t x = 0; x < d.taps_x; ++x) {
        Expr& sum = sums[static_cast<std::size_t>(r)];
        const Expr &value = columns[static_cast<std::size_t>(r * d.stride + x)],
                   &weight = weights[static_cast<std::size_t>(x)];
        sum = let("sum", sum.get() ? make(Op::Fma, {value, weight, sum}) : value * weight, stmts);
      }
  }
  return sums;
}

// Column x is tap x % stride of the result x / stride, or a later tap of the strip's last one.
Expr strip_column(const Depthwise& d, const Contraction& c, Scope& scope, std::int64_t strip,
                  std::span<const Expr> first, const Expr& channel, std::int64_t y, std::int64_t x) {
  const std::int64_t result = std::min(x / d.stride, strip - 1);
  const std::vector<Expr> batch = {channel}, m = {first[0], first[1], first[2] + result},
                          k = {y, x - result * d.stride, 0};
  return c.left(scope, batch, m, k, {});
}

Stmt over_strips(const Depthwise& d, std::int64_t strip, const std::function<Stmt(const Expr& first)>& one) {
  const std::int64_t strips = (d.width + strip - 1) / strip, last = d.width - strip;
  if (d.width <= kUnrolledWidth) {
    std::vector<Stmt> all;
    for (std::int64_t s = 0; s < strips; ++s) all.push_back(one(std::min(s * strip, last)));
    return block(std::move(all));
  }
  const Axis s = make_axis("s", strips);
  const Expr first = d.width % strip == 0 ? var(s.var) * strip : loops::min(var(s.var) * strip, Expr(last));
  return loop(s, LoopKind::Serial, one(first));
}

namespace {

class DepthwiseLowering {
 public:
  DepthwiseLowering(const Group& group, const Depthwise& d, const TargetInfo& target)
      : g_(group), d_(d), c_(contraction_of(*d.conv)), strip_(strip_of(d, target)) {}

  // Nothing when somebody in the group reads the convolution elsewhere than at the element that it makes.
  std::optional<Lowered> run() {
    Lowered result;
    result.temps = {taps_type(d_)};
    result.calls = {pack_taps(g_, d_, 0), convolve()};
    result.calls[1].flops =
        d_.conv->outputs[0].shape[0] * Dim(d_.height * d_.width * d_.channels * d_.taps_y * d_.taps_x * 2);
    result.way = "depthwise";
    if (read_elsewhere_) return std::nullopt;
    return result;
  }

 private:
  // The results from column `first` on.
  Stmt strip(Assembly& a, const Buffer& taps, const Expr& image, const Expr& row, const Expr& first,
             const Expr& channel) {
    std::vector<Stmt> stmts;
    const std::vector<Expr> batch = {channel};
    const std::vector<Expr> at = {image, row, first};
    const auto column = [&](std::int64_t y, std::int64_t x) {
      return strip_column(d_, c_, a.scope(), strip_, at, channel, y, x);
    };
    const std::vector<Expr> sums = strip_sums(d_, strip_, taps, channel, column, stmts);
    std::vector<Stmt> checks = a.scope().take_checks();
    stmts.insert(stmts.begin(), checks.begin(), checks.end());
    for (std::int64_t r = 0; r < strip_; ++r) {
      const Expr sum = sums[static_cast<std::size_t>(r)];
      const std::vector<Expr> m = {image, row, first + r}, n = {0};
      const std::vector<Expr> coords = c_.result(batch, m, n);
      a.scope().bind(d_.conv->out(), [this, sum, coords](std::span<const Expr> read, const Expr&) {
        for (std::size_t i = 0; i < coords.size(); ++i)
          read_elsewhere_ =
              read_elsewhere_ || !(same(read[i], coords[i]) || d_.conv->outputs[0].shape[i] == Dim(1));
        return sum;
      });
      for (Stmt& s : store_outputs(a, g_, coords)) stmts.push_back(std::move(s));
    }
    return block(std::move(stmts));
  }

  Call convolve() {
    Assembly a(g_);
    const Buffer taps = a.temp(0, taps_type(d_), Access::Read);
    const Axis image = make_axis("image", expr_of(d_.conv->outputs[0].shape[0])),
               row = make_axis("row", d_.height), channel = make_axis("c", d_.channels);
    const Stmt body = over_strips(d_, strip_, [&](const Expr& first) {
      return split_on_predicates(strip(a, taps, var(image.var), var(row.var), first, var(channel.var)));
    });
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
