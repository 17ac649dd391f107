// A contraction as a matrix product: which loops of a matmul or convolution play the parts of batch, rows
// (m), columns (n) and depth (k), and how its operands are read at their coordinates.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "kernels/scope.h"
#include "passes/groups.h"

namespace deepseek::kernels {

// A convolution's input with its border of zeros written out, so that each window is there to read.
struct Bordered {
  using Coords = std::span<const Expr>;
  std::vector<Dim> shape;
  std::function<Expr(Scope&, Coords)> element;
  std::function<std::vector<Expr>(Coords batch, Coords m, Coords k)> position;  // of an element of a window
};

struct Contraction {
  // Extents of the loops, outer to inner.
  std::vector<Dim> batch, m, n, k;
  using Coords = std::span<const Expr>;
  // Element of the left operand; where `valid` (which may be empty) is false it is 0 and nothing is read.
  std::function<Expr(Scope&, Coords batch, Coords m, Coords k, Expr valid)> left;
  std::function<Expr(Scope&, Coords batch, Coords n, Coords k, Expr valid)> right;
  std::optional<Bordered> bordered;  // the left operand as windows, where it is that
  // Coordinates of the result.
  std::function<std::vector<Expr>(Coords batch, Coords m, Coords n)> result;
};

Dim product_of(const std::vector<Dim>& dims);

// Of a node for which is_contraction holds.
Contraction contraction_of(const Node& n);

// Whether the left operand's numbers lie around a zero point that is not 0: what it adds is subtracted from the product.
bool is_centred(const Group& group);

}  // namespace deepseek::kernels
