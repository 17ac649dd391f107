// An inverted residual (Sandler et al., "MobileNetV2", 2018) as one kernel: a 1x1 convolution that expands, a depthwise
// one, a 1x1 one that projects; either of the outer two may be lacking. A task owns neighbouring rows of results of one
// image and computes them one after another. It keeps the rows of the expanded tensor that a row of windows needs in a
// ring, with their border of zeros, so that each is computed once; a row of the depthwise result is multiplied at once.
// What is wide never leaves the second cache.
#include "kernels/cascade.h"

#include <algorithm>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/depthwise.h"
#include "kernels/gemm_blocking.h"
#include "kernels/panels.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

// What a tap costs beside a multiply-add of a tile: its column and its weight are loaded.
constexpr double kTapCost = 2;
constexpr double kReadAgain = 1;  // and an element of the weights that comes from the second cache
// What an element costs that one kernel writes to memory beyond the second cache and another reads there, in lines of
// weights: writing takes a line as well.
constexpr double kMoves = 3;

// A 1x1 convolution, a row of an image at a time.
struct Product {
  const Group* group;
  Contraction c;
  Blocking b;

  const Dim& depth() const { return c.k.back(); }
  const Dim& columns() const { return c.n[0]; }
};

class CascadeLowering {
 public:
  // `d`: the part in the middle.
  CascadeLowering(const Group& group, const Depthwise& d, const TileShape& tile,
                  const LoweringContext& context)
      : g_(group),
        d_(d),
        c_(contraction_of(*d.conv)),
        target_(context.target),
        strip_(strip_of(d, context.target)) {
    const Node& n = *d.conv;
    height_ = n.in(0).dim(1).value();
    width_ = n.in(0).dim(2).value();
    step_ = n.attr<std::vector<std::int64_t>>("strides")[0];
    dilation_ = n.attr<std::vector<std::int64_t>>("kernel_dilation")[0];
    pad_y_ = n.attr<std::vector<std::int64_t>>("pad_low")[0];
    pad_x_ = n.attr<std::vector<std::int64_t>>("pad_low")[1];
    window_ = (d.taps_y - 1) * dilation_ + 1;
    ring_width_ = std::max(pad_x_ + width_, (d.width - 1) * d.stride + d.taps_x);
    row_stride_ = ceil_of(d.channels, kRowPadding) * kRowPadding + kRowPadding;
    const auto product = [&](const Group& part, std::int64_t width) {
      const Contraction c = contraction_of(*part.anchor);
      return Product{&part, c, block_for(width, width, c.n[0], c.k.back(), 1, tile, context.target, 1)};
    };
    for (const Group& part : g_.parts) {
      if (part.kind == GroupKind::Map)
        middle_ = &part;
      else if (middle_)
        project_ = product(part, d.width);
      else
        expand_ = product(part, width_);
    }
    const Dim images = n.outputs[0].shape[0];
    const std::int64_t tasks =
        ceil_of(context.threads, images.is_static() ? std::max<std::int64_t>(images.value(), 1) : 1);
    rows_ = ceil_of(d.height, std::min(tasks, d.height));
  }

  bool is_possible() const {
    if (pad_y_ < 0 || pad_x_ < 0) return false;
    if (expand_ && !left_row(0, 0)) return false;
    return 4 * (ring_elements() + d_.width * row_stride_) <= target_.l2_bytes / 2;
  }

  double cost() const {
    const std::int64_t tasks = ceil_of(d_.height, rows_),
                       expanded = std::min(height_, step_ * (rows_ - 1) + window_) * tasks;
    double result = taps_cost();
    if (expand_) result += product_cost(*expand_, expanded, width_);
    if (project_) result += product_cost(*project_, d_.height, d_.width);
    return result;
  }

  // What lies between parts that are kernels of their own and does not stay in the second cache, in multiply-adds.
  double cost_of_memory() const {
    double result = 0;
    const auto add = [&](std::int64_t elements) {
      const double all = images() * static_cast<double>(elements);
      if (all * 4 > static_cast<double>(target_.l2_bytes) / 2)
        result += kMoves * all * static_cast<double>(target_.vector_bytes) / 2;
    };
    if (expand_) add(height_ * width_ * d_.channels);
    if (project_) add(d_.height * d_.width * d_.channels);
    return result;
  }
  double taps_cost() const {
    return kTapCost * images() *
           static_cast<double>(d_.height * d_.width * d_.channels * d_.taps_y * d_.taps_x);
  }

  Lowered run() {
    Lowered result;
    result.temps = {taps_type(d_)};
    result.calls = {pack_taps(*middle_, d_, 0)};
    result.calls[0].program.name = "taps_" + g_.name();
    const auto pack = [&](const char* name, const Product& p) {
      const int temp = static_cast<int>(result.temps.size());
      result.temps.push_back(panels_type(p.c, p.b.nr, DType::F32));
      result.calls.push_back(pack_panels(*p.group, p.c, p.b.nr, result.temps.back(), temp, target_));
      result.calls.back().flops = numel(result.temps.back().shape);  // elements moved
      result.calls.back().program.name = name + g_.name();
    };
    if (expand_) pack("expand_", *expand_);
    if (project_) pack("project_", *project_);
    result.calls.push_back(cascade(result.temps));
    Dim flops = d_.height * d_.width * d_.channels * d_.taps_y * d_.taps_x;
    if (expand_) flops = flops + height_ * width_ * expand_->depth() * expand_->columns();
    if (project_) flops = flops + d_.height * d_.width * project_->depth() * project_->columns();
    result.calls.back().flops = d_.conv->outputs[0].shape[0] * flops * 2;
    result.way = "cascade";
    return result;
  }

 private:
  std::int64_t ring_row() const { return ring_width_ * d_.channels; }
  std::int64_t ring_elements() const { return expand_ ? window_ * ring_row() : 0; }
  double images() const {
    return static_cast<double>(size_where(kSupposedSize, d_.conv->outputs[0].shape[0]));
  }
  // Of so many rows in each image. Weights that the first cache does not hold are read for each row.
  double product_cost(const Product& p, std::int64_t rows, std::int64_t width) const {
    const std::int64_t vectors = std::max<std::int64_t>(p.b.nr * 4 / target_.vector_bytes, 1),
                       weights = ceil_of(p.columns().value(), p.b.nr) * p.b.nr * p.depth().value();
    const double again = 4 * weights > target_.l1_bytes / 2 ? kReadAgain : 0;
    const double multiplies =
        images() * static_cast<double>(rows * weights) * (tile_cost(width, p.b.mr, vectors) + again);
    return cost_of(multiplies, static_cast<double>(weights), target_);
  }

  // Row y of what is expanded, in memory: element (x, k) is buffer[first + x * stride + k].
  struct Row {
    Buffer buffer;
    Expr first;
    std::int64_t stride;
  };
  std::optional<Row> left_row(Scope& scope, const Expr& image, const Expr& y) const {
    const Axis x = make_axis("x", width_), k = make_axis("k", expr_of(expand_->depth()));
    const std::vector<Expr> m = {image, y, var(x.var)}, depth = {0, 0, var(k.var)};
    const Expr e = expand_->c.left(scope, {}, m, depth, {});
    if (e.op() != Op::Load || e->args.size() != 1 || e.type() != DType::F32) return std::nullopt;
    const auto by_x = coefficient(e->args[0], x.var), by_k = coefficient(e->args[0], k.var);
    if (!by_x || !by_x->int_value() || !by_k || by_k->int_value() != 1) return std::nullopt;
    const Var from[] = {x.var, k.var};
    const Expr to[] = {0, 0};
    return Row{e->buffer, substitute(e->args[0], from, to), *by_x->int_value()};
  }
  std::optional<Row> left_row(const Expr& image, const Expr& y) const {
    Assembly a(*expand_->group);
    return left_row(a.scope(), image, y);
  }

  // The columns of `p` for `width` neighbours, read from row.first on; `stores` (i, column) says what becomes of sums.
  Stmt multiply(Scope& scope, const Product& p, const Row& row, std::int64_t width, const Buffer& panels,
                const std::function<std::vector<Stmt>(const Expr& at, const Expr& column)>& stores) const {
    const auto piece = [](const char* name, std::int64_t rows, std::int64_t cols) {
      return std::make_shared<const TileNode>(TileNode{name, DType::F32, rows, cols});
    };
    const std::int64_t mr = p.b.mr, nr = p.b.nr;
    const Tile c = piece("c", mr, nr), x = piece("a", mr, 1), y = piece("b", 1, nr);
    const Axis panel = make_axis("panel", p.b.panels), t = make_axis("t", ceil_of(width, mr)),
               k = make_axis("k", expr_of(p.depth()));
    const Var first = make_var("first"), i = loop_var("i", mr), j = loop_var("j", nr),
              sum = make_var("x", DType::F32);
    const Expr column = var(panel.var) * nr, right = (var(panel.var) * expr_of(p.depth()) + var(k.var)) * nr;
    scope.bind(p.group->anchor->out(), [sum](std::span<const Expr>, const Expr&) { return var(sum); });
    const bool whole = p.columns().value() % nr == 0;
    const Expr columns = whole ? Expr(nr) : loops::min(Expr(nr), expr_of(p.columns()) - column);
    const Stmt step = block({stmt(TileLoad{x, row.buffer, row.first + var(first) * row.stride + var(k.var),
                                           row.stride, 1, mr, 1}),
                             stmt(TileLoad{y, panels, right, nr, 1, 1, nr}), stmt(TileMma{c, x, y})});
    const Stmt tile = block(
        {stmt(Let{first, width % mr == 0 ? var(t.var) * mr : loops::min(var(t.var) * mr, Expr(width - mr))}),
         stmt(TileAlloc{c}), stmt(TileAlloc{x}), stmt(TileAlloc{y}), stmt(TileFill{c, zero(DType::F32)}),
         loop(k, LoopKind::Serial, step),
         stmt(TileStore{c, i, j, sum, mr, columns, block(stores(var(first) + var(i), column + var(j)))})});
    return loop(panel, LoopKind::Serial, loop(t, LoopKind::Serial, tile));
  }

  Stmt fill_zeros(const Buffer& to, const Expr& first, std::int64_t count) const {
    const Axis i = make_axis("z", count);
    return loop(i, LoopKind::Vector, stmt(Store{to, first + var(i.var), zero(DType::F32), {}}));
  }

  // Where row p of the bordered image is in the ring.
  Expr place_of(const Expr& p) const { return mod(p, window_) * ring_row(); }

  // Row p of the bordered image, expanded.
  Stmt expand_row(Assembly& a, const Buffer& ring, const Buffer& panels, const Expr& image,
                  const Expr& p) const {
    const Var place = make_var("place"), bordered = make_var("p"), y = loop_var("y", height_);
    Scope& scope = a.scope();
    const auto stores = [&](const Expr& x, const Expr& column) {
      const std::vector<Expr> at = {image, var(y), x}, n = {column};
      const Value v = expand_->group->outputs[0];
      const Expr value = scope.at(v, expand_->c.result({}, at, n));
      std::vector<Stmt> stmts = scope.take_checks();
      stmts.push_back(stmt(Store{ring, var(place) + (x + pad_x_) * d_.channels + column, value, {}}));
      return stmts;
    };
    const Stmt row = multiply(scope, *expand_, *left_row(scope, image, var(y)), width_, panels, stores);
    const Expr inside = var(bordered) >= pad_y_ && var(bordered) < pad_y_ + height_;
    return block({stmt(Let{bordered, p}), stmt(Let{place, place_of(var(bordered))}),
                  stmt(If{inside, block({stmt(Let{y, var(bordered) - pad_y_}), row}),
                          fill_zeros(ring, var(place) + pad_x_ * d_.channels, width_ * d_.channels)})});
  }

  // Row y of the depthwise result: to memory or, where it is multiplied, into `to`.
  Stmt convolve_row(Assembly& a, const Buffer& ring, const Buffer& taps, const Buffer& to, const Expr& image,
                    const Expr& y) const {
    Scope& scope = a.scope();
    const Axis channel = make_axis("c", d_.channels);
    const std::vector<Expr> batch = {var(channel.var)}, n = {0};
    std::vector<Stmt> row;
    std::vector<Expr> places;
    for (std::int64_t tap = 0; ring && tap < d_.taps_y; ++tap)
      places.push_back(let("place", place_of(y * step_ + tap * dilation_), row));
    const auto strip = [&](const Expr& first) {
      const std::vector<Expr> at = {image, y, first};
      const auto column = [&](std::int64_t tap, std::int64_t x) {
        return ring ? load(ring, places[static_cast<std::size_t>(tap)] +
                                     (first * d_.stride + x) * d_.channels + var(channel.var))
                    : strip_column(d_, c_, scope, strip_, at, var(channel.var), tap, x);
      };
      std::vector<Stmt> stmts;
      const std::vector<Expr> sums = strip_sums(d_, strip_, taps, var(channel.var), column, stmts);
      std::vector<Stmt> checks = scope.take_checks();
      stmts.insert(stmts.begin(), checks.begin(), checks.end());
      for (std::int64_t r = 0; r < strip_; ++r) {
        const std::vector<Expr> m = {image, y, first + r}, coords = c_.result(batch, m, n);
        scope.bind(d_.conv->out(), [sum = sums[static_cast<std::size_t>(r)]](std::span<const Expr>,
                                                                             const Expr&) { return sum; });
        if (!to) {
          for (Stmt& s : store_outputs(a, *middle_, coords)) stmts.push_back(std::move(s));
          continue;
        }
        const Expr value = scope.at(middle_->outputs[0], coords);
        for (Stmt& check : scope.take_checks()) stmts.push_back(std::move(check));
        stmts.push_back(stmt(Store{to, (first + r) * row_stride_ + var(channel.var), value, {}}));
      }
      return split_on_predicates(block(std::move(stmts)));
    };
    row.push_back(loop(channel, LoopKind::Vector, over_strips(d_, strip_, strip)));
    return block(std::move(row));
  }

  Call cascade(std::span<const Type> temps) const {
    Assembly a(g_);
    const Buffer taps = a.temp(0, temps[0], Access::Read);
    const Axis image = make_axis("image", expr_of(d_.conv->outputs[0].shape[0])),
               part = make_axis("part", ceil_of(d_.height, rows_));
    const Expr first_row = var(part.var) * rows_;
    std::vector<Stmt> task, one;
    const Axis i =
        make_axis("i", d_.height % rows_ == 0 ? Expr(rows_) : loops::min(Expr(rows_), d_.height - first_row));
    const Expr y = let("row", first_row + var(i.var), one);
    Buffer ring, row;
    if (expand_) {
      ring = make_buffer("ring", DType::F32, Space::Shared, ring_elements());
      task.push_back(stmt(Alloc{ring}));
      const Buffer panels = a.temp(1, temps[1], Access::Read);
      const Axis slot = make_axis("slot", window_);
      const std::int64_t right = pad_x_ + width_;
      task.push_back(loop(slot, LoopKind::Serial,
                          block({fill_zeros(ring, var(slot.var) * ring_row(), pad_x_ * d_.channels),
                                 fill_zeros(ring, var(slot.var) * ring_row() + right * d_.channels,
                                            (ring_width_ - right) * d_.channels)})));
      // A row of results needs `fresh` rows more than the one before it.
      const std::int64_t fresh = std::min(step_, window_);
      const Axis before = make_axis("p", window_ - fresh), next = make_axis("p", fresh);
      task.push_back(loop(before, LoopKind::Serial,
                          expand_row(a, ring, panels, var(image.var), first_row * step_ + var(before.var))));
      one.push_back(
          loop(next, LoopKind::Serial,
               expand_row(a, ring, panels, var(image.var), y * step_ + (window_ - fresh) + var(next.var))));
    }
    if (project_) {
      row = make_buffer("convolved", DType::F32, Space::Shared, d_.width * row_stride_);
      task.push_back(stmt(Alloc{row}));
    }
    one.push_back(convolve_row(a, ring, taps, row, var(image.var), y));
    if (project_) {
      const Buffer panels = a.temp(static_cast<int>(temps.size()) - 1, temps.back(), Access::Read);
      const auto stores = [&](const Expr& x, const Expr& column) {
        const std::vector<Expr> at = {var(image.var), y, x}, n = {column};
        return store_outputs(a, *project_->group, project_->c.result({}, at, n));
      };
      one.push_back(multiply(a.scope(), *project_, {row, 0, row_stride_}, d_.width, panels, stores));
    }
    task.push_back(loop(i, LoopKind::Serial, block(std::move(one))));
    const std::vector<Axis> grid = {image, part};
    a.phase(parallel_over(grid, block(std::move(task))));
    return a.finish(g_.name());
  }

  const Group& g_;
  Depthwise d_;
  Contraction c_;
  const TargetInfo& target_;
  std::int64_t strip_;
  const Group* middle_ = nullptr;
  std::optional<Product> expand_, project_;
  std::int64_t height_, width_;   // of what is expanded
  std::int64_t step_, dilation_;  // from row to row
  std::int64_t pad_y_, pad_x_;    // zeros above and before
  std::int64_t window_;           // rows that a row of windows needs
  std::int64_t ring_width_, row_stride_;
  std::int64_t rows_;  // of results, per task
};

std::optional<CascadeLowering> take(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Cascade) return std::nullopt;
  const auto middle = std::find_if(group.parts.begin(), group.parts.end(),
                                   [](const Group& part) { return part.kind == GroupKind::Map; });
  const auto d = depthwise_of(*middle);
  if (!d) return std::nullopt;
  CascadeLowering lowering(group, *d, *register_tile(context.target), context);
  return lowering.is_possible() ? std::optional(std::move(lowering)) : std::nullopt;
}

}  // namespace

bool takes_cascades(const LoweringContext& context) {
  return context.allows("cascade") && context.precision == Precision::Fp32 && register_tile(context.target);
}

// A cascade and its parts keep the same weights.
std::optional<Price> price_cascade(const Group& group, const LoweringContext& context) {
  const auto lowering = take(group, context);
  return lowering ? std::optional(Price{lowering->cost()}) : std::nullopt;
}

std::optional<Lowered> lower_cascade(const Group& group, const LoweringContext& context) {
  auto lowering = take(group, context);
  return lowering ? std::optional(lowering->run()) : std::nullopt;
}

std::optional<Price> price_apart(const Group& group, const LoweringContext& context) {
  const auto lowering = take(group, context);
  if (!lowering) return std::nullopt;
  double result = lowering->taps_cost() + lowering->cost_of_memory();
  for (const Group& part : group.parts)
    if (const auto priced = priced_ways(part, context); !priced.empty()) result += priced.front().price.work;
  return Price{result};
}

}  // namespace deepseek::kernels
