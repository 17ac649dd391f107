// Triangular factors of matrices, and systems with them.
// Algorithms: G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., 3.4 (LU), 4.2 (Cholesky), 3.1.
#include "ops/matrices.h"

namespace deepseek {
namespace {

// Copies input 0 to output 0.
void copy_input(const Node& n, ProgramBuilder& p) {
  const loops::Buffer x = p.input(0), y = p.output(0);
  p.phase(for_each(p.dim(numel(n.in(0).shape())), kCopyBlock,
                   [&](const Expr& i) { return store(y, i, loops::load(x, i)); }));
}

// -- lu ------------------------------------------------------------------------------------------------------------

std::vector<Type> infer_lu(const Node& n) {
  check_matrices(n, 0);
  Shape pivots = batch_of(n.in(0)), info = pivots;
  pivots.push_back(smaller(n, n.in(0).dim(-2), n.in(0).dim(-1)));
  return {n.in(0).type(), {DType::I32, pivots}, {DType::I32, info}};
}

// Exchanges two rows.
Stmt swap_rows(const Matrix& a, const Expr& i, const Expr& k, const Expr& columns) {
  return lanes("j", columns, [&](const Expr& j) {
    const Named above = let("above", a.at(i, j)), below = let("below", a.at(k, j));
    return loops::block({above.let, below.let, a.set(i, j, below.value), a.set(k, j, above.value)});
  });
}

void lu(const Node& n, ProgramBuilder& p) {
  copy_input(n, p);
  const Expr rows = p.dim(n.in(0).dim(-2)), columns = p.dim(n.in(0).dim(-1));
  const Expr steps = p.dim(n.outputs[1].shape.back());
  const loops::Buffer out = p.output(0), pivots = p.output(1), info = p.output(2);
  const DType type = compute_type(out->dtype);
  p.phase(parallel("matrix", p.dim(numel(batch_of(n.in(0)))), [&](const Expr& m) {
    const Matrix a = matrix_of(out, m, rows, columns);
    const Cell failed("failed", DType::I64), best("best", type), row("row", DType::I64);
    const Stmt eliminate = serial("k", steps, [&](const Expr& k) {
      const Expr below = rows - k - Expr(1);
      const Stmt search = serial("i", below, [&](const Expr& i) {
        const Named size = let("size", loops::make(loops::Op::Abs, {a.at(k + Expr(1) + i, k)}));
        return loops::block({size.let, when(best.get() < size.value,
                                            loops::block({best.set(size.value), row.set(k + Expr(1) + i)}))});
      });
      const Named found = let("found", row.get()), pivot = let("pivot", a.at(k, k));
      const Stmt reduce = serial("i", below, [&](const Expr& i) {
        const Expr r = k + Expr(1) + i;
        const Named factor = let("factor", a.at(r, k) / pivot.value);
        return loops::block(
            {factor.let, a.set(r, k, factor.value), lanes("j", columns - k - Expr(1), [&](const Expr& j) {
               const Expr c = k + Expr(1) + j;
               return a.set(r, c, a.at(r, c) - factor.value * a.at(k, c));
             })});
      });
      const Stmt fail = when(failed.get() == Expr(0), failed.set(k + Expr(1)));
      return loops::block({best.declare(loops::make(loops::Op::Abs, {a.at(k, k)})), row.declare(k), search,
                           found.let, store(pivots, m * steps + k, found.value + Expr(1)),
                           when(found.value != k, swap_rows(a, k, found.value, columns)), pivot.let,
                           when(pivot.value != loops::zero(type), reduce, fail)});
    });
    return loops::block({failed.declare(Expr(0)), eliminate, store(info, m, failed.get())});
  }));
}

void add_lu(OpTable& t) {
  t.add("lu")
      .doc(
          "P x = L U with partial pivoting, LAPACK's getrf: L (unit diagonal, not stored) below and U on and "
          "above the diagonal of one matrix; the row that each row was exchanged with, counted from 1; and 0 "
          "or the number, from 1, of the first zero on U's diagonal.")
      .input("x", Accepts::Float)
      .infer(infer_lu)
      .program(lu);
}

void add_permutation_of_pivots(OpTable& t) {
  t.add("permutation_of_pivots")
      .doc("The order of rows that the exchanges of `lu` lead to: row y[i] of x stands at i then.")
      .input("pivots", Accepts::Index)
      .attr("size", AttrKind::Shape, "How many rows: a list of one.")
      .infer([](const Node& n) {
        if (n.in(0).rank() < 1) bad_input(n, "pivots [..., k]", str(n.in(0).type()));
        if (shape_attr(n, "size").size() != 1) bad_input(n, "one size", str(shape_attr(n, "size")));
        Shape shape = batch_of(n.in(0), 1);
        shape.push_back(shape_attr(n, "size")[0]);
        return std::vector<Type>{{DType::I64, shape}};
      })
      .program([](const Node& n, ProgramBuilder& p) {
        const Expr rows = p.dim(n.outputs[0].shape.back()), steps = p.dim(n.in(0).dim(-1));
        const loops::Buffer pivots = p.input(0), y = p.output(0);
        p.phase(parallel("matrix", p.dim(numel(batch_of(n.in(0), 1))), [&](const Expr& m) {
          const Stmt start = lanes("i", rows, [&](const Expr& i) { return store(y, m * rows + i, i); });
          const Stmt exchange = serial("k", steps, [&](const Expr& k) {
            const Named other = let("other", read_index(pivots, m * steps + k) - Expr(1));
            const Named above = let("above", loops::load(y, m * rows + k));
            const Named below = let("below", loops::load(y, m * rows + other.value));
            const Stmt swap = loops::block({above.let, below.let, store(y, m * rows + k, below.value),
                                            store(y, m * rows + other.value, above.value)});
            const Expr valid = Expr(0) <= other.value && other.value < rows && k < rows;
            return loops::block({other.let,
                                 p.require(valid, "permutation_of_pivots: a pivot is out of range"),
                                 when(valid, swap)});
          });
          return loops::block({start, exchange});
        }));
      });
}

// -- triangular_solve ------------------------------------------------------------------------------------------------

std::vector<Type> infer_triangular_solve(const Node& n) {
  check_square(n, 0);
  check_matrices(n, 1);
  check_batch(n, 0, 1);
  if (!may_equal(n.in(0).dim(-1), n.in(1).dim(-2)))
    bad_input(n, "b [..., " + n.in(0).dim(-1).str() + ", k]", str(n.in(1).type()));
  return {n.in(1).type()};
}

void triangular_solve(const Node& n, ProgramBuilder& p) {
  const Expr size = p.dim(n.in(1).dim(-2)), columns = p.dim(n.in(1).dim(-1));
  const loops::Buffer a = p.input(0), b = p.input(1), y = p.output(0);
  const bool upper = flag(n, "upper"), unit = flag(n, "unit");
  const Expr blocks = ceil_div(columns, kColumnBlock);
  p.phase(parallel("block", p.dim(numel(batch_of(n.in(1)))) * blocks, [&](const Expr& block) {
    const Expr m = loops::floordiv(block, blocks), first = loops::mod(block, blocks) * Expr(kColumnBlock);
    const Matrix coefficients = matrix_of(a, m, size, size), right = matrix_of(b, m, size, columns),
                 out = matrix_of(y, m, size, columns);
    const Expr width = loops::min(Expr(kColumnBlock), columns - first);
    return serial("step", size, [&](const Expr& step) {
      const Named i = let("i", upper ? size - Expr(1) - step : step);
      const Stmt start = lanes("j", width, [&](const Expr& j) {
        return out.set(i.value, first + j, right.at(i.value, first + j));
      });
      const Stmt subtract = serial("r", step, [&](const Expr& r) {
        const Named known = let("known", upper ? size - Expr(1) - r : r);
        const Named factor = let("factor", coefficients.at(i.value, known.value));
        return loops::block({known.let, factor.let, lanes("j", width, [&](const Expr& j) {
                               const Expr c = first + j;
                               return out.set(i.value, c,
                                              out.at(i.value, c) - factor.value * out.at(known.value, c));
                             })});
      });
      const Named pivot = let("pivot", coefficients.at(i.value, i.value));
      const Stmt divide = loops::block({pivot.let, lanes("j", width, [&](const Expr& j) {
                                          const Expr c = first + j;
                                          return out.set(i.value, c, out.at(i.value, c) / pivot.value);
                                        })});
      std::vector<Stmt> steps = {i.let, start, subtract};
      if (!unit) steps.push_back(divide);
      return loops::block(steps);
    });
  }));
}

std::vector<Value> triangular_solve_gradient(Graph& graph, const Node& n, std::span<const Value> dys,
                                             const std::vector<bool>& needed) {
  std::vector<Value> result(2);
  if (!dys[0]) return result;
  GraphBuilder g(graph);
  const bool upper = flag(n, "upper"), unit = flag(n, "unit");
  const Value db =
      g.op("triangular_solve", {g.swap_last_two(n.in(0)), dys[0]}, {{"upper", !upper}, {"unit", unit}});
  result[1] = db;
  if (needed[0]) {
    const Value whole = g.neg(g.matmul(db, g.swap_last_two(n.out())));
    const std::int64_t k = unit ? (upper ? 1 : -1) : 0;
    result[0] = g.op("triangular", {whole}, {{"upper", upper}, {"k", Shape{Dim(k)}}});
  }
  return result;
}

void add_triangular_solve(OpTable& t) {
  t.add("triangular_solve")
      .doc(
          "y with a y = b for triangular a; the other triangle of a is not read. A zero on its diagonal "
          "gives infinities and NaN.")
      .input("a", Accepts::Float)
      .input("b", Accepts::Float)
      .attr("upper", AttrKind::Bool, false, "Whether a's upper triangle counts.")
      .attr("unit", AttrKind::Bool, false, "Whether a's diagonal is taken to be 1, and not read.")
      .infer(infer_triangular_solve)
      .program(triangular_solve)
      .gradient(triangular_solve_gradient);
}

// -- cholesky ----------------------------------------------------------------------------------------------------------

void cholesky(const Node& n, ProgramBuilder& p) {
  const Expr size = p.dim(n.in(0).dim(-1));
  const loops::Buffer x = p.input(0), y = p.output(0), info = p.output(1);
  const DType type = compute_type(y->dtype);
  const Expr zero = loops::zero(type);
  p.phase(parallel("matrix", p.dim(numel(batch_of(n.in(0)))), [&](const Expr& m) {
    const Matrix a = matrix_of(x, m, size, size), factor = matrix_of(y, m, size, size);
    const Cell failed("failed", DType::I64), sum("sum", type);
    // sum = a[i][j] less the product of rows i and j of the factor so far.
    const auto rest = [&](const Expr& i, const Expr& j) {
      return loops::block({sum.declare(a.at(i, j)), serial("k", j, [&](const Expr& k) {
                             return sum.set(sum.get() - factor.at(i, k) * factor.at(j, k));
                           })});
    };
    const Stmt columns = serial("j", size, [&](const Expr& j) {
      const Named square = let("square", sum.get());
      const Stmt check = when(!(zero < square.value) && failed.get() == Expr(0), failed.set(j + Expr(1)));
      const Stmt diagonal = factor.set(j, j, loops::make(loops::Op::Sqrt, {square.value}));
      const Stmt below = serial("i", size - j - Expr(1), [&](const Expr& i) {
        const Expr row = j + Expr(1) + i;
        return loops::block({rest(row, j), factor.set(row, j, sum.get() / factor.at(j, j))});
      });
      const Stmt above = serial("i", j, [&](const Expr& i) { return factor.set(i, j, zero); });
      return loops::block({loops::block({rest(j, j), square.let, check, diagonal}), below, above});
    });
    return loops::block({failed.declare(Expr(0)), columns, store(info, m, failed.get())});
  }));
}

void add_cholesky(OpTable& t) {
  t.add("cholesky")
      .doc(
          "The lower triangular y with y y^T = x, for symmetric positive definite x of which the lower "
          "triangle is read; and 0 or the number, from 1, of the first leading minor that is not positive "
          "definite (y holds NaN from there on).")
      .input("x", Accepts::Float)
      .infer([](const Node& n) {
        check_square(n, 0);
        return std::vector<Type>{n.in(0).type(), {DType::I32, batch_of(n.in(0))}};
      })
      .program(cholesky);
}

}  // namespace

void add_factor_ops(OpTable& t) {
  add_lu(t);
  add_permutation_of_pivots(t);
  add_triangular_solve(t);
  add_cholesky(t);
}

}  // namespace deepseek
