#include "kernels/toom_cook.h"

#include <cmath>
#include <optional>

#include "deepseek/error.h"
#include "kernels/nest.h"

namespace deepseek::kernels {

using namespace loops;

namespace {

// The product of two polynomials, lowest power first.
std::vector<double> times(const std::vector<double>& p, const std::vector<double>& q) {
  std::vector<double> r(p.size() + q.size() - 1, 0.0);
  for (std::size_t i = 0; i < p.size(); ++i)
    for (std::size_t j = 0; j < q.size(); ++j) r[i + j] += p[i] * q[j];
  return r;
}

// (x - a) over all points a, without the one at `left_out`.
std::vector<double> vanishing(std::span<const double> points, std::size_t left_out) {
  std::vector<double> p = {1};
  for (std::size_t k = 0; k < points.size(); ++k)
    if (k != left_out) p = times(p, {-points[k], 1});
  return p;
}

// The terms of row * x whose column is of this parity, or all; empty when there is none.
Expr terms(const std::vector<double>& row, std::span<const Expr> x, std::optional<std::size_t> parity) {
  Expr sum;
  for (std::size_t j = 0; j < row.size(); ++j) {
    if (row[j] == 0 || (parity && j % 2 != *parity)) continue;
    const Expr c = constant(x[j].type(), row[j]);
    if (sum.get() == nullptr)
      sum = row[j] == 1 ? x[j] : row[j] == -1 ? -x[j] : x[j] * c;
    else
      sum = row[j] == 1 ? sum + x[j] : row[j] == -1 ? sum - x[j] : make(Op::Fma, {x[j], c, sum});
  }
  return sum;
}

// The column of this parity that alone is not zero.
std::optional<std::size_t> lone_term(const std::vector<double>& row, std::size_t parity) {
  std::optional<std::size_t> found;
  for (std::size_t j = parity; j < row.size(); j += 2) {
    if (row[j] == 0) continue;
    if (found) return std::nullopt;
    found = j;
  }
  return found;
}

constexpr double kRounding = 1e-12;

// Whether the rows are even + odd and even - odd parts.
bool mirrored(const std::vector<double>& a, const std::vector<double>& b) {
  bool has_odd = false, has_even = false;
  for (std::size_t j = 0; j < a.size(); ++j) {
    if (std::abs(b[j] - (j % 2 == 0 ? a[j] : -a[j])) > kRounding) return false;
    (j % 2 == 0 ? has_even : has_odd) |= a[j] != 0;
  }
  return has_even && has_odd;
}

Matrix transposed(const Matrix& m) {
  Matrix t(m[0].size(), std::vector<double>(m.size()));
  for (std::size_t i = 0; i < m.size(); ++i)
    for (std::size_t j = 0; j < m[0].size(); ++j) t[j][i] = m[i][j];
  return t;
}

}  // namespace

ToomCook toom_cook(std::int64_t outputs, std::int64_t taps) {
  const auto m = static_cast<std::size_t>(outputs), r = static_cast<std::size_t>(taps), n = m + r - 1;
  check(n == 4 || n == 6, "transforms of 4 or 6 points");
  const double s = std::sqrt(0.5);
  const std::vector<double> a =
      n == 4 ? std::vector<double>{0, 1, -1} : std::vector<double>{0, s, -s, 2 * s, -2 * s};
  ToomCook t{outputs, {}, {}, {}};
  t.output.resize(m);
  for (std::size_t j = 0; j < a.size(); ++j) {
    std::vector<double> row = vanishing(a, j);
    double scale = 1;
    for (std::size_t k = 0; k < a.size(); ++k)
      if (k != j) scale *= a[j] - a[k];
    row.resize(n, 0.0);
    for (double& x : row) x = std::copysign(1.0, scale) * x;
    t.input.push_back(row);
    t.kernel.emplace_back();
    for (std::size_t k = 0; k < r; ++k) t.kernel.back().push_back(std::pow(a[j], static_cast<double>(k)));
    for (std::size_t i = 0; i < m; ++i)
      t.output[i].push_back(std::pow(a[j], static_cast<double>(i)) / std::abs(scale));
  }
  t.input.push_back(vanishing(a, a.size()));
  t.kernel.emplace_back(r, 0.0);
  t.kernel.back().back() = 1;
  for (std::size_t i = 0; i < m; ++i) t.output[i].push_back(i + 1 == m ? 1 : 0);
  // Rounding must not hide that a coefficient is 0 or 1.
  for (Matrix* matrix : {&t.input, &t.kernel, &t.output})
    for (std::vector<double>& row : *matrix)
      for (double& x : row)
        if (std::abs(x - std::round(x)) < kRounding) x = std::round(x);
  return t;
}

std::vector<Expr> transform(const Matrix& matrix, std::span<const Expr> x, std::vector<Stmt>& lets) {
  std::vector<Expr> result;
  const Matrix columns = transposed(matrix);
  // Columns that mirror each other are joined first: their sum goes to even rows, their difference to odd ones.
  std::vector<Expr> even(x.begin(), x.end()), odd(x.begin(), x.end());
  Matrix for_even = matrix, for_odd = matrix;
  for (std::size_t j = 0; j + 1 < x.size(); ++j) {
    if (!mirrored(columns[j], columns[j + 1])) continue;
    even[j] = let("t", x[j] + x[j + 1], lets);
    odd[j] = let("t", x[j] - x[j + 1], lets);
    for (std::size_t i = 0; i < matrix.size(); ++i) for_even[i][j + 1] = for_odd[i][j + 1] = 0;
    ++j;
  }
  const bool joined = for_even != matrix;
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    if (joined) {
      result.push_back(
          let("t", i % 2 == 0 ? terms(for_even[i], even, {}) : terms(for_odd[i], odd, {}), lets));
    } else if (i + 1 < matrix.size() && mirrored(matrix[i], matrix[i + 1])) {
      const Expr e = let("t", terms(matrix[i], x, 0), lets);
      const auto odd_term = lone_term(matrix[i], 1);
      if (const double c = odd_term ? matrix[i][*odd_term] : 1; std::abs(c) != 1) {
        const DType t = x[*odd_term].type();
        result.push_back(let("t", make(Op::Fma, {x[*odd_term], constant(t, c), e}), lets));
        result.push_back(let("t", make(Op::Fma, {x[*odd_term], constant(t, -c), e}), lets));
      } else {
        const Expr o = let("t", terms(matrix[i], x, 1), lets);
        result.push_back(let("t", e + o, lets));
        result.push_back(let("t", e - o, lets));
      }
      ++i;
    } else {
      result.push_back(let("t", terms(matrix[i], x, {}), lets));
    }
  }
  return result;
}

void transform_2d(const Matrix& matrix, std::span<const Expr> x, std::vector<Stmt>& lets,
                  const std::function<void(std::size_t, const Expr&)>& made) {
  const std::size_t to = matrix.size(), from = matrix[0].size();
  std::vector<Expr> half(to * from);
  for (std::size_t c = 0; c < from; ++c) {
    std::vector<Expr> column;
    for (std::size_t r = 0; r < from; ++r) column.push_back(x[r * from + c]);
    const auto y = transform(matrix, column, lets);
    for (std::size_t r = 0; r < to; ++r) half[r * from + c] = y[r];
  }
  for (std::size_t r = 0; r < to; ++r) {
    const auto row = transform(matrix, std::span(half).subspan(r * from, from), lets);
    for (std::size_t c = 0; c < to; ++c) made(r * to + c, row[c]);
  }
}

std::vector<Expr> transform_row(const Matrix& matrix, std::size_t row, std::span<const Expr> x) {
  const std::size_t from = matrix[0].size();
  std::vector<Expr> half;
  for (std::size_t c = 0; c < from; ++c) {
    std::vector<Expr> column;
    for (std::size_t r = 0; r < from; ++r) column.push_back(x[r * from + c]);
    half.push_back(terms(matrix[row], column, {}));
  }
  std::vector<Stmt> lets;
  std::vector<Expr> result = transform(matrix, half, lets);
  std::vector<Var> names;
  std::vector<Expr> values;
  for (const Stmt& s : lets) {
    const Let& one = *as<Let>(s);
    values.push_back(substitute(one.value, names, values));
    names.push_back(one.var);
  }
  for (Expr& e : result) e = substitute(e, names, values);
  return result;
}

}  // namespace deepseek::kernels
