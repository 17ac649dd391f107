// How the gradient of a convolution's kernel is stored, whichever way has made it. Ways make it along channels of dy. Where
// memory has those innermost each result goes where it belongs. Else, as PyTorch keeps kernels, a block of channels of
// both sides waits in the task's scratchpad with all its taps and is turned on its way out, so that lines of memory are
// written whole and once.
#pragma once

#include "kernels/assembly.h"
#include "targets/target.h"

namespace deepseek::kernels {

class GradientResults {
 public:
  GradientResults(const Group& group, const TargetInfo& target);

  bool are_turned() const { return layout_.back() != 'C'; }

  // Channels of x in a block whose rows, turned, are some lines long.
  std::int64_t rows_of_block() const;

  struct Block {
    Expr row, column;       // the first channels of x and of dy
    Expr rows;              // channels of x
    std::int64_t width;     // channels of dy, a multiple of a vector's
    loops::Buffer waiting;  // where are_turned(): [row][tap][width]
  };
  // Of at most so many rows.
  loops::Buffer scratchpad(std::int64_t rows, std::int64_t width) const;

  // What becomes of a result at channels row and column of the block and a tap: to be stored, or to wait.
  std::vector<Stmt> take(Assembly& a, const Block& block, const Expr& row, const Expr& column,
                         const Expr& tap_y, const Expr& tap_x, const Expr& value) const;
  // Stores what waits; null where nothing does.
  Stmt store(Assembly& a, const Block& block) const;

 private:
  std::vector<Stmt> stored(Assembly& a, const Expr& row, const Expr& column, const Expr& tap_y,
                           const Expr& tap_x, const Expr& value) const;

  const Group& g_;
  const Node& n_;
  const std::string& layout_;
  std::int64_t columns_, taps_y_, taps_x_, taps_;
  std::int64_t lanes_;
};

}  // namespace deepseek::kernels
