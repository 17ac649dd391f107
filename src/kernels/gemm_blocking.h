// How a matrix product is cut into tiles, blocks of rows and groups of panels.
#pragma once

#include "kernels/scope.h"
#include "targets/target.h"

namespace deepseek::kernels {

constexpr std::int64_t kRowPadding = 16;  // elements: keeps packed rows off the same cache sets
constexpr double kRowRoom = 0.75;         // of the second cache, for a task's rows

struct Blocking {
  std::int64_t mr, nr;   // the tile
  Expr tiles;            // rows of tiles in all
  Expr tiles_per_run;    // of neighbouring rows that tiles do not cross
  Expr tiles_per_block;  // rows of tiles per task
  Expr row_blocks;
  Expr panels, panels_per_group, panel_groups;
  // Tasks go by blocks of rows, so that a thread keeps to its own: it finds in its cache what it wrote a step before,
  // which costs more to fetch from another thread's than weights, asked for in time, from memory.
  bool keeps_rows = false;
};

// `run`: rows that tiles do not cross, all m or what divides them. `packs_right`: in each run. `in_place`: rows
// are read where they are; only then do several tasks read the same ones where their number is unknown. `room`: what of
// the second cache a task's rows may take.
Blocking block_for(const Dim& m, const Dim& run, const Dim& n, const Dim& k, const Dim& batch,
                   const TileShape& tile, const TargetInfo& target, int threads, bool packs_right = false,
                   bool in_place = false, double room = kRowRoom);

}  // namespace deepseek::kernels
