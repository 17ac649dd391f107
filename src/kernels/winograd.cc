// 3x3 convolution by Winograd's algorithm: F(m x m, 3x3) for m = 2 or 4.
//
// The output is cut into patches of m x m, each made from (m+2) x (m+2) inputs. Transformed, a convolution is a product
// per point and channel, which summed over channels is one matrix product per point: patches x channels times channels x
// filters, with 2.25 (m = 2) or 4 (m = 4) times fewer multiplications. Three programs:
//   filters: transformed once when they are constants, [panel][point][channel][NR];
//   inputs:  [point][patch][channel]: by each task for its own patches where there are enough of them that a task can
//            take all panels, else in a phase before;
//   product: a task owns a block of patches, and all panels of filters or one; it multiplies all points into its
//            scratchpad, transforms back and sends the results through the epilogue.
#include <algorithm>
#include <cmath>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/register_tile.h"
#include "kernels/toom_cook.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kRowPadding = 16;  // keeps rows of transformed inputs off the same cache sets
constexpr std::int64_t kMinChannels = 16;
constexpr std::int64_t kWantedTasks = 8;  // enough for a few threads to share evenly
constexpr std::int64_t kManyTiles = 64;   // of a batch whose size is not known

struct ConvShape {
  Dim batch;
  std::int64_t height, width, channels, filters;  // of the output
};

// The shape when the algorithm applies: 3x3, dense, channels innermost, sizes known but for the batch.
std::optional<ConvShape> shape_of(const Node& n) {
  if (n.op->name != "conv" || n.in(0).rank() != 4 || n.outputs[0].dtype != DType::F32) return std::nullopt;
  for (const char* attr : {"strides", "input_dilation", "kernel_dilation"})
    for (const std::int64_t x : n.attr<std::vector<std::int64_t>>(attr))
      if (x != 1) return std::nullopt;
  if (n.attr<std::int64_t>("feature_groups") != 1 || n.attr<std::int64_t>("batch_groups") != 1)
    return std::nullopt;
  if (n.attr<std::string>("input_layout") != "N01C" || n.attr<std::string>("output_layout") != "N01C")
    return std::nullopt;
  const std::string& kernel = n.attr<std::string>("kernel_layout");
  for (const char l : {'0', '1'})
    if (!(n.in(1).dim(static_cast<int>(kernel.find(l))) == Dim(3))) return std::nullopt;
  const Shape &x = n.in(0).shape(), &y = n.outputs[0].shape;
  for (const Dim& d : {x[1], x[2], x[3], y[1], y[2], y[3]})
    if (!d.is_static() || d.value() == 0) return std::nullopt;
  return ConvShape{y[0], y[1].value(), y[2].value(), x[3].value(), y[3].value()};
}

// Multiply-adds of the products, of both transforms, and those that fit into the time of reading the filters.
double cost(const ConvShape& s, std::int64_t m, const TileShape& tile, const TargetInfo& target) {
  // Both transforms take about as long per element as a dozen multiply-adds of the product.
  constexpr double kTransform = 12;
  const double points = static_cast<double>((m + 2) * (m + 2));
  const std::int64_t patches =
      (s.batch.is_static() ? s.batch.value() : 1) * ceil_of(s.height, m) * ceil_of(s.width, m);
  const std::int64_t mr = tile_rows(patches, tile.m);
  const double rows = tile_cost(patches, mr), plane = static_cast<double>(s.channels * s.filters);
  const double transforms = kTransform * static_cast<double>(patches * (s.channels + s.filters)) * points;
  return cost_of(points * rows * plane + transforms, points * plane, target);
}

// How far results are from exact ones, relative to the largest, measured over random filters: a multiple of the root of
// the channels.
double rounding(const ConvShape& s, std::int64_t m) {
  return (m == 4 ? 2.5e-7 : 6e-8) * std::sqrt(static_cast<double>(s.channels));
}

class WinogradLowering {
 public:
  WinogradLowering(const Group& group, const TileShape& tile, ConvShape shape, std::int64_t patch,
                   const TargetInfo& target)
      : g_(group),
        tile_(tile),
        c_(contraction_of(*group.anchor)),
        s_(std::move(shape)),
        t_(toom_cook(patch)) {
    const std::int64_t lanes = target.vector_bytes / 4;
    down_ = ceil_of(s_.height, patch);
    across_ = ceil_of(s_.width, patch);
    patches_ = s_.batch * (down_ * across_);
    points_ = t_.points() * t_.points();
    mr_ = tile_rows(patches_, tile.m);
    nr_ = std::min(tile.n, ceil_of(s_.filters, lanes) * lanes);
    panels_ = ceil_of(s_.filters, nr_);
    stride_ = s_.channels + kRowPadding;
    block_for(target.l2_bytes);
  }

  Lowered run() {
    Lowered result;
    result.temps = {Type{DType::F32, {Dim(points_ * panels_ * s_.channels * nr_)}}};
    result.calls = {filters(result.temps[0]), product(result.temps[0])};
    result.calls[0].flops = Dim(points_ * panels_ * s_.channels * nr_);  // elements made
    result.way = "winograd " + std::to_string(t_.outputs) + "x" + std::to_string(t_.outputs);
    result.calls[1].flops = patches_ * Dim(points_ * s_.channels * s_.filters * 2);  // of the products
    return result;
  }

 private:
  // A block's products share the second cache with a panel of filters, and with the block's transformed inputs where
  // tasks take all panels.
  void block_for(std::int64_t l2_bytes) {
    const std::int64_t tile_bytes = mr_ * points_ * 4;
    const std::int64_t tiles = patches_.is_static() ? ceil_of(patches_.value(), mr_) : kManyTiles;
    const std::int64_t with_inputs = l2_bytes * 3 / 4 / (tile_bytes * (stride_ + nr_));
    all_panels_ = with_inputs >= 2 && tiles >= kWantedTasks * with_inputs;
    tiles_per_block_ =
        all_panels_ ? with_inputs : std::max<std::int64_t>(1, l2_bytes / 4 / (tile_bytes * nr_));
    if (patches_.is_static())
      tiles_per_block_ = ceil_of(tiles, std::max<std::int64_t>(1, ceil_of(tiles, tiles_per_block_)));
  }

  Call filters(const Type& packed) {
    Assembly a(g_);
    const Axis panel = make_axis("panel", panels_), channel = make_axis("c", s_.channels),
               lane = make_axis("j", nr_);
    const Expr column = var(panel.var) * nr_ + var(lane.var);
    const Expr valid = s_.filters % nr_ == 0 ? Expr() : column < s_.filters;
    std::vector<Stmt> body;
    std::vector<Expr> taps;
    for (std::int64_t y = 0; y < 3; ++y)
      for (std::int64_t x = 0; x < 3; ++x) {
        const std::vector<Expr> n = {column}, k = {y, x, var(channel.var)};
        taps.push_back(let("w", c_.right(a.scope(), {}, n, k, valid), body));
      }
    const std::vector<Expr> points = transform_2d(t_.kernel, taps, body);
    const Buffer out = a.temp(0, packed, Access::Write);
    for (std::size_t p = 0; p < points.size(); ++p) {
      const Expr point = var(panel.var) * points_ + static_cast<std::int64_t>(p);
      const Expr index = (point * s_.channels + var(channel.var)) * nr_ + var(lane.var);
      body.push_back(stmt(Store{out, index, points[p], {}}));
    }
    const std::vector<Axis> grid = {panel, channel};
    a.phase(parallel_over(grid, split_on_predicates(loop(lane, LoopKind::Vector, block(std::move(body))))));
    return a.finish("filters_" + g_.name());
  }

  struct Patch {
    Expr image, y, x;  // the first output's coordinates
  };
  Patch patch_at(const Expr& index, std::vector<Stmt>& stmts) const {
    const std::vector<Expr> extents = {expr_of(s_.batch), down_, across_};
    const std::vector<Expr> at = unflatten(index, extents);
    return {let("image", at[0], stmts), let("y", at[1] * t_.outputs, stmts),
            let("x", at[2] * t_.outputs, stmts)};
  }

  // The transformed inputs of a range of patches: element (point, row, channel) is
  // buffer[(point * rows + row) * stride + channel].
  struct Inputs {
    Buffer buffer;
    Expr rows;
  };

  // Those of one patch, written as `row`.
  Stmt transform_inputs(Assembly& a, const Inputs& to, const Expr& patch, const Expr& row) {
    const Axis channel = make_axis("c", s_.channels);
    std::vector<Stmt> stmts, body;
    const Patch at = patch_at(patch, stmts);
    std::vector<Expr> taps;
    for (std::int64_t y = 0; y < t_.points(); ++y)
      for (std::int64_t x = 0; x < t_.points(); ++x) {
        const std::vector<Expr> m = {at.image, at.y + y, at.x + x}, k = {0, 0, var(channel.var)};
        taps.push_back(let("d", c_.left(a.scope(), {}, m, k, {}), body));
      }
    const std::vector<Expr> points = transform_2d(t_.input, taps, body);
    for (std::size_t p = 0; p < points.size(); ++p) {
      const Expr index = (static_cast<std::int64_t>(p) * to.rows + row) * stride_ + var(channel.var);
      body.push_back(stmt(Store{to.buffer, index, points[p], {}}));
    }
    std::vector<Stmt> checks = a.scope().take_checks();
    body.insert(body.begin(), checks.begin(), checks.end());
    stmts.push_back(split_on_predicates(loop(channel, LoopKind::Vector, block(std::move(body)))));
    return block(std::move(stmts));
  }

  // products[row][point][j] of a block, for one point and row of tiles.
  Stmt multiply(const Inputs& inputs, const Expr& input_row, const Buffer& filters, const Expr& panel,
                const Expr& point, const Expr& tile, const Buffer& products, const Expr& product_row) {
    const Tile c = std::make_shared<const TileNode>(TileNode{"c", DType::F32, mr_, nr_});
    const Tile x = std::make_shared<const TileNode>(TileNode{"a", DType::F32, mr_, tile_.k});
    const Tile y = std::make_shared<const TileNode>(TileNode{"b", DType::F32, tile_.k, nr_});
    const Axis step = make_axis("k", ceil_of(s_.channels, tile_.k));
    const Expr k = var(step.var) * tile_.k;
    const Expr depth =
        s_.channels % tile_.k == 0 ? Expr(tile_.k) : loops::min(Expr(tile_.k), Expr(s_.channels) - k);
    const Expr left = (point * inputs.rows + input_row) * stride_ + k;
    const Expr first = (panel * points_ + point) * s_.channels, right = (first + k) * nr_;
    std::vector<Stmt> steps;
    if (tile_.k == 1)
      steps.push_back(prefetch_panel(filters, (first + s_.channels) * nr_, s_.channels, nr_, k, tile));
    steps.insert(steps.end(),
                 {stmt(TileLoad{x, inputs.buffer, left, stride_, 1, mr_, depth}),
                  stmt(TileLoad{y, filters, right, nr_, 1, depth, nr_}), stmt(TileMma{c, x, y})});
    const Stmt add = block(std::move(steps));
    const Var i = loop_var("i", mr_), j = loop_var("j", nr_), value = make_var("x", DType::F32);
    const Expr index = ((product_row + var(i)) * points_ + point) * nr_ + var(j);
    return block({stmt(TileAlloc{c}), stmt(TileAlloc{x}), stmt(TileAlloc{y}),
                  stmt(TileFill{c, zero(DType::F32)}), loop(step, LoopKind::Serial, add),
                  stmt(TileStore{c, i, j, value, mr_, nr_, stmt(Store{products, index, var(value), {}})})});
  }

  // From a patch's products to its outputs, which go through the epilogue.
  Stmt results(Assembly& a, const Buffer& products, const Expr& panel, const Expr& patch,
               const Expr& row_in_block) {
    std::vector<Stmt> stmts, body;
    const Patch at = patch_at(patch, stmts);
    const Axis lane = make_axis("j", nr_);
    std::vector<Expr> points;
    for (std::int64_t p = 0; p < points_; ++p)
      points.push_back(let("m", load(products, (row_in_block * points_ + p) * nr_ + var(lane.var)), body));
    const Buffer outputs = make_buffer("outputs", DType::F32, Space::Shared, t_.outputs * t_.outputs * nr_);
    const std::vector<Expr> made = transform_2d(t_.output, points, body);
    for (std::size_t o = 0; o < made.size(); ++o)
      body.push_back(
          stmt(Store{outputs, Expr(static_cast<std::int64_t>(o) * nr_) + var(lane.var), made[o], {}}));
    stmts.push_back(stmt(Alloc{outputs}));
    stmts.push_back(loop(lane, LoopKind::Vector, block(std::move(body))));

    const Axis down = make_axis("dy", loops::min(Expr(t_.outputs), Expr(s_.height) - at.y));
    const Axis across = make_axis("dx", loops::min(Expr(t_.outputs), Expr(s_.width) - at.x));
    const Axis j = make_axis(
        "j", s_.filters % nr_ == 0 ? Expr(nr_) : loops::min(Expr(nr_), Expr(s_.filters) - panel * nr_));
    const Expr row = var(down.var) * t_.outputs + var(across.var);
    const Value result = g_.anchor->out();
    const Expr value = load(outputs, row * nr_ + var(j.var));
    a.scope().bind(result, [value](std::span<const Expr>, const Expr&) { return value; });
    const std::vector<Expr> m = {at.image, at.y + var(down.var), at.x + var(across.var)},
                            n = {panel * nr_ + var(j.var)};
    const std::vector<Expr> coords = c_.result({}, m, n);
    const Stmt stores = block(store_outputs(a, g_, coords));
    stmts.push_back(
        loop(down, LoopKind::Serial, loop(across, LoopKind::Serial, loop(j, LoopKind::Vector, stores))));
    return block(std::move(stmts));
  }

  Call product(const Type& packed) {
    Assembly a(g_);
    const std::int64_t block_rows = tiles_per_block_ * mr_;
    const Axis rows = make_axis("block", ceil_of(expr_of(patches_), block_rows)),
               panel = make_axis("panel", panels_), point = make_axis("point", points_),
               t = make_axis("t", tiles_per_block_), p = make_axis("p", block_rows),
               q = make_axis("q", block_rows);
    const Expr first = var(rows.var) * block_rows;
    const bool whole = patches_.is_static() && patches_.value() % block_rows == 0;
    const auto when_inside = [&](const Expr& row, Stmt s) {
      return whole ? s : stmt(If{first + row < expr_of(patches_), std::move(s), nullptr});
    };
    std::vector<Stmt> task;
    Inputs inputs;
    if (all_panels_) {
      inputs = {make_buffer("inputs", DType::F32, Space::Shared, points_ * block_rows * stride_), block_rows};
      task.push_back(stmt(Alloc{inputs.buffer}));
      task.push_back(
          loop(q, LoopKind::Serial,
               when_inside(var(q.var), transform_inputs(a, inputs, first + var(q.var), var(q.var)))));
    } else {
      const Expr in_all = ceil_of(expr_of(patches_), mr_) * mr_;
      inputs = {a.workspace("inputs", DType::F32, Expr(points_) * in_all * stride_), in_all};
      const std::vector<Axis> grid = {make_axis("patch", expr_of(patches_))};
      a.phase(parallel_over(grid, transform_inputs(a, inputs, var(grid[0].var), var(grid[0].var))));
    }
    const Buffer filters = a.temp(0, packed, Access::Read);
    const Buffer products = make_buffer("products", DType::F32, Space::Shared, block_rows * points_ * nr_);
    task.push_back(stmt(Alloc{products}));
    const Expr tile_row = var(t.var) * mr_;
    const Stmt one = multiply(inputs, all_panels_ ? tile_row : first + tile_row, filters, var(panel.var),
                              var(point.var), var(t.var), products, tile_row);
    const Stmt of_panel =
        block({loop(point, LoopKind::Serial, loop(t, LoopKind::Serial, when_inside(tile_row, one))),
               loop(p, LoopKind::Serial,
                    when_inside(var(p.var),
                                results(a, products, var(panel.var), first + var(p.var), var(p.var))))});
    std::vector<Axis> grid = {rows};
    if (all_panels_) {
      task.push_back(loop(panel, LoopKind::Serial, of_panel));
    } else {
      grid.insert(grid.begin(), panel);
      task.push_back(of_panel);
    }
    a.phase(parallel_over(grid, block(std::move(task))));
    return a.finish(g_.name());
  }

  const Group& g_;
  const TileShape& tile_;
  Contraction c_;
  ConvShape s_;
  ToomCook t_;
  std::int64_t down_, across_;  // patches per image
  Dim patches_;
  std::int64_t points_, mr_, nr_, panels_, stride_, tiles_per_block_;
  bool all_panels_;  // of filters in one task, which transforms its own inputs
};

// The convolution and the tile for it, where the algorithm applies.
struct Taken {
  ConvShape shape;
  const TileShape* tile;
};

std::optional<Taken> taken(const Group& group, const LoweringContext& context, std::int64_t outputs) {
  if (group.kind != GroupKind::Contraction || context.target.gpu_mapped) return std::nullopt;
  const auto shape = shape_of(*group.anchor);
  if (!shape || std::min(shape->channels, shape->filters) < kMinChannels) return std::nullopt;
  if (!context.fixed.contains(group.anchor->in(1).node)) return std::nullopt;
  if (rounding(*shape, outputs) > context.rtol) return std::nullopt;
  for (const TileShape& tile : context.target.tiles)
    if (tile.operands == DType::F32 && tile.any_rows && tile.operands_in == Space::Global)
      return Taken{*shape, &tile};
  return std::nullopt;
}

}  // namespace

template <int Outputs>
std::optional<double> price_winograd(const Group& group, const LoweringContext& context) {
  const auto t = taken(group, context, Outputs);
  if (!t) return std::nullopt;
  return cost(t->shape, Outputs, *t->tile, context.target);
}

template <int Outputs>
std::optional<Lowered> lower_winograd(const Group& group, const LoweringContext& context) {
  const auto t = taken(group, context, Outputs);
  if (!t) return std::nullopt;
  Lowered lowered = WinogradLowering(group, *t->tile, t->shape, Outputs, context.target).run();
  lowered.way += precision_note(context.precision, DType::F32);
  return lowered;
}

template std::optional<double> price_winograd<2>(const Group&, const LoweringContext&);
template std::optional<double> price_winograd<4>(const Group&, const LoweringContext&);
template std::optional<Lowered> lower_winograd<2>(const Group&, const LoweringContext&);
template std::optional<Lowered> lower_winograd<4>(const Group&, const LoweringContext&);

}  // namespace deepseek::kernels
