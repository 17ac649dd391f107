// Orthogonal transformations of matrices: reflections (QR) and rotations (singular values, eigenvalues).
// Algorithms: G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., 5.1-5.2 (Householder), 8.5 (Jacobi),
// 8.6.3 (one-sided Jacobi).
#include "ops/matrices.h"

namespace deepseek {
namespace {

Expr absolute(const Expr& x) { return loops::make(loops::Op::Abs, {x}); }
Expr square_root(const Expr& x) { return loops::make(loops::Op::Sqrt, {x}); }

// -- householder ---------------------------------------------------------------------------------------------------

// c[r ...][j] -= scale * v (v^T c[r ...][j]) for columns first + j, v = (1, a[r+1 ...][r]). `products` has room for
// those columns.
Stmt reflect(const Matrix& c, const Matrix& a, const Expr& r, const Expr& scale, const Expr& rows,
             const Expr& first, const Expr& count, const loops::Buffer& products) {
  const Expr below = rows - r - Expr(1);
  const Stmt start = lanes("j", count, [&](const Expr& j) { return store(products, j, c.at(r, first + j)); });
  const Stmt add = serial("i", below, [&](const Expr& i) {
    const Expr row = r + Expr(1) + i;
    const Named v = let("v", a.at(row, r));
    return loops::block({v.let, lanes("j", count, [&](const Expr& j) {
                           return store(products, j, read(products, j) + v.value * c.at(row, first + j));
                         })});
  });
  const Stmt top = lanes("j", count, [&](const Expr& j) {
    const Named step = let("step", scale * read(products, j));
    return loops::block(
        {step.let, store(products, j, step.value), c.set(r, first + j, c.at(r, first + j) - step.value)});
  });
  const Stmt rest = serial("i", below, [&](const Expr& i) {
    const Expr row = r + Expr(1) + i;
    const Named v = let("v", a.at(row, r));
    return loops::block({v.let, lanes("j", count, [&](const Expr& j) {
                           return c.set(row, first + j, c.at(row, first + j) - v.value * read(products, j));
                         })});
  });
  return loops::block({start, add, top, rest});
}

std::vector<Type> infer_householder(const Node& n) {
  check_matrices(n, 0);
  Shape scales = batch_of(n.in(0));
  scales.push_back(smaller(n, n.in(0).dim(-2), n.in(0).dim(-1)));
  return {n.in(0).type(), {n.in(0).dtype(), scales}};
}

void householder(const Node& n, ProgramBuilder& p) {
  const loops::Buffer x = p.input(0), out = p.output(0), scales = p.output(1);
  const DType type = compute_type(out->dtype);
  const Expr zero = loops::zero(type);
  p.phase(for_each(p.dim(numel(n.in(0).shape())), kCopyBlock,
                   [&](const Expr& i) { return store(out, i, loops::load(x, i)); }));
  const Expr rows = p.dim(n.in(0).dim(-2)), columns = p.dim(n.in(0).dim(-1));
  const Expr steps = p.dim(n.outputs[1].shape.back());
  p.phase(parallel("matrix", p.dim(numel(batch_of(n.in(0)))), [&](const Expr& m) {
    const Matrix a = matrix_of(out, m, rows, columns);
    const loops::Buffer products = loops::make_buffer("products", type, loops::Space::Shared, columns);
    const Cell squares("squares", type);
    const Stmt step = serial("k", steps, [&](const Expr& k) {
      const Expr below = rows - k - Expr(1);
      const Stmt sum = serial("i", below, [&](const Expr& i) {
        const Named v = let("v", a.at(k + Expr(1) + i, k));
        return loops::block({v.let, squares.set(squares.get() + v.value * v.value)});
      });
      const Named head = let("head", a.at(k, k)), tail = let("tail", squares.get());
      const Named size = let("size", square_root(head.value * head.value + tail.value));
      const Named target = let("target", loops::select(head.value < zero, size.value, -size.value));
      const Named scale = let("scale", (target.value - head.value) / target.value);
      const Stmt divide = serial("i", below, [&](const Expr& i) {
        const Expr row = k + Expr(1) + i;
        return a.set(row, k, a.at(row, k) / (head.value - target.value));
      });
      const Stmt eliminate =
          loops::block({size.let, target.let, scale.let, divide, a.set(k, k, target.value),
                        store(scales, m * steps + k, scale.value),
                        reflect(a, a, k, scale.value, rows, k + Expr(1), columns - k - Expr(1), products)});
      return loops::block({squares.declare(zero), sum, head.let, tail.let,
                           when(tail.value == zero, store(scales, m * steps + k, zero), eliminate)});
    });
    return loops::block({loops::stmt(loops::Alloc{products}), step});
  }));
}

void add_householder(OpTable& t) {
  t.add("householder")
      .doc(
          "x = Q R, LAPACK's geqrf: R on and above the diagonal; below it in column k what follows the "
          "leading 1 of a vector v_k; and the scales s_k. Q = H_0 H_1 ... with H_k = I - s_k v_k v_k^T.")
      .input("x", Accepts::Float)
      .infer(infer_householder)
      .program(householder);
}

std::vector<Type> infer_apply(const Node& n) {
  check_matrices(n, 0);
  check_matrices(n, 2);
  check_batch(n, 0, 1, 1);
  check_batch(n, 0, 2);
  if (!may_equal(n.in(0).dim(-2), n.in(2).dim(-2)))
    bad_input(n, "c [..., " + n.in(0).dim(-2).str() + ", p]", str(n.in(2).type()));
  if (!may_be_at_most(n.in(1).dim(-1), n.in(0).dim(-1)))
    bad_input(n, "at most as many scales as vectors", str(n.in(1).type()));
  return {n.in(2).type()};
}

void apply_householder(const Node& n, ProgramBuilder& p) {
  const loops::Buffer vectors = p.input(0), scales = p.input(1), c = p.input(2), out = p.output(0);
  p.phase(for_each(p.dim(numel(n.in(2).shape())), kCopyBlock,
                   [&](const Expr& i) { return store(out, i, loops::load(c, i)); }));
  const Expr rows = p.dim(n.in(0).dim(-2)), width = p.dim(n.in(0).dim(-1));
  const Expr columns = p.dim(n.in(2).dim(-1)), count = p.dim(n.in(1).dim(-1));
  const Expr blocks = ceil_div(columns, kColumnBlock);
  const DType type = compute_type(out->dtype);
  const bool transpose = flag(n, "transpose");
  p.phase(parallel("block", p.dim(numel(batch_of(n.in(2)))) * blocks, [&](const Expr& block) {
    const Expr m = loops::floordiv(block, blocks), first = loops::mod(block, blocks) * Expr(kColumnBlock);
    const Matrix a = matrix_of(vectors, m, rows, width), y = matrix_of(out, m, rows, columns);
    const loops::Buffer products =
        loops::make_buffer("products", type, loops::Space::Shared, Expr(kColumnBlock));
    const Stmt steps = serial("step", count, [&](const Expr& step) {
      const Named r = let("r", transpose ? step : count - Expr(1) - step);
      const Named scale = let("scale", read(scales, m * count + r.value));
      return loops::block({r.let, scale.let,
                           reflect(y, a, r.value, scale.value, rows, first,
                                   loops::min(Expr(kColumnBlock), columns - first), products)});
    });
    return loops::block({loops::stmt(loops::Alloc{products}), steps});
  }));
}

void add_apply_householder(OpTable& t) {
  t.add("apply_householder")
      .doc("Q c, or Q^T c, for the Q that vectors and scales of `householder` stand for.")
      .input("vectors", Accepts::Float)
      .input("scales", Accepts::Float)
      .input("c", Accepts::Float)
      .attr("transpose", AttrKind::Bool, false, "Whether Q^T is applied.")
      .infer(infer_apply)
      .program(apply_householder);
}

// -- rotations -----------------------------------------------------------------------------------------------------

constexpr std::int64_t kSweeps = 60;  // quadratic convergence: about ten are enough for any matrix

// What turns the pair of axes so that `off`, between them, becomes 0; `first` and `second` lie on them.
struct Rotation {
  std::vector<Stmt> before;
  Expr cos, sin;
};
Rotation rotation(const Expr& first, const Expr& second, const Expr& off) {
  const Named slope = let("slope", (second - first) / (off * Expr(2.0)));
  const Named root = let("root", square_root(Expr(1.0) + slope.value * slope.value));
  const Expr one = loops::one(DType::F64);
  const Named tangent = let("tangent", loops::select(slope.value < loops::zero(DType::F64), -one, one) /
                                           (absolute(slope.value) + root.value));
  const Named cos = let("cos", one / square_root(one + tangent.value * tangent.value));
  const Named sin = let("sin", cos.value * tangent.value);
  return {{slope.let, root.let, tangent.let, cos.let, sin.let}, cos.value, sin.value};
}
// Turns x[first + i*step], x[second + i*step] for i < count.
Stmt turn(const loops::Buffer& x, const Expr& first, const Expr& second, const Expr& step, const Expr& count,
          const Rotation& r) {
  return lanes("i", count, [&](const Expr& i) {
    const Named a = let("a", read(x, first + i * step)), b = let("b", read(x, second + i * step));
    return loops::block({a.let, b.let, store(x, first + i * step, r.cos * a.value - r.sin * b.value),
                         store(x, second + i * step, r.sin * a.value + r.cos * b.value)});
  });
}

// Runs `pair` for all p < q < size, again and again until no pair sets `turned`.
Stmt sweeps(const Expr& size, const Cell& turned,
            const std::function<Stmt(const Expr& p, const Expr& q)>& pair) {
  const Cell sweep("sweep", DType::I64);
  const Stmt pairs = serial("p", size, [&](const Expr& p) {
    return serial("k", size - p - Expr(1), [&](const Expr& k) {
      const Named q = let("q", p + Expr(1) + k);
      return loops::block({q.let, pair(p, q.value)});
    });
  });
  return loops::block({sweep.declare(Expr(0)), turned.declare(Expr(1)),
                       loops::stmt(loops::While{
                           turned.get() != Expr(0) && sweep.get() < Expr(kSweeps),
                           loops::block({turned.set(Expr(0)), pairs, sweep.set(sweep.get() + Expr(1))})})});
}

Stmt identity_matrix(const loops::Buffer& x, const Expr& size) {
  return serial("i", size, [&](const Expr& i) {
    return lanes("j", size, [&](const Expr& j) {
      return store(x, i * size + j, loops::select(i == j, loops::one(DType::F64), loops::zero(DType::F64)));
    });
  });
}

// position = how many of keys[0, size) come before keys[i]; equal ones keep their order.
Stmt rank_of(const loops::Buffer& keys, const Expr& size, const Expr& i, bool descending,
             const Cell& position) {
  const Named own = let("own", read(keys, i));
  return loops::block({position.declare(Expr(0)), own.let, serial("other", size, [&](const Expr& other) {
                         const Expr key = read(keys, other);
                         const Expr before = descending ? own.value < key : key < own.value;
                         return when(before || (key == own.value && other < i),
                                     position.set(position.get() + Expr(1)));
                       })});
}

std::vector<Type> infer_svd(const Node& n) {
  check_matrices(n, 0);
  if (!may_be_at_most(n.in(0).dim(-1), n.in(0).dim(-2)))
    bad_input(n, "matrices of at least as many rows as columns", str(n.in(0).type()));
  Shape values = batch_of(n.in(0)), right = n.in(0).shape();
  values.push_back(n.in(0).dim(-1));
  right[right.size() - 2] = n.in(0).dim(-1);
  return {{n.in(0).dtype(), values}, n.in(0).type(), {n.in(0).dtype(), right}};
}

// Turns pairs of columns until all are orthogonal: x V = U S. Columns lie in rows of scratch memory, in float64.
void svd(const Node& n, ProgramBuilder& p) {
  const loops::Buffer x = p.input(0), s = p.output(0), u = p.output(1), v = p.output(2);
  const Expr rows = p.dim(n.in(0).dim(-2)), size = p.dim(n.in(0).dim(-1));
  const DType type = DType::F64;
  const Expr zero = loops::zero(type);
  constexpr double kOrthogonal = 0x1p-52;
  p.phase(parallel("matrix", p.dim(numel(batch_of(n.in(0)))), [&](const Expr& m) {
    const Matrix a = matrix_of(x, m, rows, size), left = matrix_of(u, m, rows, size),
                 right = matrix_of(v, m, size, size);
    const loops::Buffer w = loops::make_buffer("w", type, loops::Space::Shared, rows * size),
                        turns = loops::make_buffer("turns", type, loops::Space::Shared, size * size),
                        norms = loops::make_buffer("norms", type, loops::Space::Shared, size);
    const Stmt fill = serial("j", size, [&](const Expr& j) {
      return lanes("i", rows,
                   [&](const Expr& i) { return store(w, j * rows + i, loops::cast(type, a.at(i, j))); });
    });
    const Cell first("first", type), second("second", type), off("off", type), turned("turned", DType::I64);
    const Stmt turning = sweeps(size, turned, [&](const Expr& i, const Expr& j) {
      const Stmt products = serial("k", rows, [&](const Expr& k) {
        const Named one = let("one", read(w, i * rows + k)), other = let("other", read(w, j * rows + k));
        return loops::block({one.let, other.let, first.set(first.get() + one.value * one.value),
                             second.set(second.get() + other.value * other.value),
                             off.set(off.get() + one.value * other.value)});
      });
      const Named a2 = let("a2", first.get()), b2 = let("b2", second.get()), ab = let("ab", off.get());
      const Rotation r = rotation(a2.value, b2.value, ab.value);
      std::vector<Stmt> steps = r.before;
      steps.push_back(turned.set(Expr(1)));
      steps.push_back(turn(w, i * rows, j * rows, Expr(1), rows, r));
      steps.push_back(turn(turns, i * size, j * size, Expr(1), size, r));
      const Expr limit = loops::constant(type, kOrthogonal) * square_root(a2.value * b2.value);
      return loops::block({first.declare(zero), second.declare(zero), off.declare(zero), products, a2.let,
                           b2.let, ab.let, when(limit < absolute(ab.value), loops::block(steps))});
    });
    const Cell total("total", type), largest("largest", type), position("position", DType::I64);
    const Stmt measure = serial("j", size, [&](const Expr& j) {
      const Stmt squares = serial("i", rows, [&](const Expr& i) {
        const Named e = let("e", read(w, j * rows + i));
        return loops::block({e.let, total.set(total.get() + e.value * e.value)});
      });
      const Named norm = let("norm", square_root(total.get()));
      return loops::block({total.declare(zero), squares, norm.let, store(norms, j, norm.value),
                           largest.set(loops::max(largest.get(), norm.value))});
    });
    const Stmt write = serial("j", size, [&](const Expr& j) {
      const Named at = let("at", position.get()), norm = let("norm", read(norms, j));
      // Below this a column is rounding alone and has no direction.
      const Named real = let("real", loops::constant(type, kOrthogonal) * largest.get() < norm.value);
      const Stmt columns = lanes("i", rows, [&](const Expr& i) {
        return left.set(i, at.value, loops::select(real.value, read(w, j * rows + i) / norm.value, zero));
      });
      const Stmt turned_columns =
          lanes("i", size, [&](const Expr& i) { return right.set(i, at.value, read(turns, j * size + i)); });
      return loops::block({rank_of(norms, size, j, true, position), at.let, norm.let, real.let,
                           store(s, m * size + at.value, norm.value), columns, turned_columns});
    });
    return loops::block({loops::stmt(loops::Alloc{w}), loops::stmt(loops::Alloc{turns}),
                         loops::stmt(loops::Alloc{norms}), fill, identity_matrix(turns, size), turning,
                         largest.declare(zero), measure, write});
  }));
}

void add_svd(OpTable& t) {
  t.add("jacobi_svd")
      .doc(
          "x = U diag(s) V^T of matrices with at least as many rows as columns: s [n] (largest first), U "
          "[m, n], V [n, n]. U's columns of singular values that are nothing but rounding are 0.")
      .input("x", Accepts::Float)
      .infer(infer_svd)
      .program(svd);
}

void eigen(const Node& n, ProgramBuilder& p) {
  const loops::Buffer x = p.input(0), values = p.output(0), vectors = p.output(1);
  const Expr size = p.dim(n.in(0).dim(-1));
  const DType type = DType::F64;
  const Expr zero = loops::zero(type);
  constexpr double kNothing = 0x1p-53;  // of the whole matrix
  p.phase(parallel("matrix", p.dim(numel(batch_of(n.in(0)))), [&](const Expr& m) {
    const Matrix a = matrix_of(x, m, size, size), out = matrix_of(vectors, m, size, size);
    const loops::Buffer w = loops::make_buffer("w", type, loops::Space::Shared, size * size),
                        turns = loops::make_buffer("turns", type, loops::Space::Shared, size * size),
                        keys = loops::make_buffer("keys", type, loops::Space::Shared, size);
    const Cell total("total", type), turned("turned", DType::I64), position("position", DType::I64);
    const Stmt fill = serial("i", size, [&](const Expr& i) {
      return serial("j", size, [&](const Expr& j) {
        const Named e = let("e", loops::cast(type, a.at(loops::max(i, j), loops::min(i, j))));
        return loops::block(
            {e.let, store(w, i * size + j, e.value), total.set(total.get() + e.value * e.value)});
      });
    });
    const Named limit = let("limit", square_root(total.get()) * loops::constant(type, kNothing));
    const Stmt turning = sweeps(size, turned, [&](const Expr& i, const Expr& j) {
      const Named off = let("off", read(w, i * size + j));
      const Rotation r = rotation(read(w, i * size + i), read(w, j * size + j), off.value);
      std::vector<Stmt> steps = r.before;
      steps.push_back(turned.set(Expr(1)));
      steps.push_back(turn(w, i * size, j * size, Expr(1), size, r));
      steps.push_back(turn(w, i, j, size, size, r));
      steps.push_back(turn(turns, i * size, j * size, Expr(1), size, r));
      return loops::block({off.let, when(limit.value < absolute(off.value), loops::block(steps))});
    });
    const Stmt take = serial("j", size, [&](const Expr& j) { return store(keys, j, read(w, j * size + j)); });
    const Stmt write = serial("j", size, [&](const Expr& j) {
      const Named at = let("at", position.get());
      return loops::block(
          {rank_of(keys, size, j, false, position), at.let, store(values, m * size + at.value, read(keys, j)),
           lanes("i", size, [&](const Expr& i) { return out.set(i, at.value, read(turns, j * size + i)); })});
    });
    return loops::block({loops::stmt(loops::Alloc{w}), loops::stmt(loops::Alloc{turns}),
                         loops::stmt(loops::Alloc{keys}), total.declare(zero), fill,
                         identity_matrix(turns, size), limit.let, turning, take, write});
  }));
}

void add_eigen(OpTable& t) {
  t.add("symmetric_eigen")
      .doc(
          "x = V diag(w) V^T of symmetric matrices, of which the lower triangle is read: w, smallest first, "
          "and V.")
      .input("x", Accepts::Float)
      .infer([](const Node& n) {
        check_square(n, 0);
        Shape values = batch_of(n.in(0));
        values.push_back(n.in(0).dim(-1));
        return std::vector<Type>{{n.in(0).dtype(), values}, n.in(0).type()};
      })
      .program(eigen);
}

}  // namespace

void add_orthogonal_ops(OpTable& t) {
  add_householder(t);
  add_apply_householder(t);
  add_svd(t);
  add_eigen(t);
}

}  // namespace deepseek
