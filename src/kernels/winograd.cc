// 3x3 convolution by Winograd's algorithm: F(m x m, 3x3) for m = 2 or 4.
//
// The output is cut into patches of m x m, each made from (m+2) x (m+2) inputs. Transformed, a convolution is a product
// per point and channel, which summed over channels is one matrix product per point: patches x channels times channels x
// filters, with 2.25 (m = 2) or 4 (m = 4) times fewer multiplications. Three programs:
//   filters: transformed once (in each run where they change in each), [panel][point][channel][NR]; or "at use": kept as they are, [panel][channel][9][NR], a
//            quarter (m = 4) of that, which each task transforms, some channels at a time, into its scratchpad or, where
//            there are few patches, in registers step by step;
//   inputs:  [point][patch][channel]: by each task for its own patches where there are enough of them that a task can
//            take all panels, else in a phase before;
//   product: a task owns a block of patches, and all panels of filters or one; it multiplies all points into its
//            scratchpad, transforms back and sends the results through the epilogue.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/register_tile.h"
#include "kernels/toom_cook.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kRowPadding = 16;  // keeps rows of transformed inputs off the same cache sets
constexpr std::int64_t kMinChannels = 16;
constexpr std::int64_t kRowsThatHideFilters = 24;  // are multiplied for about as long as reading those takes
constexpr std::int64_t kTaps = 9;
constexpr std::int64_t kLine = kLineBytes / 4;  // floats
// Bytes of transformed filters: fewer are not worth transforming in each run.
constexpr double kWorthRemaking = 1 << 20;

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

// So few patches that transforming filters again for each tile of them costs less than writing them to memory.
constexpr std::int64_t kFewTiles = 6;
constexpr std::int64_t kLeastHeld = 3;  // rows: of fewer the transforms would cost too much

// Patches per tile where products of a row of points stay in registers with the filters' transform; 0 where they do not.
std::int64_t held_rows(const Dim& patches, std::int64_t m, const TileShape& tile, std::int64_t lanes) {
  constexpr std::int64_t kOperands = 4;  // registers for a row of taps, half transformed, and a part of it
  const std::int64_t most = (tile.m * tile.n / lanes - kOperands) / (m + 2);
  if (!patches.is_static() || tile.k != 1 || most < kLeastHeld) return 0;
  const std::int64_t rows = tile_rows(patches, most);
  return ceil_of(patches.value(), rows) <= kFewTiles ? rows : 0;
}

// Multiply-adds of the products, of the transforms, and those that fit into the time of reading the filters; filters
// that are not `known` before the run, as in training, are transformed in each.
double cost(const ConvShape& s, std::int64_t m, bool at_use, bool known, const TileShape& tile,
            const TargetInfo& target) {
  // Both transforms take about as long per element as a dozen multiply-adds of the product; those of filters as twenty
  // where they are written to the second cache, and as two for each tile where they stay in registers.
  constexpr double kTransform = 12, kFilterTransform = 20, kHeldTransform = 2;
  const double points = static_cast<double>((m + 2) * (m + 2));
  const std::int64_t patches =
      size_where(kSupposedSize, s.batch) * ceil_of(s.height, m) * ceil_of(s.width, m);
  const std::int64_t held =
      at_use ? held_rows(s.batch.is_static() ? Dim(patches) : s.batch, m, tile, target.vector_bytes / 4) : 0;
  const std::int64_t mr = held > 0 ? held : tile_rows(patches, tile.m);
  const double rows = held > 0 ? static_cast<double>(ceil_of(patches, mr) * mr) : tile_cost(patches, mr),
               plane = static_cast<double>(s.channels * s.filters);
  double transforms = kTransform * static_cast<double>(patches * (s.channels + s.filters)) * points;
  if (held > 0)
    transforms += kHeldTransform * static_cast<double>(ceil_of(patches, mr)) * points * plane;
  else if (at_use || !known)
    transforms += kFilterTransform * points * plane;
  return cost_of(points * rows * plane + transforms, (at_use ? kTaps : points) * plane, target);
}

// Of the filters as they are kept between runs.
double kept_bytes(const ConvShape& s, std::int64_t m, bool at_use) {
  return static_cast<double>(s.channels * s.filters * (at_use ? kTaps : (m + 2) * (m + 2)) * 4);
}

// How far results are from exact ones, relative to the largest, measured over random filters: a multiple of the root of
// the channels.
double rounding(const ConvShape& s, std::int64_t m) {
  return (m == 4 ? 2.5e-7 : 6e-8) * std::sqrt(static_cast<double>(s.channels));
}

class WinogradLowering {
 public:
  WinogradLowering(const Group& group, const TileShape& tile, ConvShape shape, std::int64_t patch,
                   bool at_use, const TargetInfo& target, int threads)
      : g_(group),
        tile_(tile),
        c_(contraction_of(*group.anchor)),
        s_(std::move(shape)),
        t_(toom_cook(patch)),
        at_use_(at_use) {
    const std::int64_t lanes = target.vector_bytes / 4;
    down_ = ceil_of(s_.height, patch);
    across_ = ceil_of(s_.width, patch);
    patches_ = s_.batch * (down_ * across_);
    points_ = t_.points() * t_.points();
    const std::int64_t held = at_use ? held_rows(patches_, patch, tile, lanes) : 0;
    in_registers_ = held > 0;
    mr_ = in_registers_ ? held : tile_rows(patches_, tile.m, 2, at_use ? 1 : threads);
    nr_ = in_registers_ ? lanes : std::min(tile.n, ceil_of(s_.filters, lanes) * lanes);
    panels_ = ceil_of(s_.filters, nr_);
    stride_ = s_.channels + kRowPadding;
    block_for(target.l2_bytes, threads);
  }

  Lowered run() {
    Lowered result;
    const Type kept{DType::F32, {Dim(panels_ * s_.channels * nr_ * (at_use_ ? kTaps : points_))}};
    result.temps = {kept};
    result.calls = {filters(kept), product(kept)};
    result.calls[0].flops = numel(kept.shape);  // elements made
    result.way = std::string(at_use_ ? "winograd at use " : "winograd ") + std::to_string(t_.outputs) + "x" +
                 std::to_string(t_.outputs);
    result.calls[1].flops = patches_ * Dim(points_ * s_.channels * s_.filters * 2);  // of the products
    return result;
  }

 private:
  // A block's products share the second cache with a panel of filters, and with the block's transformed inputs where
  // tasks take all panels: where each thread has patches enough to hide that it reads all filters (those that transform
  // filters take one panel, so that more patches share them).
  void block_for(std::int64_t l2_bytes, int threads) {
    const std::int64_t tile_bytes = mr_ * points_ * 4;
    const std::int64_t tiles = ceil_of(size_where(1, patches_), mr_);
    const std::int64_t share = std::max<std::int64_t>(1, ceil_of(tiles, threads));
    const std::int64_t with_inputs = l2_bytes / 2 / (tile_bytes * (stride_ + nr_));
    all_panels_ = !at_use_ && std::min(share, with_inputs) * mr_ >= kRowsThatHideFilters;
    const std::int64_t most_tiles =
        all_panels_ ? with_inputs : std::max<std::int64_t>(1, l2_bytes / 4 / (tile_bytes * nr_));
    const std::int64_t among = all_panels_ ? share : std::max<std::int64_t>(1, tiles);
    tiles_per_block_ = ceil_of(among, ceil_of(among, most_tiles));
    const std::int64_t most = std::max<std::int64_t>(1, l2_bytes / 4 / (points_ * nr_ * 4));
    slices_ = at_use_ && !in_registers_ ? ceil_of(s_.channels, most) : 1;
    slice_ = ceil_of(s_.channels, slices_);
    // An odd number of cache lines: the points of a channel lie in different sets.
    point_stride_ = at_use_ ? ceil_of(slice_ * nr_, 2 * kLine) * 2 * kLine + kLine : slice_ * nr_;
  }

  // matrix * taps * matrix^T, element p at buffer[first + p * stride].
  static void store_transformed(const Matrix& matrix, std::span<const Expr> taps, const Buffer& buffer,
                                const Expr& first, const Expr& stride, std::vector<Stmt>& body) {
    transform_2d(matrix, taps, body, [&](std::size_t p, const Expr& x) {
      body.push_back(stmt(Store{buffer, first + stride * static_cast<std::int64_t>(p), x, {}}));
    });
  }

  Call filters(const Type& kept) {
    Assembly a(g_);
    const Axis panel = make_axis("panel", panels_), channel = make_axis("c", s_.channels),
               lane = make_axis("j", nr_);
    const Expr column = var(panel.var) * nr_ + var(lane.var);
    const Expr valid = s_.filters % nr_ == 0 ? Expr() : column < s_.filters;
    const Buffer out = a.temp(0, kept, Access::Write);
    std::vector<Stmt> body;
    std::vector<Expr> taps;
    for (std::int64_t y = 0; y < 3; ++y)
      for (std::int64_t x = 0; x < 3; ++x) {
        const std::vector<Expr> n = {column}, k = {y, x, var(channel.var)};
        taps.push_back(let("w", c_.right(a.scope(), {}, n, k, valid), body));
      }
    if (at_use_) {
      const Expr first = (var(panel.var) * s_.channels + var(channel.var)) * (kTaps * nr_) + var(lane.var);
      for (std::size_t i = 0; i < taps.size(); ++i)
        body.push_back(stmt(Store{out, first + static_cast<std::int64_t>(i) * nr_, taps[i], {}}));
    } else {
      const Expr first = (var(panel.var) * (points_ * s_.channels) + var(channel.var)) * nr_ + var(lane.var);
      store_transformed(t_.kernel, taps, out, first, s_.channels * nr_, body);
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
    store_transformed(t_.input, taps, to.buffer, row * stride_ + var(channel.var), to.rows * stride_, body);
    std::vector<Stmt> checks = a.scope().take_checks();
    body.insert(body.begin(), checks.begin(), checks.end());
    stmts.push_back(split_on_predicates(loop(channel, LoopKind::Vector, block(std::move(body)))));
    return block(std::move(stmts));
  }

  // The transformed filters of a panel, or of a slice of its channels: element (point, channel, j) is
  // buffer[first + point * point_stride_ + channel * NR + j].
  struct Filters {
    Buffer buffer;
    Expr first, first_channel, channels;
    // Where the weights begin that come after these, and how many lines each channel has of them.
    Buffer memory;
    Expr next;
    std::int64_t lines;
  };

  Filters stored(const Buffer& kept, const Expr& panel) const {
    const Expr first = panel * (points_ * s_.channels * nr_);
    return {kept, first, 0, s_.channels, kept, {}, std::max<std::int64_t>(1, nr_ / kLine)};
  }

  // A slice of a panel's filters transformed into `to`.
  Stmt transform_filters(const Buffer& kept, const Expr& panel, const Filters& to) const {
    const Axis channel = make_axis("c", to.channels), lane = make_axis("j", nr_);
    const Expr from = (panel * s_.channels + to.first_channel + var(channel.var)) * (kTaps * nr_);
    std::vector<Stmt> body;
    std::vector<Expr> taps;
    for (std::int64_t i = 0; i < kTaps; ++i)
      taps.push_back(let("w", load(kept, from + i * nr_ + var(lane.var)), body));
    store_transformed(t_.kernel, taps, to.buffer, to.first + var(channel.var) * nr_ + var(lane.var),
                      point_stride_, body);
    return loop(channel, LoopKind::Serial, loop(lane, LoopKind::Vector, block(std::move(body))));
  }

  // products[row][point][j] of a block, for one point and row of tiles.
  Stmt multiply(const Inputs& inputs, const Expr& input_row, const Filters& filters, const Expr& point,
                const Expr& tile, const Buffer& products, const Expr& product_row) {
    const Tile c = std::make_shared<const TileNode>(TileNode{"c", DType::F32, mr_, nr_});
    const Tile x = std::make_shared<const TileNode>(TileNode{"a", DType::F32, mr_, tile_.k});
    const Tile y = std::make_shared<const TileNode>(TileNode{"b", DType::F32, tile_.k, nr_});
    const std::int64_t at_once = tile_.k == 1 ? steps_at_once(std::gcd(s_.channels, slice_)) : 1;
    const Axis turn = make_axis("k", ceil_of(filters.channels, tile_.k * at_once)),
               one = make_axis("u", at_once);
    const Expr k = (var(turn.var) * at_once + var(one.var)) * tile_.k;
    const bool whole_steps = tile_.k == 1 || (slices_ == 1 && slice_ % tile_.k == 0);
    const Expr depth = whole_steps ? Expr(tile_.k) : loops::min(Expr(tile_.k), filters.channels - k);
    const Expr left = (point * inputs.rows + input_row) * stride_ + filters.first_channel + k;
    const Expr right = filters.first + point * point_stride_ + k * nr_;
    std::vector<Stmt> steps;
    if (tile_.k == 1) steps.push_back(prefetch(filters, point, var(turn.var), at_once, tile));
    const Stmt multiply =
        block({stmt(TileLoad{x, inputs.buffer, left, stride_, 1, mr_, depth}),
               stmt(TileLoad{y, filters.buffer, right, nr_, 1, depth, nr_}), stmt(TileMma{c, x, y})});
    steps.push_back(loop(one, LoopKind::Unrolled, multiply));
    const Expr row = (product_row * points_ + point) * nr_;
    const Stmt begin = slices_ == 1 ? stmt(TileFill{c, zero(DType::F32)})
                                    : stmt(TileLoad{c, products, row, points_ * nr_, 1, mr_, nr_});
    const Var i = loop_var("i", mr_), j = loop_var("j", nr_), value = make_var("x", DType::F32);
    const Expr index = row + var(i) * (points_ * nr_) + var(j);
    return block({stmt(TileAlloc{c}), stmt(TileAlloc{x}), stmt(TileAlloc{y}), begin,
                  loop(turn, LoopKind::Serial, block(std::move(steps))),
                  stmt(TileStore{c, i, j, value, mr_, nr_, stmt(Store{products, index, var(value), {}})})});
  }

  // The tiles of a row of points: products[row][point][j] for one tile of patches, the filters transformed in registers
  // for each step.
  Stmt multiply_row(const Inputs& inputs, const Expr& input_row, const Buffer& kept, const Expr& panel,
                    std::int64_t down, const Expr& tile, const Buffer& products,
                    const Expr& product_row) const {
    const std::int64_t across = t_.points();
    const Axis step = make_axis("k", s_.channels);
    const Var row = make_var("i", DType::I64), j = make_var("j", DType::I64), old = make_var("x", DType::F32);
    const Expr k = var(step.var), first = (panel * s_.channels + k) * (kTaps * nr_);
    std::vector<Expr> taps;
    for (std::int64_t i = 0; i < kTaps; ++i) taps.push_back(load(kept, first + i * nr_ + var(j)));
    const std::vector<Expr> points = transform_row(t_.kernel, static_cast<std::size_t>(down), taps);
    std::vector<Stmt> begin, steps, end;
    for (std::int64_t line = down; line < down + kTaps; line += across)
      steps.push_back(
          stmt(Prefetch{kept, first + s_.channels * (kTaps * nr_) + mod(tile * across + line, kTaps) * nr_}));
    for (std::int64_t q = 0; q < across; ++q) {
      const Tile c = std::make_shared<const TileNode>(TileNode{"c", DType::F32, mr_, nr_});
      const Tile x = std::make_shared<const TileNode>(TileNode{"a", DType::F32, mr_, 1});
      const Tile y = std::make_shared<const TileNode>(TileNode{"b", DType::F32, 1, nr_});
      const std::int64_t point = down * across + q;
      const Expr at = (product_row * points_ + point) * nr_;
      const Expr left = (point * inputs.rows + input_row) * stride_ + k;
      begin.insert(begin.end(), {stmt(TileAlloc{c}), stmt(TileAlloc{x}), stmt(TileAlloc{y}),
                                 stmt(TileFill{c, zero(DType::F32)}), stmt(TileFill{y, zero(DType::F32)})});
      steps.insert(steps.end(),
                   {stmt(TileMap{y, row, j, old, points[static_cast<std::size_t>(q)]}),
                    stmt(TileLoad{x, inputs.buffer, left, stride_, 1, mr_, 1}), stmt(TileMma{c, x, y})});
      const Var i = loop_var("i", mr_), column = loop_var("j", nr_), value = make_var("x", DType::F32);
      const Expr index = at + var(i) * (points_ * nr_) + var(column);
      end.push_back(
          stmt(TileStore{c, i, column, value, mr_, nr_, stmt(Store{products, index, var(value), {}})}));
    }
    begin.push_back(loop(step, LoopKind::Serial, block(std::move(steps))));
    begin.insert(begin.end(), end.begin(), end.end());
    return block(std::move(begin));
  }

  // Asks for lines of the weights that come next: in a turn of `at_once` steps, a line for each where they are transformed
  // at use.
  Stmt prefetch(const Filters& filters, const Expr& point, const Expr& turn, std::int64_t at_once,
                const Expr& tile) const {
    if (!at_use_) {
      const auto next = [&](const Expr& i) { return filters.first + (point + 1) * point_stride_ + i; };
      return prefetch_panel(filters.buffer, next, s_.channels / at_once, nr_ * at_once, turn, tile,
                            tiles_per_block_);
    }
    const Axis one = make_axis("line", at_once);
    const Expr channel = turn * at_once + var(one.var);
    return loop(one, LoopKind::Unrolled,
                stmt(Prefetch{filters.memory, filters.next + channel * (kTaps * nr_) +
                                                  mod(tile * points_ + point, filters.lines) * kLine}));
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
    store_transformed(t_.output, points, outputs, var(lane.var), nr_, body);
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

  Call product(const Type& kept_type) {
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
    const Buffer kept = a.temp(0, kept_type, Access::Read);
    const Buffer products = make_buffer("products", DType::F32, Space::Shared, block_rows * points_ * nr_);
    task.push_back(stmt(Alloc{products}));
    const Expr tile_row = var(t.var) * mr_;
    const auto multiplied = [&](const Filters& filters) {
      const Stmt one = multiply(inputs, all_panels_ ? tile_row : first + tile_row, filters, var(point.var),
                                var(t.var), products, tile_row);
      return loop(point, LoopKind::Serial, loop(t, LoopKind::Serial, when_inside(tile_row, one)));
    };
    std::vector<Stmt> of_panel;
    if (slices_ > 1) {
      const Axis zeros = make_axis("z", block_rows * points_ * nr_);
      of_panel.push_back(
          loop(zeros, LoopKind::Vector, stmt(Store{products, var(zeros.var), zero(DType::F32), {}})));
    }
    if (in_registers_) {
      for (std::int64_t down = 0; down < t_.points(); ++down)
        of_panel.push_back(
            loop(t, LoopKind::Serial,
                 when_inside(tile_row, multiply_row(inputs, first + tile_row, kept, var(panel.var), down,
                                                    var(t.var), products, tile_row))));
    } else if (at_use_) {
      const Axis slice = make_axis("slice", slices_);
      const Expr begin = var(slice.var) * slice_;
      const Filters made{
          make_buffer("filters", DType::F32, Space::Shared, points_ * point_stride_),
          0,
          begin,
          s_.channels % slice_ == 0 ? Expr(slice_) : loops::min(Expr(slice_), Expr(s_.channels) - begin),
          kept,
          (var(panel.var) * s_.channels + begin + slice_) * (kTaps * nr_),
          ceil_of(kTaps * nr_, kLine)};
      of_panel.push_back(stmt(Alloc{made.buffer}));
      of_panel.push_back(loop(slice, LoopKind::Serial,
                              block({transform_filters(kept, var(panel.var), made), multiplied(made)})));
    } else {
      of_panel.push_back(multiplied(stored(kept, var(panel.var))));
    }
    of_panel.push_back(
        loop(p, LoopKind::Serial,
             when_inside(var(p.var), results(a, products, var(panel.var), first + var(p.var), var(p.var)))));
    std::vector<Axis> grid = {rows};
    if (all_panels_) {
      task.push_back(loop(panel, LoopKind::Serial, block(std::move(of_panel))));
    } else {
      grid.insert(grid.begin(), panel);
      task.insert(task.end(), of_panel.begin(), of_panel.end());
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
  bool at_use_;        // filters are transformed in the run
  bool in_registers_;  // and each time that they are multiplied
  std::int64_t points_, mr_, nr_, panels_, stride_, tiles_per_block_;
  std::int64_t slices_, slice_;  // of channels, whose filters are there transformed at once; so many channels
  std::int64_t point_stride_;    // between the transformed filters of points
  bool all_panels_;              // of filters in one task, which transforms its own inputs
};

// The convolution and the tile for it, where the algorithm applies; whether the filters are known before the run.
struct Taken {
  ConvShape shape;
  const TileShape* tile;
  bool known;
};

std::optional<Taken> taken(const Group& group, const LoweringContext& context, std::int64_t outputs,
                           bool at_use) {
  if (group.kind != GroupKind::Contraction || context.target.gpu_mapped) return std::nullopt;
  const auto shape = shape_of(*group.anchor);
  if (!shape || std::min(shape->channels, shape->filters) < kMinChannels) return std::nullopt;
  if (rounding(*shape, outputs) > context.rtol) return std::nullopt;
  const bool outdone =
      at_use && outputs == 2 && rounding(*shape, 4) <= context.rtol;  // keeps as much, does more
  if (at_use && (outdone || kept_bytes(*shape, outputs, false) < kWorthRemaking)) return std::nullopt;
  for (const TileShape& tile : context.target.tiles)
    if (tile.operands == DType::F32 && tile.any_rows && tile.operands_in == Space::Global)
      return Taken{*shape, &tile, context.fixed.contains(group.anchor->in(1).node)};
  return std::nullopt;
}

}  // namespace

template <int Outputs, bool AtUse>
std::optional<Price> price_winograd(const Group& group, const LoweringContext& context) {
  const auto t = taken(group, context, Outputs, AtUse);
  if (!t) return std::nullopt;
  return Price{cost(t->shape, Outputs, AtUse, t->known, *t->tile, context.target),
               t->known ? kept_bytes(t->shape, Outputs, AtUse) : 0};
}

template <int Outputs, bool AtUse>
std::optional<Lowered> lower_winograd(const Group& group, const LoweringContext& context) {
  const auto t = taken(group, context, Outputs, AtUse);
  if (!t) return std::nullopt;
  Lowered lowered =
      WinogradLowering(group, *t->tile, t->shape, Outputs, AtUse, context.target, context.threads).run();
  lowered.way += precision_note(context.precision, DType::F32);
  return lowered;
}

template std::optional<Price> price_winograd<2, false>(const Group&, const LoweringContext&);
template std::optional<Lowered> lower_winograd<2, false>(const Group&, const LoweringContext&);
template std::optional<Price> price_winograd<2, true>(const Group&, const LoweringContext&);
template std::optional<Lowered> lower_winograd<2, true>(const Group&, const LoweringContext&);
template std::optional<Price> price_winograd<4, false>(const Group&, const LoweringContext&);
template std::optional<Lowered> lower_winograd<4, false>(const Group&, const LoweringContext&);
template std::optional<Price> price_winograd<4, true>(const Group&, const LoweringContext&);
template std::optional<Lowered> lower_winograd<4, true>(const Group&, const LoweringContext&);

}  // namespace deepseek::kernels
