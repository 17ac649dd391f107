// The matrix product: every matmul and convolution that a target's tiles can take.
//
// The right operand is packed into panels of NR columns, [batch][panel][k][NR] (its own program: computed once when it
// derives from constants; or by the task, where no other reads the panel), unless few rows read it as it lies; where the
// tile multiplies groups of neighbours, [batch][panel][k/G][NR][G], the depth padded with zeros to whole tiles on both
// sides. A task owns a block of rows and a group of panels. It reads the left operand in place when that is a plain matrix
// or, where that costs less, as a convolution's windows (windows.h), else packed through the prologue (packed_rows.h): by
// the task, or, where tasks share rows, in a phase before; turned_rows.h packs one that lies turned. Each tile of results
// goes through the epilogue; a deep product's sums wait in memory between chunks of the depth.
#include <algorithm>
#include <bit>
#include <numeric>

#include "kernels/assembly.h"
#include "kernels/contraction.h"
#include "kernels/gemm_blocking.h"
#include "kernels/narrow_right.h"
#include "kernels/packed_rows.h"
#include "kernels/panels.h"
#include "kernels/register_tile.h"
#include "kernels/tile_epilogue.h"
#include "kernels/turned_rows.h"
#include "kernels/windows.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

// Elements: rows this far apart (or multiples) share sets of the first cache, whose ways are as large.
constexpr std::int64_t kAliasingStride = 1024, kWayBytes = 4 << 10;
// What moving an element of a packed row or of a border's copy costs beside a row of a tile, and what each run of them.
constexpr double kMoveCost = 0.5, kRunCost = 10;
constexpr std::int64_t kShortRun = 64;   // elements: cost less to move once their borders are written out
constexpr double kMatrixUnit = 1.0 / 8;  // a multiply-add of a matrix unit, in those of vectors
constexpr double kOfWords = 2.0 / 3;     // the same of int16, or of tested bytes: pairs are added apart
// Steps: a single chain of more multiply-adds loses too much by rounding.
constexpr std::int64_t kLongestChain = 1 << 15;
constexpr std::int64_t kLongTile = 512;  // steps: takes long beside waiting for what its epilogue reads
// Vectors of sums: a step that adds to fewer is over before it has asked for a line, or for one of the left operand's too.
constexpr std::int64_t kRoomyStep = 8, kAmpleStep = 20;
constexpr std::int64_t kFewRows = 256, kFewProducts = 1 << 24;  // are over before packing has paid
constexpr std::int64_t kRowsShare = 4;                          // of the second cache, for rows that are read
constexpr std::int64_t kPanelsShare = 4;                        // of it, for a panel that a task packs

class GemmLowering {
 public:
  // `windows`: read in place.
  GemmLowering(const Group& group, const TileShape& tile, const LoweringContext& context, bool windows)
      : g_(group),
        tile_(tile),
        gpu_(context.target.gpu_mapped),
        narrow_(narrow_right()),
        c_(contraction_of(*group.anchor)),
        m_(product_of(c_.m)),
        n_(product_of(c_.n)),
        k_(product_of(c_.k)),
        in_word_(narrow_ ? narrow_->in_word() : tile.group),
        padded_(in_word_ == 1 ? k_ : ceildiv(k_, std::max(tile.k, in_word_)) * std::max(tile.k, in_word_)),
        batch_(product_of(c_.batch)),
        target_(context.target),
        stored_(narrow_ ? narrow_->stored : tile.right),
        windows_(windows ? find_windows() : std::nullopt),
        run_(windows_ ? Dim(windows_->run) : m_),
        chunk_(deep_chunk()),
        is_fixed_(context.fixed.contains(group.anchor->in(1).node)),
        b_(blocking(context.threads, false)),
        reads_right_(!is_fixed_ && reads_right()) {
    if (!is_fixed_ && !reads_right_) b_ = blocking(context.threads, true);
  }

  // What it runs in, where that is less than fp32.
  std::string note(Precision asked) const {
    if (narrow_) return " with weights in " + std::string(name(stored_));
    const bool narrow = tile_.operands == DType::I16 || tile_.right != tile_.operands;
    return narrow ? " in " + std::string(name(tile_.operands)) : precision_note(asked, tile_.operands);
  }

  // Windows are for what is no plain matrix.
  bool reads_windows() const { return windows_.has_value(); }

  Price price(const LoweringContext& context) const {
    const Dim panels = packed_size();
    const bool keeps = panels.is_static() && context.fixed.contains(g_.anchor->in(1).node);
    return {cost(), keeps ? static_cast<double>(bytes(stored_, panels.value())) : 0};
  }

  double cost() const {
    const auto size = [](const Dim& d) { return size_where(kSupposedSize, d); };
    const std::int64_t m = size(m_), n = size(n_), k = size(k_);
    const std::int64_t run = windows_ ? windows_->run : m;
    // As one thread runs it, so that however many there are choose alike and agree bit by bit.
    const Blocking one = block_for(m_, run_, n_, k_, batch_, tile_, target_, 1);
    const auto depth = static_cast<double>(k), columns = static_cast<double>(ceil_of(n, one.nr) * one.nr);
    const std::int64_t vectors = std::max<std::int64_t>(one.nr * 4 / target_.vector_bytes, 1);
    const std::int64_t runs_of_rows = m / std::max<std::int64_t>(run, 1);
    const double multiplies =
        static_cast<double>(runs_of_rows) * tile_cost(run, one.mr, vectors) * columns * depth;
    double moves = 0;
    if (windows_) {
      if (windows_->bordered) moves = kMoveCost * static_cast<double>(size(windows_->copied) * one.nr);
    } else if (Assembly a(g_); !plain(a.scope(), 0)) {
      const std::optional<Windows> w = windows_of(g_, c_, tile_.operands);
      const double runs = w ? depth / static_cast<double>(w->depth.back().extent) : 1;
      moves = (kMoveCost * depth + kRunCost * runs) * static_cast<double>(m * one.nr);
    }
    const double bytes = static_cast<double>(bits(tile_.operands)) / 32;
    const bool in_words = tile_.operands == DType::I16 || tile_.wants_small();
    const double each = matrix_unit() ? kMatrixUnit : in_words ? kOfWords : bytes;
    return static_cast<double>(size(batch_)) *
           cost_of(multiplies * each + moves, columns * depth * bytes, target_);
  }

  Lowered run(Precision asked) {
    Lowered result;
    result.way = (windows_ ? "gemm windows" : "gemm") + note(asked);
    const bool packs_before = !reads_right_ && !packs_in_task();
    if (packs_before) pack_right(result);
    result.calls.push_back(multiply(packs_before ? result.temps[0] : Type{}));
    result.calls.back().flops = batch_ * m_ * n_ * k_ * 2;
    return result;
  }

 private:
  void pack_right(Lowered& result) const {
    result.temps = {Type{stored_, {packed_size()}}};
    result.calls = {in_word_ == 1 ? pack_panels(g_, c_, b_.nr, result.temps[0], 0, target_, narrow_)
                                  : pack_words(g_, c_, b_.nr, {stored_, padded_, in_word_}, 0, narrow_)};
    result.calls[0].flops = batch_ * ceildiv(n_, b_.nr) * k_ * b_.nr;  // elements moved
    if (!has_blocks()) return;
    for (Type& t : block_temps(*narrow_, c_, b_.nr)) result.temps.push_back(std::move(t));
    result.calls.push_back(pack_blocks(g_, *narrow_, c_, b_.nr, 1));
    result.calls.back().flops = numel(result.temps.back().shape);
  }

  // Whether a task packs the panels that it alone reads, one before its tiles: written and read in the second cache.
  bool packs_in_task() const {
    const bool in_vectors = tile_.k == 1 && in_word_ == 1 && !narrow_ && prefetches();
    if (is_fixed_ || reads_right_ || !in_vectors || b_.row_blocks.int_value() != 1 || !k_.is_static())
      return false;
    return (!in_chunks() || c_.k.size() == 1) &&
           chunk_.value() * b_.nr * bits(stored_) / 8 <= target_.l2_bytes / kPanelsShare;
  }

  Dim packed_size() const { return batch_ * ceildiv(n_, b_.nr) * padded_ * b_.nr; }

  // Whole numbers are packed as those, and become floats when they are multiplied.
  std::optional<NarrowRight> narrow_right() const {
    const bool in_vectors = !gpu_ && tile_.k == 1 && tile_.operands_in == Space::Global;
    return in_vectors && tile_.right == DType::F32 ? narrow_right_of(g_) : std::nullopt;
  }

  Blocking blocking(int threads, bool packs_right) const {
    // Beside the rows of a chunk lie the sums that wait.
    constexpr double kRoomOfChunk = 0.3125;
    return block_for(m_, run_, n_, chunk_, batch_, tile_, target_, threads, packs_right, in_place(),
                     in_chunks() && rows_overflow() ? kRoomOfChunk : kRowRoom);
  }

  // Rows that a task would have to pack are those of convolutions whose windows are not read where they are.
  bool in_place() const { return !gpu_ && (windows_ || g_.anchor->op->name == "matmul"); }

  bool matrix_unit() const { return !tile_.in_vectors(); }

  // Threads of a GPU and copies into a scratchpad check the last rows; register tiles read whole tiles.
  bool masks_rows() const { return gpu_ || tile_.operands_in == Space::Shared; }

  // The left operand where tiles read it as it lies.
  std::optional<LeftInMemory> plain(Scope& scope, const Expr& batch) const {
    if (!m_.is_static() || !(padded_ == k_) || tile_.operands_in != Space::Global) return std::nullopt;
    auto x = left_in_memory(scope, c_, batch, tile_.operands);
    return x && !aliases(x->stride, m_) ? std::move(x) : std::nullopt;
  }

  // Whether tiles read the right operand as it lies: to pack one that few rows read takes longer than it saves. A panel of
  // several vectors whose rows lie apart is slower to read from beyond the second cache.
  bool reads_right() const {
    const bool in_vectors = tile_.k == 1 && in_word_ == 1 && tile_.any_rows && !narrow_ && !gpu_;
    if (!in_vectors || !m_.is_static() || !n_.is_static() || !k_.is_static() || n_.value() < b_.nr)
      return false;
    const std::int64_t elements = k_.value() * n_.value();
    const bool few = m_.value() <= kFewRows && m_.value() * elements <= kFewProducts;
    if (m_.value() > b_.mr && !(few && elements * 4 <= target_.l2_bytes / 2)) return false;
    Assembly a(g_);
    const auto x = right_in_memory(a.scope(), c_, 0);
    return x && x->buffer->dtype == tile_.right && x->by_column.int_value() == 1;
  }

  // Whether the second cache does not even hold all rows: several tasks read a panel, and short chunks, of which one stays
  // closer, are worth more sums that wait.
  bool rows_overflow() const {
    return m_.is_static() && k_.is_static() && m_.value() * k_.value() * 4 > target_.l2_bytes;
  }

  // All of the depth, or so much of a deep product's that rows stay in the second cache while panels go by, the next one
  // asked for beside the one that several rows of tiles read.
  Dim deep_chunk() const {
    const bool in_vectors = tile_.k == 1 && in_word_ == 1 && tile_.any_rows && !narrow_ && !gpu_;
    const bool in_one_tile = m_.is_static() && m_.value() <= tile_.m;
    if (!in_vectors || windows_ || !k_.is_static()) return k_;
    const std::int64_t k = k_.value(), rows = m_.is_static() ? m_.value() : 0;
    const bool fits = in_one_tile || (rows + 2 * tile_.n) * k * 4 <= target_.l2_bytes * 3 / 4;
    if (fits && k <= kLongestChain) return k_;
    Assembly a(g_);
    if (g_.anchor->op->name != "matmul" && !packs_turned() && !plain(a.scope(), 0)) return k_;
    const std::int64_t panels = rows_overflow() ? 32 : 8;  // a tile's columns wide, in the second cache
    const std::int64_t chunks = ceil_of(k, target_.l2_bytes / (panels * tile_.n * 4));
    return std::min(k, ceil_of(ceil_of(k, chunks), kStepsAtOnce) * kStepsAtOnce);
  }
  bool in_chunks() const { return !(chunk_ == k_); }

  // Whether rows of a tile push each other out of the first cache. A few more than it has ways seldom do, as it evicts at
  // random enough: that matters to those read very often.
  bool aliases(std::int64_t stride, const Dim& run) const {
    constexpr std::int64_t kMoreThanWays = 2, kVeryOften = 48;
    const bool often = n_.is_static() && n_.value() >= kVeryOften * tile_.n;
    const std::int64_t rows = run.is_static() ? std::min(tile_.m, run.value()) : tile_.m;
    return !masks_rows() && stride % kAliasingStride == 0 &&
           rows > target_.l1_bytes / kWayBytes + (often ? 0 : kMoreThanWays);
  }

  std::optional<Windows> find_windows() const {
    if (gpu_ || tile_.operands_in != Space::Global || !tile_.any_rows) return std::nullopt;
    Assembly a(g_);
    if (plain(a.scope(), 0)) return std::nullopt;
    const std::optional<Windows> w = windows_of(g_, c_, tile_.operands);
    if (!w || aliases(w->row_step, w->run)) return std::nullopt;
    const bool whole_steps = w->depth.back().stride == 1 && w->depth.back().extent % tile_.k == 0;
    return tile_.k == 1 || whole_steps ? w : std::nullopt;
  }

  struct Operand {  // element (r, c) of a block is buffer[base + r*stride + c]
    Buffer buffer;
    Expr base, stride;
    bool from_any_row = false;         // of the left one: a tile may begin at any row
    std::vector<Windows::Step> depth;  // of the left one: not empty where columns step otherwise
    Expr next = {};  // of the left one, where it is asked for early: base of the next tile's
    std::optional<RightInMemory> source = {};  // of a panel that the task packs: the next one, as it lies
  };

  // Where a tile may begin at any row, a run's last one ends with it, overlapping the one before: no row is masked.
  bool overlaps(const Operand& left) const {
    return left.from_any_row && !masks_rows() && run_.is_static() && run_.value() >= b_.mr;
  }

  Expr first_row_of(const Expr& tile, bool overlapping) const {
    const auto within = [&](const Expr& t) {
      return overlapping ? loops::min(t * b_.mr, Expr(run_.value() - b_.mr)) : t * b_.mr;
    };
    if (!windows_) return within(tile);
    return floordiv(tile, b_.tiles_per_run) * windows_->run + within(mod(tile, b_.tiles_per_run));
  }

  // Of a right operand that is read as it lies the last panel ends with it.
  Expr first_column_of(const Expr& panel) const {
    const Expr first = panel * b_.nr;
    return reads_right_ && n_.value() % b_.nr != 0 ? loops::min(first, Expr(n_.value() - b_.nr)) : first;
  }

  // A rows x cols block of an operand: copied into a scratchpad first where the tile unit reads from there.
  Operand staged(const Operand& x, const std::string& name, std::int64_t rows, std::int64_t cols,
                 const Expr& valid_rows, const Expr& valid_cols, std::vector<Stmt>& before,
                 std::vector<Stmt>& step, std::vector<Stmt>& waits) {
    if (tile_.operands_in != Space::Shared || x.buffer->space == Space::Shared) return x;
    const Buffer pad = make_buffer(name, x.buffer->dtype, Space::Shared, rows * cols);
    const Var token = make_var(name + "_copied");
    before.push_back(stmt(Alloc{pad}));
    step.push_back(stmt(CopyAsync{pad, 0, cols, x.buffer, x.base, x.stride, valid_rows, valid_cols, token}));
    waits.push_back(stmt(Wait{token}));
    return {pad, 0, cols, false, {}};
  }

  bool has_room(std::int64_t vectors) const { return b_.mr * b_.nr >= vectors * target_.vector_bytes / 4; }

  bool prefetches() const { return !gpu_ && tile_.operands_in == Space::Global; }

  TileEpilogue epilogue(Assembly& a, const Expr& batch, const Expr& first_row,
                        const Expr& first_column) const {
    const Var i = loop_var("i", b_.mr), j = loop_var("j", b_.nr), value = make_var("x", tile_.accumulator);
    const std::vector<Expr> coords =
        c_.result(unflatten(batch, extents_of(c_.batch)), unflatten(first_row + var(i), extents_of(c_.m)),
                  unflatten(first_column + var(j), extents_of(c_.n)));
    const Value product = g_.anchor->out();
    a.scope().bind(product, [value, product](std::span<const Expr>, const Expr&) {
      return cast(product.dtype(), var(value));
    });
    return {i, j, value, block(store_outputs(a, g_, coords))};
  }

  // How many of so many lines are asked for at a time while a tile is multiplied, and once in how many of its turns of
  // `at_once` steps: one of the two is 1, and the other a power of two.
  std::pair<std::int64_t, std::int64_t> turns_for(std::int64_t lines, std::int64_t at_once) const {
    const std::int64_t turns = k_.is_static() ? k_.value() / (tile_.group * tile_.steps * at_once) : 1;
    const auto power = [](std::int64_t n) {
      return static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1));
    };
    return {std::bit_ceil(power(ceil_of(lines, std::max<std::int64_t>(turns, 1)))),
            std::bit_floor(power(turns / lines))};
  }

  // Asks for what the epilogue reads: each turn of a tile for one of the next tile's lines (all at once would keep the
  // operands waiting), for what it writes as well where tiles go by rows. A long tile, or one whose steps are short, asks
  // for its own lines before; a matrix unit, which has few steps, for all of the next tile's.
  void prefetch_lines(const TileEpilogue& e, const Expr& turn, std::int64_t at_once, bool rows_first,
                      std::vector<Stmt>& before, std::vector<Stmt>& asks) const {
    const auto [read, written] = lines_of(e);
    const bool is_long = !k_.is_static() || k_.value() > kLongTile * tile_.group;
    const bool before_all = matrix_unit() || !has_room(kRoomyStep) || is_long,
               own = before_all && !matrix_unit();
    const Axis row = make_axis("i", b_.mr);
    std::vector<Stmt> lines_of_row;
    const auto at = [&](const TileLine& x, const Expr& i, const Expr& j) {
      if (own) return prefetch_at(x, e, i, j);
      return rows_first ? prefetch_at(x, e, i, j + b_.nr) : prefetch_at(x, e, i + b_.mr, j);
    };
    const auto ask = [&](const TileLine& x) {
      const std::int64_t line = kLineBytes * 8 / bits(x.buffer->dtype);
      for (std::int64_t column = 0; before_all && column < b_.nr; column += line)
        lines_of_row.push_back(at(x, var(row.var), column));
      if (before_all) return;
      const std::int64_t across = ceil_of(b_.nr, line);
      const auto [each, turns] = turns_for(b_.mr * across, at_once);
      const Axis one = make_axis("line", each);
      const Expr i = floordiv(turn, turns) * each + var(one.var);
      asks.push_back(
          loop(one, LoopKind::Unrolled, at(x, mod(i, b_.mr), mod(floordiv(i, b_.mr), across) * line)));
    };
    for (const TileLine& x : read) ask(x);
    if (rows_first)
      for (const TileLine& x : written) ask(x);
    if (!lines_of_row.empty()) before.push_back(loop(row, LoopKind::Serial, block(std::move(lines_of_row))));
  }

  // Steps of the depth, and where sums wait meanwhile that had others before or will have others after.
  struct Span {
    Expr first, count;
    Expr next;  // where the right operand of the next span that is multiplied begins, behind its panel's
    Buffer sums = {};
    bool is_last = true;
  };
  Span whole_depth() const { return {0, expr_of(padded_), expr_of(padded_) * b_.nr}; }

  // `step` of so many rows each.
  Stmt prefetch_next(const Operand& right, const Expr& step, std::int64_t rows, const Expr& tile_index,
                     const Span& span) const {
    // A step of a matrix unit reads so much that few tiles would not ask for all of it, a line each.
    const std::int64_t tiles = b_.tiles_per_block.int_value().value_or(matrix_unit() ? 1 : 0);
    const auto next = [&](const Expr& i) -> Expr {
      if (!right.source) return right.base + span.next + i;
      const RightInMemory& x = *right.source;
      const Expr lines = x.is_turned() ? span.count : Expr(b_.nr);
      return x.first + span.first * x.by_depth +
             floordiv(i, lines) * (x.is_turned() ? x.by_column : x.by_depth) + mod(i, lines);
    };
    return prefetch_panel(right.source ? right.source->buffer : right.buffer, next,
                          floordiv(span.count, rows), b_.nr * rows, step, tile_index, tiles);
  }

  struct Tiles {
    Tile c, x, y;  // c += x * y
  };

  bool has_blocks() const { return narrow_ && narrow_->has_blocks(); }
  bool is_narrow(const Operand& right) const { return has_blocks() && right.buffer->dtype == stored_; }

  // A panel of whole numbers in words, as tiles read it.
  struct NarrowPanel {
    const Operand& right;
    Expr index;       // among all panels
    Expr tile_index;  // of the row of tiles that reads it
    Tile y;           // for a row of it
  };
  // Reads each of the rows from `first` on into y, and then runs `step` with the row's place in the depth.
  Stmt over_rows(const NarrowPanel& p, const Expr& first, const Expr& rows,
                 const std::function<Stmt(const Expr& k)>& step) const {
    const std::int64_t in_word = narrow_->in_word();
    const Axis word = make_axis("k", floordiv(rows, in_word)), place = make_axis("place", in_word);
    const Expr k = first + var(word.var) * in_word;
    const Stmt read = stmt(TileLoad{p.y, p.right.buffer, p.right.base + k * b_.nr + var(place.var),
                                    p.right.stride, in_word, 1, b_.nr});
    return loop(word, LoopKind::Serial,
                block({prefetch_next(p.right, floordiv(k, in_word), in_word, p.tile_index, whole_depth()),
                       loop(place, LoopKind::Unrolled, block({read, step(k + var(place.var))}))}));
  }
  // The panel as floats, in `to`.
  Stmt widened(Assembly& a, const NarrowPanel& p, const Buffer& to) const {
    const Var i = loop_var("i", 1), j = loop_var("j", b_.nr), value = make_var("w", tile_.operands);
    return block({stmt(TileAlloc{p.y}), over_rows(p, 0, expr_of(padded_), [&](const Expr& k) {
                    const Stmt put = stmt(Store{to, k * b_.nr + var(j), var(value), {}});
                    return block({apply_blocks(a, *narrow_, c_, b_.nr, 1, p.y, p.index, k),
                                  stmt(TileStore{p.y, i, j, value, 1, b_.nr, put})});
                  })});
  }
  // c += left * the panel. A single row's sums are scaled, block by block; of several rows, what they multiply is.
  Stmt narrow_products(Assembly& a, const NarrowPanel& p, const Operand& left, const Tiles& t) const {
    const auto add = [&](const Expr& k, const Tile& to) {
      return block({stmt(TileLoad{t.x, left.buffer, left.base + k, left.stride, 1, b_.mr, 1}),
                    stmt(TileMma{to, t.x, t.y})});
    };
    const std::int64_t rows = narrow_->block;
    if (b_.mr > 1 || narrow_->zero || !k_.is_static() || k_.value() % rows != 0)
      return over_rows(p, 0, expr_of(padded_), [&](const Expr& k) {
        return block({apply_blocks(a, *narrow_, c_, b_.nr, 1, p.y, p.index, k), add(k, t.c)});
      });
    const Tile sums = std::make_shared<const TileNode>(TileNode{"sums", tile_.accumulator, 1, b_.nr}),
               one = std::make_shared<const TileNode>(TileNode{"one", tile_.operands, 1, 1});
    const Axis in_block = make_axis("block", k_.value() / rows);
    const Expr first = var(in_block.var) * rows;
    return block({stmt(TileAlloc{sums}), stmt(TileAlloc{one}),
                  stmt(TileFill{one, constant(tile_.operands, 1.0)}),
                  loop(in_block, LoopKind::Serial,
                       block({stmt(TileFill{sums, zero(tile_.accumulator)}),
                              over_rows(p, first, rows, [&](const Expr& k) { return add(k, sums); }),
                              apply_blocks(a, *narrow_, c_, b_.nr, 1, sums, p.index, first),
                              stmt(TileMma{t.c, one, sums})}))});
  }

  // Where tiles go by panel by panel, what the second cache does not hold beside weights and results is asked for a tile
  // before it is read; where a step has little room, only what comes from memory.
  bool asks_early(const Operand& left) const {
    const auto elements = left.buffer->extent.int_value();
    const std::int64_t near = has_room(kAmpleStep) ? target_.l2_bytes / kRowsShare : target_.kept_bytes;
    return prefetches() && !matrix_unit() && has_room(kRoomyStep) && left.from_any_row && elements &&
           *elements * bits(tile_.operands) / 8 > near;
  }

  // Steps of a tile that are written out one after another.
  std::int64_t steps_at_once(const Operand& left) const {
    if (!prefetches() || tile_.k != tile_.group || !k_.is_static()) return 1;
    if (left.depth.size() > 1) return kernels::steps_at_once(left.depth.back().extent / tile_.k);
    return kernels::steps_at_once(in_chunks() ? std::gcd(k_.value(), chunk_.value())
                                              : padded_.value() / tile_.k);
  }

  // Lines of the next tile's rows, row by row: those of `line` steps in so many. `turns` of `at_once` steps lead to `column`
  // without a jump.
  Stmt prefetch_left(const Operand& left, const Expr& column, const Expr& turns, std::int64_t at_once) const {
    const std::int64_t line = kLineBytes * 8 / bits(tile_.operands), in_line = line / at_once;
    const Axis one = make_axis("line", ceil_of(b_.mr, in_line));
    const Expr turn = mod(turns, in_line), row = turn * *one.extent.int_value() + var(one.var);
    return loop(one, LoopKind::Unrolled,
                stmt(Prefetch{left.buffer, left.next + row * left.stride + column - turn * at_once}));
  }

  // c += left * right, over the steps of `span`: several at a time, which ask for what will be wanted once.
  Stmt products(const Operand& left, const Operand& right, const Tiles& t, const Expr& rows,
                const Expr& tile_index, const TileEpilogue& e, bool rows_first, const Span& span) {
    const std::int64_t at_once = steps_at_once(left);
    const Axis one = make_axis("u", at_once);
    std::vector<Axis> steps;
    Expr first = 0, first_column = 0;  // the depth, and where it is in the left operand
    const std::int64_t stride = left.depth.empty() ? 1 : left.depth.back().stride;
    if (left.depth.size() > 1) {
      for (const Windows::Step& s : left.depth) {
        const std::int64_t each = &s == &left.depth.back() ? tile_.k * at_once : 1;
        steps.push_back(make_axis("k", s.extent / each));
        first = first * s.extent + var(steps.back().var) * each;
        first_column = first_column + var(steps.back().var) * (s.stride * each);
      }
    } else {
      steps.push_back(make_axis("k", ceil_of(span.count, tile_.k * at_once)));
      first = span.first + var(steps.back().var) * (tile_.k * at_once);
      first_column = first * stride;
    }
    const Expr k = first + var(one.var) * tile_.k, column = first_column + var(one.var) * (tile_.k * stride);
    const bool full_depth = tile_.in_vectors() || (k_.is_static() && k_.value() % tile_.k == 0);
    const Expr depth =
        full_depth || tile_.group > 1 ? Expr(tile_.k) : loops::min(Expr(tile_.k), expr_of(k_) - k);
    const Expr left_rows = masks_rows() ? rows : Expr(b_.mr);
    const std::int64_t group = tile_.group;
    std::vector<Stmt> before, asks, body, waits;
    if (prefetches()) {
      const std::int64_t rows_of_asks = tile_.k * at_once;
      const Expr turn = floordiv(first, rows_of_asks);
      if ((right.buffer->space == Space::Global || right.source) && !reads_right_)
        asks.push_back(
            prefetch_next(right, turn - floordiv(span.first, rows_of_asks), rows_of_asks, tile_index, span));
      if (span.is_last) prefetch_lines(e, turn, at_once, rows_first, before, asks);
      if (left.next.get() != nullptr)
        asks.push_back(prefetch_left(left, first_column, var(steps.back().var), at_once));
    }
    const Operand l = staged({left.buffer, left.base + column, left.stride, false, {}}, "a_pad", b_.mr,
                             tile_.k, left_rows, depth, before, body, waits);
    const Operand r = staged({right.buffer, right.base + k * right.stride, right.stride, false, {}}, "b_pad",
                             tile_.k, b_.nr, depth, b_.nr, before, body, waits);
    body.insert(body.end(), waits.begin(), waits.end());
    body.push_back(stmt(TileLoad{t.x, l.buffer, l.base, l.stride, 1, left_rows, depth}));
    body.push_back(stmt(TileLoad{t.y, r.buffer, r.base, r.stride * group, group, depth, b_.nr, group}));
    body.push_back(stmt(TileMma{t.c, t.x, t.y}));
    asks.push_back(loop(one, LoopKind::Unrolled, block(std::move(body))));
    Stmt multiply = block(std::move(asks));
    for (std::size_t i = steps.size(); i-- > 0;)
      multiply = loop(steps[i], LoopKind::Serial, std::move(multiply));
    before.push_back(std::move(multiply));
    return block(std::move(before));
  }

  // One tile of results: products and the epilogue.
  Stmt tile(Assembly& a, const Operand& left, const Operand& right, const Expr& panel, const Expr& first_row,
            const Expr& first_column, const Expr& tile_index, const TileEpilogue& e, bool rows_first,
            const Span& span, const Expr& waiting) {
    const bool full_rows = overlaps(left) || (m_.is_static() && m_.value() % b_.mr == 0);
    const bool full_columns = reads_right_ || (n_.is_static() && n_.value() % b_.nr == 0);
    const Expr rows = full_rows ? Expr(b_.mr) : loops::min(Expr(b_.mr), expr_of(m_) - first_row);
    const Expr columns = full_columns ? Expr(b_.nr) : loops::min(Expr(b_.nr), expr_of(n_) - first_column);

    const auto tile_of = [&](const char* name, DType t, std::int64_t height, std::int64_t width) {
      return std::make_shared<const TileNode>(TileNode{name, t, height, width});
    };
    const Tiles t{tile_of("c", tile_.accumulator, b_.mr, b_.nr), tile_of("a", tile_.operands, b_.mr, tile_.k),
                  tile_of("b", tile_.right, tile_.k, b_.nr)};
    // A chunk's sums begin with 0 and are added to those before: the error of one long chain would grow with its length.
    Stmt add;
    if (span.sums) {
      const Var i = loop_var("i", b_.mr), j = loop_var("j", b_.nr), x = make_var("x", tile_.accumulator);
      add = stmt(TileMap{t.c, i, j, x, load(span.sums, waiting + var(i) * b_.nr + var(j)) + var(x)});
    }
    const Stmt wait = stmt(Store{span.sums, waiting + var(e.i) * b_.nr + var(e.j), var(e.value), {}});
    return block({stmt(TileAlloc{t.c}), stmt(TileAlloc{t.x}), stmt(TileAlloc{t.y}),
                  stmt(TileFill{t.c, zero(tile_.accumulator)}),
                  is_narrow(right) ? narrow_products(a, {right, panel, tile_index, t.y}, left, t)
                                   : products(left, right, t, rows, tile_index, e, rows_first, span),
                  add,
                  span.is_last ? stmt(TileStore{t.c, e.i, e.j, e.value, rows, columns, e.stores})
                               : stmt(TileStore{t.c, e.i, e.j, e.value, b_.mr, b_.nr, wait})});
  }

  // Windows of few channels are many short runs, which are packed out of a copy with its border written out.
  bool packs_short_runs() const {
    if (gpu_ || tile_.operands_in != Space::Global) return false;
    const std::optional<Windows> w = windows_of(g_, c_, tile_.operands);
    return w && w->bordered && w->depth.size() > 1 && w->depth.back().extent < kShortRun;
  }
  bool packs_turned() const {
    return tile_.k == 1 && in_word_ == 1 && !gpu_ && tile_.operands_in == Space::Global && tile_.any_rows &&
           lies_turned(g_, c_);
  }
  // Packed by steps of the depth, by the task or by a phase of its own.
  Operand turned_operand(Assembly& a, const Expr& batch, const Expr& block_row, const Expr& row,
                         const Expr& t, std::vector<Stmt>& task) const {
    const std::int64_t depth = k_.value();
    const std::vector<Windows::Step> steps = {{depth, b_.mr}};
    if (shares_rows()) {
      const Buffer rows = pack_all_turned(a, c_, tile_.operands, b_.mr);
      return {rows, (batch * (b_.tiles * b_.mr) + row) * depth, 1, false, steps};
    }
    const std::int64_t size = turned_tile_size(depth, b_.mr);
    const Buffer rows = make_buffer("rows", tile_.operands, Space::Shared, b_.tiles_per_block * size);
    task.push_back(stmt(Alloc{rows}));
    const Expr count = full_blocks() ? b_.tiles_per_block
                                     : loops::min(b_.tiles_per_block, b_.tiles - floordiv(block_row, b_.mr));
    task.push_back(pack_turned(a, c_, {batch, block_row, count, b_.mr, size}, 0, depth, rows, Expr(0)));
    return {rows, t * size, 1, false, steps};
  }

  // The block's rows of the left operand: in place, packed by the task, or packed by a phase of their own (where a
  // task is a block of threads, or several groups of panels want the same rows).
  Operand left_operand(Assembly& a, const Expr& batch, const Expr& block_row, const Expr& row, const Expr& t,
                       std::vector<Stmt>& task) {
    if (windows_) {
      const WindowBuffer w = read_windows(a, c_, *windows_, tile_.operands);
      const Expr base = w.base(unflatten(batch, extents_of(c_.batch)), unflatten(row, extents_of(c_.m)));
      return {w.buffer, base, windows_->row_step, true, windows_->depth};
    }
    if (const auto p = plain(a.scope(), batch); p && (!masks_rows() || m_.value() % b_.mr == 0))
      return {p->buffer, p->first + row * p->stride, p->stride, true, {}};
    a.scope().take_checks();
    if (packs_turned()) return turned_operand(a, batch, block_row, row, t, task);
    PackedRows packed{tile_.operands, padded_, std::nullopt};
    if (packs_short_runs()) packed.copy = bordered_copy(a, c_, tile_.operands);
    const Expr stride = floordiv(expr_of(padded_) + (2 * kRowPadding - 1), kRowPadding) * kRowPadding;
    const Var v = make_var("row");
    if (gpu_ || shares_rows()) {
      const Axis all = make_axis("b", expr_of(batch_)), r = make_axis("r", expr_of(m_));
      const Expr most = gpu_ ? expr_of(m_) : loops::max(expr_of(m_), b_.tiles * b_.mr);
      const Buffer rows = a.workspace("rows", tile_.operands, expr_of(batch_) * most * stride);
      const std::vector<Axis> grid = {all, r};
      a.phase(parallel_over(grid, packed_row(a, c_, packed, {var(all.var), v, var(r.var), {}}, rows,
                                             (var(all.var) * most + var(r.var)) * stride)));
      return {rows, (batch * most + row) * stride, stride, true, {}};
    }
    const Axis r = make_axis("r", b_.tiles_per_block * b_.mr);
    const Buffer rows =
        make_buffer("rows", tile_.operands, Space::Shared, b_.tiles_per_block * b_.mr * stride);
    const bool all_valid = full_blocks() && m_.value() % b_.mr == 0;
    const Expr valid = all_valid ? Expr() : var(v) < expr_of(m_);
    task.push_back(stmt(Alloc{rows}));
    task.push_back(loop(
        r, LoopKind::Serial,
        packed_row(a, c_, packed, {batch, v, block_row + var(r.var), valid}, rows, var(r.var) * stride)));
    return {rows, t * (b_.mr * stride), stride, false, {}};
  }

  Operand right_operand(Assembly& a, const Type& packed, const Expr& batch, const Expr& panel) const {
    if (reads_right_) {
      const RightInMemory x = *right_in_memory(a.scope(), c_, batch);
      return {x.buffer, x.first + first_column_of(panel), x.by_depth, false, {}};
    }
    const Expr first = (batch * b_.panels + panel) * expr_of(padded_) * b_.nr;
    return {a.temp(0, packed, Access::Read), first, b_.nr, false, {}};
  }

  // Whether a panel of whole numbers becomes floats before the tiles of a task read it: where those are several.
  bool widens_panels() const {
    constexpr std::int64_t kSeveral = 3;
    return has_blocks() && padded_.is_static() &&
           b_.tiles_per_block.int_value().value_or(kSeveral) >= kSeveral &&
           padded_.value() * b_.nr * 4 <= target_.l2_bytes / 2;
  }

  // Whether tiles go by row by row: where there is more to read and write beside the sums than weights to read, and the
  // task's panels stay in the second cache.
  bool goes_by_rows(const TileEpilogue& e) const {
    if (gpu_) return true;
    const auto panels = b_.panels_per_group.int_value();
    if (!prefetches() || !has_room(kRoomyStep) || !panels || !k_.is_static() || !m_.is_static()) return false;
    const std::int64_t read = std::ssize(lines_of(e).read), written = 1;
    if (m_.value() * (read + written) < k_.value()) return false;
    const std::int64_t bytes = *panels * padded_.value() * b_.nr * bits(stored_) / 8;
    const bool wide = n_.is_static() && n_.value() >= 2 * k_.value();
    return bytes <= target_.l2_bytes / 2 && (wide || read > 0);
  }

  bool shares_rows() const {
    return tile_.operands_in == Space::Global && !(b_.panel_groups.int_value() == 1);
  }

  bool full_blocks() const {
    return b_.tiles.int_value() && b_.tiles_per_block.int_value() &&
           *b_.tiles.int_value() % *b_.tiles_per_block.int_value() == 0;
  }

  Call multiply(const Type& packed) {
    Assembly a(g_);
    const Axis batch = make_axis("b", expr_of(batch_)), group = make_axis("group", b_.panel_groups),
               rows = make_axis("block", b_.row_blocks);
    const Axis panel = make_axis("panel", b_.panels_per_group), t = make_axis("t", b_.tiles_per_block);
    const Expr block_row = var(rows.var) * (b_.tiles_per_block * b_.mr);
    const Var first_row = make_var("first_row"), panel_index = make_var("panel_index");
    std::vector<Stmt> task;
    Operand left = left_operand(a, var(batch.var), block_row, var(first_row), var(t.var), task);
    const bool packs = packs_in_task();
    const Operand right = packs ? Operand{} : right_operand(a, packed, var(batch.var), var(panel_index));
    const Expr tile_index = var(rows.var) * b_.tiles_per_block + var(t.var);
    Stmt row_let = stmt(Let{first_row, first_row_of(tile_index, overlaps(left))});
    const Expr column = first_column_of(var(panel_index)),
               among_all = var(batch.var) * b_.panels + var(panel_index);
    const TileEpilogue e = epilogue(a, var(batch.var), var(first_row), column);
    const bool widens = widens_panels(), rows_first = !widens && goes_by_rows(e);
    if (!rows_first && asks_early(left)) {
      const Var next_row = make_var("next_row");
      const Var from[] = {first_row};
      const Expr to[] = {var(next_row)};
      left.next = substitute(left.base, from, to);
      row_let = block({row_let, stmt(Let{next_row, first_row_of(tile_index + 1, overlaps(left))})});
    }
    const Buffer wide = make_buffer("wide", tile_.right, Space::Shared, expr_of(padded_) * b_.nr);
    const Expr panels_here = rows_first ? b_.panels_per_group : Expr(1);
    const Buffer own = make_buffer("panels", stored_, Space::Shared, panels_here * (expr_of(chunk_) * b_.nr));
    const auto if_there_is_one = [&](Stmt s) {
      return b_.panel_groups.int_value() == 1 ? s
                                              : stmt(If{var(panel_index) < b_.panels, std::move(s), nullptr});
    };
    Stmt panel_let = stmt(Let{panel_index, var(group.var) * b_.panels_per_group + var(panel.var)});
    if (widens) {
      task.push_back(stmt(Alloc{wide}));
      const Tile row = std::make_shared<const TileNode>(TileNode{"b", tile_.right, 1, b_.nr});
      panel_let = block({panel_let, if_there_is_one(widened(a, {right, among_all, 0, row}, wide))});
    }
    std::optional<RightInMemory> source;
    if (packs) {
      task.push_back(stmt(Alloc{own}));
      source = right_in_memory(a.scope(), c_, var(batch.var));
      if (source) source->first = source->first + (var(panel_index) + 1) * b_.nr * source->by_column;
      const bool in_lines = source && (source->is_turned() || source->by_column.int_value() == 1);
      if (!in_lines || rows_first || b_.tiles_per_block.int_value() == 1) source.reset();
    }
    const Expr own_row = packs && rows_first ? var(panel.var) * chunk_.value() : Expr(0);
    const auto packed_part = [&](const Span& span) {
      const PanelPart part{var(batch.var), var(panel_index), span.first, span.count};
      return block({panel_let, if_there_is_one(packed_panel(a, c_, b_.nr, part, own, own_row, target_))});
    };
    // A panel stays in the first cache while the block's tiles go by, unless what is read beside it is better read row by
    // row; a GPU's threads each take a row of tiles.
    const LoopKind kind = gpu_ ? LoopKind::Thread : LoopKind::Serial;
    const Expr waiting = (var(panel.var) * b_.tiles_per_block + var(t.var)) * (b_.mr * b_.nr);
    const auto over_tiles = [&](const Span& span) {
      Operand panel_read = right;
      if (widens) panel_read = {wide, 0, b_.nr, false, {}};
      if (packs) panel_read = {own, (own_row - span.first) * b_.nr, b_.nr, false, {}, {}, source};
      Stmt one = tile(a, left, panel_read, among_all, var(first_row), column, var(t.var), e, rows_first, span,
                      waiting);
      if (!full_blocks()) one = stmt(If{tile_index < b_.tiles, std::move(one), nullptr});
      one = if_there_is_one(std::move(one));
      if (!rows_first)
        return loop(
            panel, LoopKind::Serial,
            block({packs ? packed_part(span) : panel_let, loop(t, kind, block({row_let, std::move(one)}))}));
      return block(
          {packs ? loop(panel, LoopKind::Serial, packed_part(span)) : Stmt(),
           loop(t, kind,
                block({row_let, loop(panel, LoopKind::Serial, block({panel_let, std::move(one)}))}))});
    };
    if (!in_chunks()) {
      task.push_back(over_tiles(whole_depth()));
    } else {
      const std::int64_t depth = k_.value(), each = chunk_.value(), before = ceil_of(depth, each) - 1;
      const Expr size = b_.panels_per_group * b_.tiles_per_block * (b_.mr * b_.nr);
      const Buffer sums = make_buffer("sums", tile_.accumulator, Space::Shared, size);
      const Axis at = make_axis("i", size), chunk = make_axis("chunk", before);
      task.push_back(stmt(Alloc{sums}));
      task.push_back(loop(at, LoopKind::Vector, stmt(Store{sums, var(at.var), zero(tile_.accumulator), {}})));
      // The next panel's part or, after the last one's, the first one's next part (or what comes after the task).
      const Expr panel_size = expr_of(padded_) * b_.nr, first = var(chunk.var) * each;
      const auto next = [&](const Expr& of_panel, const Expr& after) {
        return select(var(panel.var) + 1 < b_.panels_per_group, of_panel * b_.nr + panel_size, after);
      };
      const Expr back = (first + each) * b_.nr - (b_.panels_per_group - 1) * panel_size;
      task.push_back(
          loop(chunk, LoopKind::Serial, over_tiles({first, each, next(first, back), sums, false})));
      const std::int64_t last = before * each;
      task.push_back(over_tiles({last, depth - last, next(last, panel_size), sums, true}));
    }
    const std::vector<Axis> grid =
        b_.keeps_rows ? std::vector{batch, rows, group} : std::vector{batch, group, rows};
    a.phase(parallel_over(grid, block(std::move(task))));
    return a.finish(g_.name());
  }

  const Group& g_;
  const TileShape& tile_;
  bool gpu_;
  std::optional<NarrowRight> narrow_;
  Contraction c_;
  Dim m_, n_, k_;
  std::int64_t in_word_;  // neighbours in the depth of the right operand, packed beside each other
  Dim padded_;            // k_ as the operands are packed
  Dim batch_;
  const TargetInfo& target_;
  DType stored_;  // of the right operand, packed
  std::optional<Windows> windows_;
  Dim run_;
  Dim chunk_;      // of the depth: the sums of all of a task's tiles go over one before the next
  bool is_fixed_;  // the right operand, which is packed once
  Blocking b_;
  bool reads_right_;
};

// The type that the operands are multiplied in. Products of few columns are no faster in less precision.
DType operand_type(const Node& n, const LoweringContext& context) {
  const DType type = n.in(0).dtype();
  if (type != DType::F32 || context.precision == Precision::Fp32) return type;
  const Dim columns = product_of(contraction_of(n).n);
  const bool few = columns.is_static() && columns.value() < context.target.vector_bytes / 4;
  return few ? DType::F32 : DType::BF16;
}

std::optional<GemmLowering> take(const Group& group, const LoweringContext& context, bool windows) {
  if (group.kind != GroupKind::Contraction) return std::nullopt;
  const Node& n = *group.anchor;
  const DType type = operand_type(n, context), wide = compute_type(n.outputs[0].dtype);
  const bool bytes = type != wide && wide == DType::I32;
  const bool fit_words = bytes && bits(type) <= 8 && bits(n.in(1).dtype()) <= 8;
  const DType words = fit_words ? DType::I16 : type;
  const std::pair<DType, DType> pairs[] = {
      {type, bytes ? n.in(1).dtype() : type}, {words, words}, {wide, wide}};
  for (const auto& [left, right] : pairs)
    for (const TileShape& tile : context.target.tiles)
      if (tile.operands == left && tile.right == right && tile.accumulator == wide &&
          !(tile.wants_small() && is_centred(group))) {
        GemmLowering lowering(group, tile, context, windows);
        return lowering.reads_windows() == windows ? std::optional(std::move(lowering)) : std::nullopt;
      }
  return std::nullopt;
}

}  // namespace

std::optional<Price> price_gemm(const Group& group, const LoweringContext& context) {
  const auto lowering = take(group, context, false);
  return lowering ? std::optional(lowering->price(context)) : std::nullopt;
}
std::optional<Lowered> lower_gemm(const Group& group, const LoweringContext& context) {
  auto lowering = take(group, context, false);
  return lowering ? std::optional(lowering->run(context.precision)) : std::nullopt;
}

std::optional<Price> price_gemm_windows(const Group& group, const LoweringContext& context) {
  const auto lowering = take(group, context, true);
  return lowering ? std::optional(lowering->price(context)) : std::nullopt;
}
std::optional<Lowered> lower_gemm_windows(const Group& group, const LoweringContext& context) {
  auto lowering = take(group, context, true);
  return lowering ? std::optional(lowering->run(context.precision)) : std::nullopt;
}

}  // namespace deepseek::kernels
