// Fewer multiplications for a short correlation: the transforms of Toom and Cook, which Winograd (and Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2015) apply in two dimensions:
//   m outputs of a correlation with r taps = output ((kernel w) * (input x)), elementwise over m + r - 1 points.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "loops/ir.h"

namespace deepseek::kernels {

using Matrix = std::vector<std::vector<double>>;

struct ToomCook {
  std::int64_t outputs;  // m
  Matrix input;          // points x points
  Matrix kernel;         // points x r
  Matrix output;         // m x points
  std::int64_t points() const { return static_cast<std::int64_t>(input.size()); }
};

// For 4 or 6 points. They are 0, infinity and pairs of opposite sign, whose results share their even and odd parts; those
// of 6 are +-sqrt(1/2) and +-sqrt(2), which halve the error of the usual +-1 and +-2. The scales that
// belong to the points are in `output`: without them a kernel's transform costs least and rounds least.
ToomCook toom_cook(std::int64_t outputs, std::int64_t taps = 3);

// matrix * x as statements: each intermediate is a Let appended to `lets`, so that it is computed once.
std::vector<loops::Expr> transform(const Matrix& matrix, std::span<const loops::Expr> x,
                                   std::vector<loops::Stmt>& lets);
// matrix * x * matrix^T, x and the result row-major; `made` gets each element, in order, as soon as there is one.
void transform_2d(
    const Matrix& matrix, std::span<const loops::Expr> x, std::vector<loops::Stmt>& lets,
    const std::function<void(std::size_t, const loops::Expr&)>&
        made);  // One row of that, without statements: its elements share what they have in common.
std::vector<loops::Expr> transform_row(const Matrix& matrix, std::size_t row, std::span<const loops::Expr> x);

}  // namespace deepseek::kernels
