// The gradient of a 3x3 convolution's kernel by Winograd's algorithm, F(3x3, 2x2): 2x2 pixels of dy against the 4x4 of x
// around them give nine sums with 16 multiplications instead of 36. Transformed, it is a product per point: channels of x
// times patches by patches times channels of dy, whose sums over all patches are transformed back at the end.
//
// A task owns one of the four rows of points, whose transforms have nothing in common with those of other rows, and where
// there are many patches a part of these. It transforms some patches at a time into its scratchpad, where the second cache
// holds them beside the sums, and multiplies them; a phase after adds the parts up and transforms them back.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/gradient_results.h"
#include "kernels/register_tile.h"
#include "kernels/toom_cook.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kTaps = 3, kPixels = 2, kPoints = kTaps + kPixels - 1;
constexpr std::int64_t kRowPadding = 16;  // keeps rows of transformed inputs off the same cache sets
constexpr std::int64_t kMinChannels = 16;
constexpr std::int64_t kLeastPatches = 64;  // of a chunk: sums are read and written once in it
constexpr std::int64_t kMostParts = 4;  // with the rows of points, enough for a few threads to share evenly
constexpr std::int64_t kMostSumBytes = 4 << 20;  // of all parts

class WinogradGradientLowering {
 public:
  WinogradGradientLowering(const Group& group, const TileShape& tile, const TargetInfo& target)
      : g_(group),
        n_(*group.anchor),
        c_(contraction_of(n_)),
        t_(toom_cook(kTaps, kPixels)),
        results_(group, target) {
    const auto size = [&](Value v, const char* layout, char letter) {
      return v.dim(static_cast<int>(n_.attr<std::string>(layout).find(letter))).value();
    };
    images_ = size(n_.in(0), "input_layout", 'C');
    height_ = size(n_.in(1), "kernel_layout", '0');
    width_ = size(n_.in(1), "kernel_layout", '1');
    rows_ = size(n_.in(0), "input_layout", 'N');
    columns_ = size(n_.in(1), "kernel_layout", 'O');
    down_ = ceil_of(height_, kPixels);
    across_ = ceil_of(width_, kPixels);
    patches_ = images_ * down_ * across_;
    const std::int64_t lanes = target.vector_bytes / 4;
    nr_ = std::min(tile.n, ceil_of(columns_, lanes) * lanes);
    mr_ = tile_rows(rows_, tile.m, nr_ / lanes);
    panels_ = ceil_of(columns_, nr_);
    stride_ = rows_ + kRowPadding;
    const std::int64_t held = target.l2_bytes / 2 / (kPoints * (stride_ + panels_ * nr_) * 4);
    const std::int64_t wanted = ceil_of(patches_, std::max(held, kLeastPatches));
    constexpr std::int64_t kSteps = 4;  // are written out one after another
    chunk_ = ceil_of(ceil_of(patches_, wanted), kSteps) * kSteps;
    chunks_ = ceil_of(patches_, chunk_);
    const std::int64_t sum_bytes = kPoints * kPoints * rows_ * panels_ * nr_ * 4;
    parts_ = std::clamp<std::int64_t>(kMostSumBytes / sum_bytes, 1, std::min(chunks_, kMostParts));
    chunks_per_part_ = ceil_of(chunks_, parts_);
    parts_ = ceil_of(chunks_, chunks_per_part_);
  }

  double cost(std::int64_t l2_bytes) const {
    // In multiply-adds: of a transformed element, and of a sum read and written, in the second cache or beyond it.
    constexpr double kTransform = 12, kSum = 8, kFarSum = 80;
    constexpr auto points = static_cast<double>(kPoints * kPoints);
    const auto patches = static_cast<double>(patches_), columns = static_cast<double>(panels_ * nr_);
    const bool far = parts_ * kPoints * kPoints * rows_ * panels_ * nr_ * 4 > l2_bytes;
    return points * (tile_cost(rows_, mr_) * columns * patches +
                     kTransform * patches * static_cast<double>(rows_ + columns_) +
                     (kSum * static_cast<double>(chunks_) + (far ? kFarSum : 0)) *
                         static_cast<double>(rows_) * columns);
  }

  // How far results are from exact ones, relative to the largest, measured over random operands.
  double rounding() const { return 4e-8 * std::sqrt(static_cast<double>(patches_)); }

  Lowered run() {
    Assembly a(g_);
    const Expr extent = parts_ * kPoints * kPoints * rows_ * panels_ * nr_;
    const Buffer sums = a.workspace("sums", DType::F32, extent);
    const Axis part = make_axis("part", parts_), line = make_axis("line", kPoints);
    const Axis grid[] = {part, line};
    a.phase(parallel_over(grid, task(a, sums, var(part.var), var(line.var))));
    a.phase(results(a, sums));
    Lowered result;
    result.calls.push_back(a.finish(g_.name()));
    result.calls[0].flops = Dim(2 * kPoints * kPoints * patches_) * Dim(rows_ * columns_);
    result.way = "winograd gradient";
    return result;
  }

 private:
  // Coordinates of the contraction's rows or depth, which it wants in the order of a layout without one letter.
  std::vector<Expr> ordered(const char* layout, char without, const Expr& of_letter, char letter,
                            const Expr& y, const Expr& x) const {
    std::vector<Expr> result;
    for (const char l : n_.attr<std::string>(layout))
      if (l != without) result.push_back(l == letter ? of_letter : l == '0' ? y : x);
    return result;
  }
  std::vector<Expr> row(const Expr& channel, const Expr& tap_y, const Expr& tap_x) const {
    return ordered("output_layout", 'C', channel, 'N', tap_y, tap_x);
  }
  std::vector<Expr> depth(const Expr& image, const Expr& y, const Expr& x) const {
    return ordered("input_layout", 'N', image, 'C', y, x);
  }

  // The first sum of a point and a channel of x.
  Expr sum_at(const Expr& part, const Expr& point, const Expr& channel) const {
    return ((part * (kPoints * kPoints) + point) * rows_ + channel) * (panels_ * nr_);
  }

  struct Patch {
    Expr image, y, x;  // the first pixel of dy
  };

  // One line of a patch's transformed points.
  using Element = std::function<Expr(std::int64_t y, std::int64_t x)>;
  static std::vector<Expr> points_of(const Matrix& matrix, std::int64_t line, const Element& element,
                                     std::vector<Stmt>& body) {
    const std::vector<double>& used = matrix[static_cast<std::size_t>(line)];
    std::vector<Expr> taps;
    for (std::size_t y = 0; y < used.size(); ++y)
      for (std::size_t x = 0; x < used.size(); ++x)
        taps.push_back(
            used[y] == 0
                ? zero(DType::F32)
                : let("d", element(static_cast<std::int64_t>(y), static_cast<std::int64_t>(x)), body));
    return transform_row(matrix, static_cast<std::size_t>(line), taps);
  }

  // A line of points of patch `index`, the chunk's `p`: x's go to [point][p][channel], dy's to [panel][point][p][nr].
  Stmt transformed(Assembly& a, const Buffer& xs, const Buffer& dys, std::int64_t line, const Expr& index,
                   const Expr& p) {
    std::vector<Stmt> stmts, of_x, of_dy;
    const std::vector<Expr> extents = {images_, down_, across_};
    const std::vector<Expr> found = unflatten(index, extents);
    const Patch at = {let("image", found[0], stmts), let("y", found[1] * kPixels, stmts),
                      let("x", found[2] * kPixels, stmts)};
    const Axis channel = make_axis("c", rows_), panel = make_axis("panel", panels_),
               lane = make_axis("j", nr_);
    const std::vector<Expr> x_points = points_of(
        t_.input, line,
        [&](std::int64_t y, std::int64_t x) {
          return c_.left(a.scope(), {}, row(var(channel.var), y, x), depth(at.image, at.y, at.x), {});
        },
        of_x);
    const Expr column = var(panel.var) * nr_ + var(lane.var);
    const std::vector<Expr> dy_points = points_of(
        t_.kernel, line,
        [&](std::int64_t y, std::int64_t x) {
          Expr valid;
          const auto require = [&](const Expr& e) { valid = valid ? valid && e : e; };
          if (height_ % kPixels != 0 && y > 0) require(at.y + y < height_);
          if (width_ % kPixels != 0 && x > 0) require(at.x + x < width_);
          if (columns_ % nr_ != 0) require(column < columns_);
          const std::vector<Expr> n = {column};
          return c_.right(a.scope(), {}, n, depth(at.image, at.y + y, at.x + x), valid);
        },
        of_dy);
    for (std::int64_t q = 0; q < kPoints; ++q) {
      const auto i = static_cast<std::size_t>(q);
      of_x.push_back(stmt(Store{xs, (q * chunk_ + p) * stride_ + var(channel.var), x_points[i], {}}));
      of_dy.push_back(stmt(
          Store{dys, ((var(panel.var) * kPoints + q) * chunk_ + p) * nr_ + var(lane.var), dy_points[i], {}}));
    }
    std::vector<Stmt> checks = a.scope().take_checks();
    stmts.insert(stmts.end(), checks.begin(), checks.end());
    stmts.push_back(split_on_predicates(loop(channel, LoopKind::Vector, block(std::move(of_x)))));
    stmts.push_back(split_on_predicates(
        loop(panel, LoopKind::Serial, loop(lane, LoopKind::Vector, block(std::move(of_dy))))));
    return block(std::move(stmts));
  }

  // Adds the products of a chunk's `count` patches at one point to the sums of some channels of x and a panel.
  Stmt tile(const Buffer& xs, const Buffer& dys, const Buffer& sums, const Expr& point, const Expr& panel,
            const Expr& first, std::int64_t height, const Expr& count, const Expr& base) const {
    const auto piece = [](const char* name, std::int64_t rows, std::int64_t cols) {
      return std::make_shared<const TileNode>(TileNode{name, DType::F32, rows, cols});
    };
    const Tile c = piece("c", height, nr_), l = piece("a", height, 1), r = piece("b", 1, nr_);
    const std::int64_t at_once = steps_at_once(std::gcd(chunk_, patches_));
    const Axis turn = make_axis("k", floordiv(count, at_once)), one = make_axis("u", at_once);
    const Expr k = var(turn.var) * at_once + var(one.var);
    const Stmt step =
        block({stmt(TileLoad{l, xs, (point * chunk_ + k) * stride_ + first, 1, 1, height, 1}),
               stmt(TileLoad{r, dys, ((panel * kPoints + point) * chunk_ + k) * nr_, nr_, 1, 1, nr_}),
               stmt(TileMma{c, l, r})});
    const std::int64_t width = panels_ * nr_;
    const Stmt begin = chunks_per_part_ == 1 ? stmt(TileFill{c, zero(DType::F32)})
                                             : stmt(TileLoad{c, sums, base, width, 1, height, nr_});
    const Var i = loop_var("i", height), j = loop_var("j", nr_), value = make_var("sum", DType::F32);
    return block({stmt(TileAlloc{c}), stmt(TileAlloc{l}), stmt(TileAlloc{r}), begin,
                  loop(turn, LoopKind::Serial, loop(one, LoopKind::Unrolled, step)),
                  stmt(TileStore{c, i, j, value, height, nr_,
                                 stmt(Store{sums, base + var(i) * width + var(j), var(value), {}})})});
  }

  // The sums of a part of the patches at a line of points.
  Stmt task(Assembly& a, const Buffer& sums, const Expr& part, const Expr& line) {
    const Buffer xs = make_buffer("xs", DType::F32, Space::Shared, kPoints * chunk_ * stride_),
                 dys = make_buffer("dys", DType::F32, Space::Shared, kPoints * chunk_ * panels_ * nr_);
    std::vector<Stmt> result = {stmt(Alloc{xs}), stmt(Alloc{dys})};
    if (chunks_per_part_ > 1) {
      const Axis at = make_axis("i", kPoints * rows_ * panels_ * nr_);
      result.push_back(
          loop(at, LoopKind::Vector,
               stmt(Store{sums, sum_at(part, line * kPoints, 0) + var(at.var), zero(DType::F32), {}})));
    }
    const Axis chunk = make_axis("chunk", chunks_per_part_);
    std::vector<Stmt> of_chunk;
    const Expr first = let("first", (part * chunks_per_part_ + var(chunk.var)) * chunk_, of_chunk);
    const Expr count = patches_ % chunk_ == 0
                           ? Expr(chunk_)
                           : let("count", loops::min(Expr(chunk_), patches_ - first), of_chunk);
    const Axis p = make_axis("p", count);
    for (std::int64_t r = 0; r < kPoints; ++r)
      of_chunk.push_back(stmt(
          If{line == r, loop(p, LoopKind::Serial, transformed(a, xs, dys, r, first + var(p.var), var(p.var))),
             nullptr}));
    const Axis point = make_axis("point", kPoints), panel = make_axis("panel", panels_),
               rows = make_axis("rows", rows_ / mr_);
    const auto tile_at = [&](const Expr& row, std::int64_t height) {
      const Expr base = sum_at(part, line * kPoints + var(point.var), row) + var(panel.var) * nr_;
      return tile(xs, dys, sums, var(point.var), var(panel.var), row, height, count, base);
    };
    std::vector<Stmt> tiles = {loop(rows, LoopKind::Serial, tile_at(var(rows.var) * mr_, mr_))};
    if (const std::int64_t rest = rows_ % mr_; rest > 0) tiles.push_back(tile_at(rows_ - rest, rest));
    of_chunk.push_back(loop(point, LoopKind::Serial, loop(panel, LoopKind::Serial, block(std::move(tiles)))));
    Stmt body = block(std::move(of_chunk));
    if (parts_ * chunks_per_part_ * chunk_ - patches_ >= chunk_)
      body =
          stmt(If{(part * chunks_per_part_ + var(chunk.var)) * chunk_ < patches_, std::move(body), nullptr});
    result.push_back(loop(chunk, LoopKind::Serial, std::move(body)));
    return block(std::move(result));
  }

  // The parts' sums added up and transformed back, a block of channels at a time.
  Stmt results(Assembly& a, const Buffer& sums) {
    const std::int64_t rows = results_.are_turned() ? results_.rows_of_block() : 1;
    const Axis at = make_axis("block", ceil_of(rows_, rows)), panel = make_axis("panel", panels_);
    const Expr first = var(at.var) * rows;
    const Expr there = rows_ % rows == 0 ? Expr(rows) : loops::min(Expr(rows), rows_ - first);
    const GradientResults::Block b{first, var(panel.var) * nr_, there, nr_, results_.scratchpad(rows, nr_)};
    const Axis channel = make_axis("c", there);
    const bool all_columns = results_.are_turned() || columns_ % nr_ == 0;
    const Axis column = make_axis("j", all_columns ? Expr(nr_) : loops::min(Expr(nr_), columns_ - b.column));
    std::vector<Stmt> of_column;
    std::vector<Expr> points;
    for (std::int64_t point = 0; point < kPoints * kPoints; ++point) {
      Expr sum;
      for (std::int64_t part = 0; part < parts_; ++part) {
        const Expr element =
            load(sums, sum_at(part, point, first + var(channel.var)) + b.column + var(column.var));
        sum = sum ? sum + element : element;
      }
      points.push_back(let("m", sum, of_column));
    }
    transform_2d(t_.output, points, of_column, [&](std::size_t tap, const Expr& value) {
      const auto i = static_cast<std::int64_t>(tap);
      for (Stmt& s : results_.take(a, b, var(channel.var), var(column.var), i / kTaps, i % kTaps, value))
        of_column.push_back(std::move(s));
    });
    Stmt body = loop(channel, LoopKind::Serial, loop(column, LoopKind::Vector, block(std::move(of_column))));
    if (results_.are_turned()) body = block({stmt(Alloc{b.waiting}), body, results_.store(a, b)});
    const Axis grid[] = {at, panel};
    return parallel_over(grid, std::move(body));
  }

  const Group& g_;
  const Node& n_;
  Contraction c_;
  ToomCook t_;
  GradientResults results_;
  std::int64_t images_, height_, width_;  // of dy
  std::int64_t rows_, columns_;           // channels of x and of dy
  std::int64_t down_, across_, patches_;  // of an image, and in all
  std::int64_t nr_, mr_, panels_, stride_;
  std::int64_t chunk_, chunks_, parts_, chunks_per_part_;  // patches at a time
};

// The way, where the algorithm applies: strides and dilations of 1, 3x3 taps.
std::optional<WinogradGradientLowering> taken(const Group& group, const LoweringContext& context) {
  const Node& n = *group.anchor;
  if (group.kind != GroupKind::Contraction || !is_kernel_gradient(n)) return std::nullopt;
  for (const char* attr : {"strides", "kernel_dilation"})
    for (const std::int64_t x : n.attr<std::vector<std::int64_t>>(attr))
      if (x != 1) return std::nullopt;
  for (const char l : {'0', '1'})
    if (!(n.out().dim(static_cast<int>(n.attr<std::string>("output_layout").find(l))) == Dim(kTaps)))
      return std::nullopt;
  const TileShape* tile = register_tile(context.target);
  const Dim channels[] = {n.in(0).dim(static_cast<int>(n.attr<std::string>("input_layout").find('N'))),
                          n.in(1).dim(static_cast<int>(n.attr<std::string>("kernel_layout").find('O')))};
  if (!tile || std::min(channels[0].value(), channels[1].value()) < kMinChannels) return std::nullopt;
  WinogradGradientLowering lowering(group, *tile, context.target);
  return lowering.rounding() <= context.rtol ? std::optional(std::move(lowering)) : std::nullopt;
}

}  // namespace

std::optional<Price> price_winograd_gradient(const Group& group, const LoweringContext& context) {
  const auto lowering = taken(group, context);
  return lowering ? std::optional(Price{lowering->cost(context.target.l2_bytes)}) : std::nullopt;
}

std::optional<Lowered> lower_winograd_gradient(const Group& group, const LoweringContext& context) {
  auto lowering = taken(group, context);
  if (!lowering) return std::nullopt;
  Lowered lowered = lowering->run();
  lowered.way += precision_note(context.precision, DType::F32);
  return lowered;
}

}  // namespace deepseek::kernels
