// The gradient of a convolution's kernel: for each tap the product of two matrices, channels of x times pixels by pixels
// times channels of dy, the depth far longer than both sides. Neither matrix is turned or gathered: a pixel's channels are
// neighbours in memory on both sides, so that a step of a tile is one pixel, x's read as a column and dy's as a row, and
// where a tap leaves the image its loops over pixels are shorter.
//
// Sums stay in registers over a chunk of pixels that the first cache holds, and wait in memory between chunks. Tasks own a
// panel of dy's channels and, where there are few of those, a part of the pixels; a phase after adds the parts up. Few
// pixels are one chunk: a task owns a panel and some channels of x and stores its sums by itself.
#include <algorithm>
#include <functional>
#include <string>

#include "kernels/assembly.h"
#include "kernels/gradient_results.h"
#include "kernels/register_tile.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

constexpr std::int64_t kFewPixels = 1024;   // one chunk: the second cache holds a panel of them
constexpr std::int64_t kLeastPixels = 128;  // of a chunk: sums are read and written once in it
constexpr std::int64_t kWantedTasks = 8;    // enough for a few threads to share evenly
constexpr std::int64_t kRowsOfTask = 64;    // channels of x, where a task stores its sums by itself
constexpr double kCopyCost = 4;             // of an element that is not read in place, in multiply-adds

// What is known of an axis of the image.
struct Side {
  std::int64_t pixels, taps, input;  // of dy, of the result, of x
  std::int64_t low, step, tap_step;  // x's place is pixel * step + tap * tap_step - low
};

class ConvGradientLowering {
 public:
  ConvGradientLowering(const Group& group, const TileShape& tile, const TargetInfo& target)
      : g_(group),
        n_(*group.anchor),
        x_layout_(text("input_layout")),
        dy_layout_(text("kernel_layout")),
        y_layout_(text("output_layout")),
        results_(group, target) {
    for (const char l : {'0', '1'}) {
      const auto d = static_cast<std::size_t>(l - '0');
      sides_[d] = {size(n_.in(1), dy_layout_, l), size(n_.out(), y_layout_, l),
                   size(n_.in(0), x_layout_, l),  ints("pad_low")[d],
                   ints("kernel_dilation")[d],    ints("strides")[d]};
    }
    images_ = size(n_.in(0), x_layout_, 'C');
    rows_ = size(n_.in(0), x_layout_, 'N');
    columns_ = size(n_.in(1), dy_layout_, 'O');
    const std::int64_t lanes = target.vector_bytes / 4;
    nr_ = std::min(tile.n, ceil_of(columns_, lanes) * lanes);
    mr_ = tile_rows(rows_, tile.m, nr_ / lanes);
    panels_ = ceil_of(columns_, nr_);
    taps_ = sides_[0].taps * sides_[1].taps;
    lines_ = images_ * sides_[0].pixels;
    direct_ = lines_ * sides_[1].pixels <= kFewPixels;
    constexpr std::int64_t kWideRow = 64;  // channels of x: the second cache feeds more
    const std::int64_t held = target.l1_bytes * 3 / 4 / ((std::min(rows_, kWideRow) + nr_) * 4);
    chunk_ = direct_ ? lines_ : std::max<std::int64_t>(1, std::max(held, kLeastPixels) / sides_[1].pixels);
    chunks_ = ceil_of(lines_, chunk_);
    parts_ = std::clamp<std::int64_t>(ceil_of(kWantedTasks, panels_), 1, chunks_);
    chunks_per_part_ = ceil_of(chunks_, parts_);
  }

  double cost() const {
    Assembly a(g_);
    double copies = 0;
    for (const int i : {0, 1})
      if (!in_place(a, i)) copies += kCopyCost * static_cast<double>(numel(n_.in(i).shape()).value());
    const auto depth = static_cast<double>(lines_ * sides_[1].pixels * taps_);
    return tile_cost(rows_, mr_) * static_cast<double>(panels_ * nr_) * depth + copies;
  }

  Lowered run() {
    Lowered result;
    Assembly a(g_);
    const Image x = image(a, 0), dy = image(a, 1);
    if (direct_)
      sums_at_once(a, x, dy);
    else
      sums_in_parts(a, x, dy);
    result.calls.push_back(a.finish(g_.name()));
    result.calls[0].flops = Dim(2 * lines_ * sides_[1].pixels * taps_) * Dim(rows_ * columns_);
    result.way = "conv gradient";
    return result;
  }

 private:
  const std::string& text(const char* name) const { return n_.attr<std::string>(name); }
  const std::vector<std::int64_t>& ints(const char* name) const {
    return n_.attr<std::vector<std::int64_t>>(name);
  }
  static std::int64_t size(Value v, const std::string& layout, char letter) {
    return v.dim(static_cast<int>(layout.find(letter))).value();
  }

  // Coordinates in the order of a layout; letters: those of the image, of the channel, of both axes.
  static std::vector<Expr> coordinates(const std::string& layout, std::string_view letters,
                                       std::span<const Expr> values) {
    std::vector<Expr> result(layout.size());
    for (std::size_t i = 0; i < letters.size(); ++i) result[layout.find(letters[i])] = values[i];
    return result;
  }

  // An operand in memory: element (image, channel, y, x).
  struct Image {
    Buffer buffer;
    Expr first;
    std::int64_t by_image, by_y, by_x;
  };

  struct Operand {
    const std::string* layout;
    std::string_view letters;
    std::int64_t height, width, channels;
  };
  Operand operand(int i) const {
    if (i == 0) return {&x_layout_, "CN01", sides_[0].input, sides_[1].input, rows_};
    return {&dy_layout_, "IO01", sides_[0].pixels, sides_[1].pixels, columns_};
  }

  std::optional<Image> in_place(Assembly& a, int i) const {
    const Operand o = operand(i);
    const Axis axes[] = {make_axis("image", images_), make_axis("c", o.channels), make_axis("y", o.height),
                         make_axis("x", o.width)};
    const Expr e = a.scope().at(n_.in(i), coordinates(*o.layout, o.letters, coords_of(axes)));
    if (!a.scope().take_checks().empty() || e.op() != Op::Load || e->args.size() != 1) return std::nullopt;
    std::vector<std::int64_t> steps;
    std::vector<Var> from;
    for (const Axis& axis : axes) {
      const auto step = coefficient(e->args[0], axis.var);
      if (!step || !step->int_value()) return std::nullopt;
      steps.push_back(axis.extent.int_value() == 1 ? 1 : *step->int_value());
      from.push_back(axis.var);
    }
    if (steps[1] != 1) return std::nullopt;
    const std::vector<Expr> zeros(from.size(), Expr(0));
    return Image{e->buffer, substitute(e->args[0], from, zeros), steps[0], steps[2], steps[3]};
  }

  // Where it lies, or a copy with channels innermost: of what is computed, each element once.
  Image image(Assembly& a, int i) const {
    if (const auto found = in_place(a, i)) return *found;
    const Operand o = operand(i);
    const Buffer copy =
        a.workspace(i == 0 ? "x" : "dy", DType::F32, Expr(images_ * o.height * o.width * o.channels));
    const Axis image = make_axis("image", images_), y = make_axis("y", o.height), x = make_axis("x", o.width),
               channel = make_axis("c", o.channels);
    const Expr at[] = {var(image.var), var(channel.var), var(y.var), var(x.var)};
    const Expr value = a.scope().at(n_.in(i), coordinates(*o.layout, o.letters, at));
    const Expr pixel = (var(image.var) * o.height + var(y.var)) * o.width + var(x.var);
    std::vector<Stmt> body = a.scope().take_checks();
    body.push_back(stmt(Store{copy, pixel * o.channels + var(channel.var), value, {}}));
    const Axis grid[] = {image, y};
    a.phase(parallel_over(
        grid, loop(x, LoopKind::Serial, loop(channel, LoopKind::Vector, block(std::move(body))))));
    return {copy, 0, o.height * o.width * o.channels, o.width * o.channels, o.channels};
  }

  struct Place {
    Expr panel, tap_y, tap_x;
    Expr first_line;  // of the chunk: lines of pixels, image by image
  };

  // The sums' element (row, column): in memory between chunks, or results of a block.
  struct Sums {
    Buffer buffer;
    std::function<Expr(const Expr& row, const Expr& column)> index;
    const GradientResults::Block* block = nullptr;
  };

  Expr row_of(const Place& p, const Expr& channel) const {
    return (p.tap_y * sides_[1].taps + p.tap_x) * rows_ + channel;
  }

  // One tap's tiles of `rows` channels of x and a panel over a chunk of lines.
  Stmt tiles(Assembly& a, const Image& x, const Image& dy, const Place& p, const Sums& sums,
             const Expr& first, std::int64_t rows) {
    const Axis block_of = make_axis("rows", rows / mr_);
    std::vector<Stmt> result = {
        loop(block_of, LoopKind::Serial, tile(a, x, dy, p, sums, first + var(block_of.var) * mr_, mr_))};
    if (const std::int64_t rest = rows % mr_; rest > 0)
      result.push_back(tile(a, x, dy, p, sums, first + (rows - rest), rest));
    return block(std::move(result));
  }

  // The first pixel whose place for this tap lies in the image, and how many do.
  static std::pair<Expr, Expr> pixels_of(const Side& s, const Expr& tap) {
    const Expr before = Expr(s.low) - tap * s.tap_step;  // the first place that x has, in places
    const auto up = [&](const Expr& e) { return s.step == 1 ? e : floordiv(e + (s.step - 1), s.step); };
    const Expr begin = loops::max(Expr(0), up(before));
    const Expr end = loops::min(Expr(s.pixels), up(before + s.input));
    return {begin, loops::max(Expr(0), end - begin)};
  }

  Stmt tile(Assembly& a, const Image& x, const Image& dy, const Place& p, const Sums& sums, const Expr& first,
            std::int64_t height) {
    const auto piece = [](const char* name, std::int64_t rows, std::int64_t cols) {
      return std::make_shared<const TileNode>(TileNode{name, DType::F32, rows, cols});
    };
    const Tile c = piece("c", height, nr_), l = piece("a", height, 1), r = piece("b", 1, nr_);
    const Expr column = p.panel * nr_;
    const Expr columns = columns_ % nr_ == 0 ? Expr(nr_) : loops::min(Expr(nr_), Expr(columns_) - column);
    std::vector<Stmt> task;
    const auto [begin_x, count_x] = pixels_of(sides_[1], p.tap_x);
    const auto [begin_y, count_y] = pixels_of(sides_[0], p.tap_y);
    const Expr x0 = let("x0", begin_x, task), x_count = let("x_count", count_x, task),
               y0 = let("y0", begin_y, task), y_count = let("y_count", count_y, task);
    const Axis line = make_axis("line",
                                direct_ ? Expr(lines_) : loops::min(Expr(chunk_), lines_ - p.first_line)),
               pixel = make_axis("pixel", x_count);
    std::vector<Stmt> of_line;
    const Expr whole = p.first_line + var(line.var);
    const Expr image = let("image", floordiv(whole, sides_[0].pixels), of_line);
    const Expr y = let("y", mod(whole, sides_[0].pixels), of_line);
    const auto at = [](const Image& m, const Expr& i, const Expr& down, const Expr& across) {
      return m.first + i * m.by_image + down * m.by_y + across * m.by_x;
    };
    const Expr left = let("left",
                          at(x, image, y * sides_[0].step + p.tap_y * sides_[0].tap_step - sides_[0].low,
                             x0 * sides_[1].step + p.tap_x * sides_[1].tap_step - sides_[1].low) +
                              first,
                          of_line);
    const Expr right = let("right", at(dy, image, y, x0) + column, of_line);
    of_line.push_back(loop(
        pixel, LoopKind::Serial,
        block(
            {stmt(TileLoad{l, x.buffer, left + var(pixel.var) * (x.by_x * sides_[1].step), 1, 1, height, 1}),
             stmt(TileLoad{r, dy.buffer, right + var(pixel.var) * dy.by_x, dy.by_x, 1, 1, columns}),
             stmt(TileMma{c, l, r})})));
    // Lines whose place for this tap lies outside are left out.
    const bool all_inside = sides_[0].taps == 1 && sides_[0].low == 0;
    const Stmt summed = block(std::move(of_line));
    const Expr own_y = mod(whole, sides_[0].pixels);
    const Stmt guarded = all_inside ? summed : stmt(If{own_y >= y0 && own_y < y0 + y_count, summed, nullptr});

    const Var i = loop_var("i", height), j = loop_var("j", nr_), value = make_var("sum", DType::F32);
    task.insert(task.end(), {stmt(TileAlloc{c}), stmt(TileAlloc{l}), stmt(TileAlloc{r})});
    Stmt stores;
    if (sums.buffer) {
      const Expr base = sums.index(row_of(p, first), column);
      task.push_back(stmt(TileLoad{c, sums.buffer, base, panels_ * nr_, 1, height, nr_}));
      stores = stmt(Store{sums.buffer, base + var(i) * (panels_ * nr_) + var(j), var(value), {}});
    } else {
      task.push_back(stmt(TileFill{c, zero(DType::F32)}));
      stores = block(results_.take(a, *sums.block, first + var(i) - sums.block->row, var(j), p.tap_y, p.tap_x,
                                   var(value)));
    }
    task.push_back(loop(line, LoopKind::Serial, guarded));
    const bool all_columns = sums.buffer || results_.are_turned();
    task.push_back(stmt(TileStore{c, i, j, value, height, all_columns ? Expr(nr_) : columns, stores}));
    return block(std::move(task));
  }

  void sums_at_once(Assembly& a, const Image& x, const Image& dy) {
    const std::int64_t rows = std::min(rows_, ceil_of(kRowsOfTask, mr_) * mr_);
    const Axis panel = make_axis("panel", panels_), at = make_axis("block", rows_ / rows),
               down = make_axis("tap_y", sides_[0].taps), across = make_axis("tap_x", sides_[1].taps);
    const auto task = [&](const Expr& first, std::int64_t height) {
      const GradientResults::Block b{first, var(panel.var) * nr_, height, nr_,
                                     results_.scratchpad(height, nr_)};
      const Place p{var(panel.var), var(down.var), var(across.var), 0};
      const Stmt sums = loop(down, LoopKind::Serial,
                             loop(across, LoopKind::Serial, tiles(a, x, dy, p, {{}, {}, &b}, first, height)));
      if (!results_.are_turned()) return sums;
      return block({stmt(Alloc{b.waiting}), sums, results_.store(a, b)});
    };
    const Axis grid[] = {panel, at};
    a.phase(parallel_over(grid, task(var(at.var) * rows, rows)));
    if (const std::int64_t rest = rows_ % rows; rest > 0)
      a.phase(parallel_over(std::span(&panel, 1), task(rows_ - rest, rest)));
  }

  void sums_in_parts(Assembly& a, const Image& x, const Image& dy) {
    const std::int64_t width = panels_ * nr_;
    const Buffer buffer = a.workspace("sums", DType::F32, Expr(parts_ * taps_ * rows_ * width));
    const Axis part = make_axis("part", parts_), panel = make_axis("panel", panels_);
    const Sums sums{buffer, [&, width](const Expr& row, const Expr& column) {
                      return (var(part.var) * (taps_ * rows_) + row) * width + column;
                    }};
    const Axis row = make_axis("row", taps_ * rows_), lane = make_axis("j", nr_);
    std::vector<Stmt> task = {
        loop(row, LoopKind::Serial,
             loop(lane, LoopKind::Vector,
                  stmt(Store{buffer,
                             sums.index(var(row.var), var(panel.var) * nr_ + var(lane.var)),
                             zero(DType::F32),
                             {}})))};
    const Axis chunk = make_axis("chunk", chunks_per_part_), down = make_axis("tap_y", sides_[0].taps),
               across = make_axis("tap_x", sides_[1].taps);
    const Expr first_line = (var(part.var) * chunks_per_part_ + var(chunk.var)) * chunk_;
    Stmt of_chunk = loop(
        down, LoopKind::Serial,
        loop(across, LoopKind::Serial,
             tiles(a, x, dy, {var(panel.var), var(down.var), var(across.var), first_line}, sums, 0, rows_)));
    if (parts_ * chunks_per_part_ * chunk_ != lines_)
      of_chunk = stmt(If{first_line < lines_, of_chunk, nullptr});
    task.push_back(loop(chunk, LoopKind::Serial, std::move(of_chunk)));
    const Axis grid[] = {part, panel};
    a.phase(parallel_over(grid, block(std::move(task))));

    a.phase(added_up(a, buffer));
  }

  // The parts' sums together, a block of channels at a time.
  Stmt added_up(Assembly& a, const Buffer& sums) {
    const std::int64_t width = panels_ * nr_, rows = results_.rows_of_block();
    const Axis at = make_axis("block", ceil_of(rows_, rows)), panel = make_axis("panel", panels_);
    const Expr first = var(at.var) * rows;
    const Expr there = rows_ % rows == 0 ? Expr(rows) : loops::min(Expr(rows), rows_ - first);
    const GradientResults::Block b{first, var(panel.var) * nr_, there, nr_, results_.scratchpad(rows, nr_)};
    const Axis channel = make_axis("c", there), tap_y = make_axis("tap_y", sides_[0].taps),
               tap_x = make_axis("tap_x", sides_[1].taps);
    const bool all_columns = results_.are_turned() || columns_ % nr_ == 0;
    const Axis column = make_axis("j", all_columns ? Expr(nr_) : loops::min(Expr(nr_), columns_ - b.column));
    Expr sum;
    for (std::int64_t s = 0; s < parts_; ++s) {
      const Place p{0, var(tap_y.var), var(tap_x.var), 0};
      const Expr row = row_of(p, first + var(channel.var)) + s * taps_ * rows_;
      const Expr element = load(sums, row * width + b.column + var(column.var));
      sum = sum ? sum + element : element;
    }
    const Stmt taken = loop(
        column, LoopKind::Vector,
        block(results_.take(a, b, var(channel.var), var(column.var), var(tap_y.var), var(tap_x.var), sum)));
    const Axis inside[] = {channel, tap_x, tap_y};
    Stmt body = taken;
    for (const Axis& axis : inside) body = loop(axis, LoopKind::Serial, std::move(body));
    if (results_.are_turned()) body = block({stmt(Alloc{b.waiting}), body, results_.store(a, b)});
    const Axis grid[] = {at, panel};
    return parallel_over(grid, std::move(body));
  }

  const Group& g_;
  const Node& n_;
  const std::string &x_layout_, &dy_layout_, &y_layout_;
  GradientResults results_;
  Side sides_[2];
  std::int64_t images_, rows_, columns_;  // rows and columns: channels of x and of dy
  std::int64_t nr_, mr_, panels_, taps_;
  std::int64_t lines_, chunk_, chunks_, parts_, chunks_per_part_;  // lines of pixels, in all and in a chunk
  bool direct_;
};

const TileShape* tile_for(const Group& group, const LoweringContext& context) {
  if (group.kind != GroupKind::Contraction || !is_kernel_gradient(*group.anchor)) return nullptr;
  return register_tile(context.target);
}

}  // namespace

std::optional<Price> price_conv_gradient(const Group& group, const LoweringContext& context) {
  const TileShape* tile = tile_for(group, context);
  if (!tile) return std::nullopt;
  return Price{ConvGradientLowering(group, *tile, context.target).cost()};
}

std::optional<Lowered> lower_conv_gradient(const Group& group, const LoweringContext& context) {
  const TileShape* tile = tile_for(group, context);
  if (!tile) return std::nullopt;
  Lowered lowered = ConvGradientLowering(group, *tile, context.target).run();
  lowered.way += precision_note(context.precision, DType::F32);
  return lowered;
}

}  // namespace deepseek::kernels
