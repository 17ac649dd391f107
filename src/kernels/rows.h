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
  std::optional<loops::Var> ahead = {};  // where set: the last of `row`; lines of the next row are asked for
};

// Of a group of kind Rows: the statements that compute one row's results.
std::vector<loops::Stmt> row_stages(const Group& group, RowContext context);
// The axes that are reduced.
Shape row_shape_of(const Group& group);

}  // namespace deepseek::kernels
