// Simplified expressions mean what they meant.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "unit/loops_random.h"

namespace deepseek::loops {
namespace {

using testing::apply;
using testing::Random;
using testing::Twin;
using testing::value_of;

// Symbols N, M and loops over products of them: values are drawn so that each loop has run.
struct IndexWorld {
  std::vector<Expr> leaves;
  std::vector<Expr> extents;  // of leaves; empty for symbols

  explicit IndexWorld(Random& r) {
    const Expr n = symbol("N"), m = symbol("M");
    leaves = {n, m};
    extents = {Expr(), Expr()};
    const std::vector<Expr> choices = {n,       m,       n * m,    n * 4,   m * n * 2, n + 3,
                                       Expr(4), Expr(6), Expr(12), Expr(1), Expr(64)};
    for (int i = 0; i < 4; ++i) {
      const Expr extent = r.one_of(choices);
      leaves.push_back(var(loop_var("i" + std::to_string(i), extent)));
      extents.push_back(extent);
    }
  }

  std::vector<Scalar> draw(Random& r) const {
    std::vector<Scalar> values = {{r.between(1, 9), 0}, {r.between(1, 9), 0}};
    for (std::size_t i = 2; i < leaves.size(); ++i) {
      const std::int64_t extent = value_of(extents[i], {leaves[0], leaves[1]}, values).i;
      const std::int64_t v = r.below(4) == 0 ? extent - 1 : r.below(extent);
      values.push_back({v, 0});
    }
    return values;
  }

  Twin leaf(Random& r) const {
    if (r.below(3) == 0) {
      const std::vector<std::int64_t> constants = {0, 1, 2, 3, 4, 6, 12, 64, -1, -3};
      const Expr c = r.one_of(constants);
      return {c, c};
    }
    const Expr e = r.one_of(leaves);
    return {e, e};
  }
  Twin tree(Random& r, int depth) const {
    if (depth == 0) return leaf(r);
    static const std::vector<Op> ops = {Op::Add,      Op::Add,      Op::Add, Op::Sub,    Op::Mul, Op::Mul,
                                        Op::FloorDiv, Op::FloorDiv, Op::Mod, Op::Mod,    Op::Div, Op::Rem,
                                        Op::Min,      Op::Max,      Op::Neg, Op::Select, Op::Abs};
    const Op op = r.one_of(ops);
    if (op == Op::Neg || op == Op::Abs) return apply(op, {tree(r, depth - 1)});
    if (op == Op::Select) return apply(op, {condition(r, depth - 1), tree(r, depth - 1), tree(r, depth - 1)});
    const int other = static_cast<int>(r.below(depth));
    const Twin a = tree(r, depth - 1), b = tree(r, other);
    return r.below(2) ? apply(op, {a, b}) : apply(op, {b, a});
  }
  Twin condition(Random& r, int depth) const {
    static const std::vector<Op> ops = {Op::Lt, Op::Le, Op::Eq, Op::Ne};
    const Twin c = apply(r.one_of(ops), {tree(r, depth), tree(r, depth > 0 ? depth - 1 : 0)});
    switch (r.below(5)) {
      case 0:
        return apply(Op::Not, {c});
      case 1:
        return apply(Op::And, {c, depth > 0 ? condition(r, depth - 1) : c});
      case 2:
        return apply(Op::Or, {c, depth > 0 ? condition(r, depth - 1) : c});
      default:
        return c;
    }
  }
};

TEST(LoopsProperty, IndexArithmeticKeepsItsValue) {
  Random r(7);
  int simplified = 0;
  for (int round = 0; round < 4000; ++round) {
    const IndexWorld world(r);
    const Twin t = r.below(3) ? world.tree(r, 4) : world.condition(r, 3);
    const Range bounds = t.simple.type() == DType::I64 ? range(t.simple) : Range{};
    simplified += !same(t.simple, t.plain);
    for (int i = 0; i < 12; ++i) {
      const std::vector<Scalar> values = world.draw(r);
      const std::int64_t wanted = value_of(t.plain, world.leaves, values).i;
      ASSERT_EQ(value_of(t.simple, world.leaves, values).i, wanted) << print(t.plain) << "\nbecame\n"
                                                                    << print(t.simple);
      if (bounds.min) ASSERT_GE(wanted, *bounds.min) << print(t.simple);
      if (bounds.max) ASSERT_LE(wanted, *bounds.max) << print(t.simple);
    }
  }
  EXPECT_GT(simplified, 1000);
}

// Flattening and unflattening over symbolic extents: the patterns that reshapes make, which must vanish.
TEST(LoopsProperty, SplitsAndJoinsOfFlatIndicesCancel) {
  const Expr n = symbol("N"), m = symbol("M"), k = symbol("K");
  const Expr i = var(loop_var("i", n)), j = var(loop_var("j", m)), l = var(loop_var("l", k));
  const Expr flat = (i * m + j) * k + l;
  EXPECT_EQ(print(floordiv(flat, k * m)), "i");
  EXPECT_EQ(print(mod(floordiv(flat, k), m)), "j");
  EXPECT_EQ(print(mod(flat, k)), "l");
  const Expr f = var(loop_var("f", n * m * k));
  const Expr joined = (floordiv(floordiv(f, k), m) * m + mod(floordiv(f, k), m)) * k + mod(f, k);
  EXPECT_EQ(print(joined), "f");
}

template <DType T>
Twin data_tree(Random& r, const std::vector<Expr>& leaves, int depth) {
  if (depth == 0) {
    if (r.below(3) == 0) {
      const std::vector<double> constants = {0, 1, 2, -1, 0.5, 7, 100};
      double c = r.one_of(constants);
      if (!is_float(T)) c = std::trunc(c);
      if (is_float(T) && r.below(8) == 0) c = -0.0;
      const Expr e = constant(T, c);
      return {e, e};
    }
    const Expr e = r.one_of(leaves);
    return {e, e};
  }
  std::vector<Op> ops = {Op::Add, Op::Sub, Op::Mul, Op::Div, Op::FloorDiv, Op::Rem,   Op::Mod,
                         Op::Min, Op::Max, Op::Neg, Op::Abs, Op::Select,   Op::Round, Op::Fma};
  if (!is_float(T))
    for (const Op op : {Op::And, Op::Or, Op::Xor, Op::Shl, Op::Shr, Op::Not}) ops.push_back(op);
  const Op op = r.one_of(ops);
  const auto next = [&] { return data_tree<T>(r, leaves, static_cast<int>(r.below(depth))); };
  switch (op_class(op)) {
    case OpClass::Unary:
      return apply(op, {data_tree<T>(r, leaves, depth - 1)});
    case OpClass::Binary:
      return apply(op, {data_tree<T>(r, leaves, depth - 1), next()});
    default:
      break;
  }
  if (op == Op::Fma) return apply(op, {next(), next(), next()});
  const std::vector<Op> comparisons = {Op::Lt, Op::Le, Op::Eq, Op::Ne};
  Twin c = apply(r.one_of(comparisons), {next(), next()});
  if (r.below(2)) c = apply(Op::Not, {c});
  return apply(Op::Select, {c, next(), next()});
}

template <DType T>
void data_keeps_its_value(std::uint64_t seed) {
  Random r(seed);
  const std::vector<Expr> leaves = {var(make_var("a", T)), var(make_var("b", T)), var(make_var("c", T))};
  for (int round = 0; round < 1500; ++round) {
    const Twin t = data_tree<T>(r, leaves, 4);
    for (int i = 0; i < 10; ++i) {
      std::vector<Scalar> values;
      for (std::size_t k = 0; k < leaves.size(); ++k) {
        const std::vector<double> odd = {0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 1e30};
        if (is_float(T))
          values.push_back(
              convert(DType::F64, T, {0, r.below(3) == 0 ? r.one_of(odd) : (r.unit() - 0.5) * 20}));
        else
          values.push_back(
              {wrap_to(T, r.below(2) ? r.between(-5, 5) : static_cast<std::int64_t>(r.unit() * 0x1p62)), 0});
      }
      const Scalar wanted = value_of(t.plain, leaves, values), got = value_of(t.simple, leaves, values);
      const bool equal = is_float(T)
                             ? (std::isnan(wanted.d) && std::isnan(got.d)) ||
                                   (wanted.d == got.d && std::signbit(wanted.d) == std::signbit(got.d))
                             : wanted.i == got.i;
      ASSERT_TRUE(equal) << print(t.plain) << "\nbecame\n"
                         << print(t.simple) << "\n"
                         << wanted.d << " " << got.d << " " << wanted.i << " " << got.i;
    }
  }
}
TEST(LoopsProperty, FloatsKeepTheirValue) { data_keeps_its_value<DType::F32>(1); }
TEST(LoopsProperty, NarrowFloatsKeepTheirValue) { data_keeps_its_value<DType::BF16>(2); }
TEST(LoopsProperty, Int32KeepsItsValue) { data_keeps_its_value<DType::I32>(3); }
TEST(LoopsProperty, Uint8KeepsItsValue) { data_keeps_its_value<DType::U8>(4); }
TEST(LoopsProperty, Int64KeepsItsValue) { data_keeps_its_value<DType::I64>(5); }
TEST(LoopsProperty, Uint64KeepsItsValue) { data_keeps_its_value<DType::U64>(6); }

}  // namespace
}  // namespace deepseek::loops
