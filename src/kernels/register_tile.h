// What schedules of register tiles share: how many rows a tile gets, and asking for its operands early.
#pragma once

#include <functional>

#include "deepseek/shape.h"
#include "loops/ir.h"
#include "targets/target.h"

namespace deepseek::kernels {

constexpr std::int64_t kLineBytes = 64;  // of the caches

// Division that rounds up.
inline std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline loops::Expr ceil_of(const loops::Expr& a, std::int64_t b) { return loops::floordiv(a + (b - 1), b); }

// The tile that multiplies floats in vector registers, out of memory; null where the target has none.
const TileShape* register_tile(const TargetInfo& target);

// Sizes that are found when a kernel runs are priced as if each symbol were this: a batch of several.
constexpr std::int64_t kSupposedSize = 8;

// What a size is where each of its symbols is `symbol`; at least 1.
std::int64_t size_where(std::int64_t symbol, const Dim& size);

// Rows per tile for m rows in all and at most `most` per tile, so that few tiles do few rows twice. A row of a tile has so
// many vectors; so many threads share the rows.
std::int64_t tile_rows(const Dim& m, std::int64_t most, std::int64_t vectors = 2, std::int64_t shares = 1);

// What `rows` rows in tiles of r rows cost, in rows: what is done twice and the overhead of a tile count, and waiting for
// whoever has a tile more.
double tile_cost(std::int64_t rows, std::int64_t r, std::int64_t vectors = 2, std::int64_t shares = 1);
// What so many multiply-adds of full tiles cost, in multiply-adds, beside streaming so many elements of weights, which
// nobody has in cache when a whole model runs: the smaller part hides for the most part behind the larger.
double cost_of(double multiplies, double weights, const TargetInfo& target);

// How many of so many steps of a tile are written out one after another: they ask together for what is wanted once for
// all, since asking again for a line on its way holds up what reads.
constexpr std::int64_t kStepsAtOnce = 4;  // at most
std::int64_t steps_at_once(std::int64_t steps);

// Weights come from memory when a whole model runs: while a panel of `depth` rows of nr elements is multiplied, step k
// of each tile asks for a line of the next one, whose element i lies at `next(i)`, and tiles take turns with the lines of a row. `tiles`:
// of so many, few ask for several lines each, and many for one in several steps, since lines that are asked for at once
// keep those waiting that are needed now; 1: as much as it reads, a little ahead; 0: one in each step.
using PlaceOf = std::function<loops::Expr(const loops::Expr& element)>;
loops::Stmt prefetch_panel(const loops::Buffer& panels, const PlaceOf& next, const loops::Expr& depth,
                           std::int64_t nr, const loops::Expr& k, const loops::Expr& tile,
                           std::int64_t tiles = 0);

}  // namespace deepseek::kernels
