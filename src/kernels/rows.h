// The stages of one row: reductions over the trailing axes with what is elementwise around them.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/lowered.h"
#include "kernels/scope.h"

namespace deepseek::kernels {

// Where a result's elements go.
struct RowPlace {
  loops::Buffer buffer;
  std::function<Expr(std::span<const Expr> coords)>
      index;  // of the element at these coordinates of the result
};

struct RowContext {
  Scope* scope;
  std::vector<Expr> row;  // the coordinates along the axes that are not reduced
  // Asked once for each result; `read_back`: stages read what others have written there.
  std::function<RowPlace(Value result, bool read_back)> place;
  struct Turn {
    loops::Var row;
    Expr first, count;
  };
  std::optional<Turn> in_turn =
      {};  // where set: so many rows, one after another; `row` has its variable last
};

// Of a group of kind Rows: the statements that compute one row's results, or those of rows in turn.
std::vector<loops::Stmt> row_stages(const Group& group, RowContext context);
// How a reduction combines.
loops::Reducer reducer_of(const Node& n);
// The axes that are reduced.
Shape row_shape_of(const Group& group);

}  // namespace deepseek::kernels
