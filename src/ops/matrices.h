// What definitions over the last two axes of a tensor share: a stack of matrices, worked on one by one.
#pragma once

#include <string>
#include <utility>

#include "ops/loop_writer.h"

namespace deepseek {

// A matrix inside a buffer.
struct Matrix {
  loops::Buffer buffer;
  Expr base, columns;

  Expr slot(const Expr& i, const Expr& j) const { return base + i * columns + j; }
  Expr at(const Expr& i, const Expr& j) const { return read(buffer, slot(i, j)); }
  Stmt set(const Expr& i, const Expr& j, Expr value) const {
    return store(buffer, slot(i, j), std::move(value));
  }
};

// Matrix number `index` of a buffer of matrices with these many rows and columns.
inline Matrix matrix_of(const loops::Buffer& buffer, const Expr& index, const Expr& rows,
                        const Expr& columns) {
  return {buffer, index * rows * columns, columns};
}

// Dims before the last `count`.
inline Shape batch_of(const Value& x, int count = 2) { return {x.shape().begin(), x.shape().end() - count}; }

inline void check_matrices(const Node& n, int input) {
  if (n.in(input).rank() < 2) bad_input(n, "matrices [..., m, n]", str(n.in(input).type()));
}
inline void check_square(const Node& n, int input) {
  check_matrices(n, input);
  if (!may_equal(n.in(input).dim(-1), n.in(input).dim(-2)))
    bad_input(n, "square matrices", str(n.in(input).type()));
}
inline void check_batch(const Node& n, int a, int b, int trailing_b = 2) {
  const Shape x = batch_of(n.in(a)), y = batch_of(n.in(b), trailing_b);
  bool fits = x.size() == y.size();
  for (std::size_t i = 0; fits && i < x.size(); ++i) fits = may_equal(x[i], y[i]);
  if (!fits) bad_input(n, "the same leading dims", str(n.in(a).type()) + " and " + str(n.in(b).type()));
}

// The smaller of two dims; one of them where that is not known.
inline Dim smaller(const Node& n, const Dim& a, const Dim& b) {
  if (a == b) return a;
  if (!a.is_static() || !b.is_static()) bad_input(n, "matrices of known size", a.str() + " and " + b.str());
  return a.value() < b.value() ? a : b;
}

}  // namespace deepseek
