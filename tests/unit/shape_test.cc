// Dims: random polynomial identities, checked against plain integers.
#include "deepseek/shape.h"

#include <gtest/gtest.h>

#include <random>

#include "deepseek/error.h"

namespace deepseek {
namespace {

const Dim N = Dim::symbol("N"), M = Dim::symbol("M"), K = Dim::symbol("K");

// A random expression and its value, grown side by side.
struct Pair {
  Dim dim;
  std::int64_t value;
};

std::int64_t python_floordiv(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(std::floor(static_cast<double>(a) / static_cast<double>(b)));
}

Pair grow(std::mt19937& rng, const DimEnv& env, int depth) {
  const auto pick = [&](int n) { return static_cast<int>(rng() % static_cast<unsigned>(n)); };
  if (depth == 0 || pick(5) == 0) {
    if (pick(3) == 0) {
      const int v = pick(13) - 4;
      return {v, v};
    }
    const auto it = std::next(env.begin(), pick(static_cast<int>(env.size())));
    return {Dim::symbol(it->first), it->second};
  }
  const Pair a = grow(rng, env, depth - 1), b = grow(rng, env, depth - 1);
  switch (pick(8)) {
    case 0:
    case 1:
      return {a.dim + b.dim, a.value + b.value};
    case 2:
      return {a.dim - b.dim, a.value - b.value};
    case 3:
    case 4:
      return {a.dim * b.dim, a.value * b.value};
    case 5:
      return {min(a.dim, b.dim), std::min(a.value, b.value)};
    case 6:
      return {max(a.dim, b.dim), std::max(a.value, b.value)};
    default: {
      const int d = pick(2) ? pick(6) + 1 : -(pick(6) + 1);
      const std::int64_t q = python_floordiv(a.value, d);
      if (pick(2)) return {floordiv(a.dim, d), q};
      return {mod(a.dim, d), a.value - q * d};
    }
  }
}

TEST(Shape, RandomExpressionsEvaluateAsIntegersDo) {
  std::mt19937 rng(1);
  for (int round = 0; round < 5000; ++round) {
    const DimEnv env = {{"N", rng() % 9}, {"M", rng() % 9}, {"K", rng() % 9}};
    const Pair p = grow(rng, env, 4);
    ASSERT_EQ(p.dim.eval(env), p.value) << p.dim.str();
    ASSERT_EQ(Dim::parse(p.dim.str()), p.dim) << p.dim.str();
  }
}

TEST(Shape, EqualExpressionsCompareEqual) {
  std::mt19937 rng(2);
  const DimEnv env = {{"N", 5}, {"M", 3}, {"K", 7}};
  for (int round = 0; round < 3000; ++round) {
    const Dim a = grow(rng, env, 3).dim, b = grow(rng, env, 3).dim, c = grow(rng, env, 2).dim;
    ASSERT_EQ(a + b, b + a);
    ASSERT_EQ(a * b, b * a);
    ASSERT_EQ((a + b) * c, a * c + b * c) << a.str() << " | " << b.str() << " | " << c.str();
    ASSERT_EQ((a + b) - b, a);
    ASSERT_EQ(a - a, Dim(0));
    ASSERT_EQ(min(a, b), min(b, a));
    ASSERT_EQ(max(a, b), max(b, a));
    ASSERT_EQ(floordiv(a * Dim(3) + Dim(2), 3), a) << a.str();
    ASSERT_EQ(mod(a * Dim(3) + Dim(2), 3), Dim(2));
    if (!(b == Dim(0))) ASSERT_EQ(floordiv(a * b, b), a) << a.str() << " | " << b.str();
  }
}

TEST(Shape, NormalForms) {
  EXPECT_EQ((N * 2 + 1).str(), "2*N+1");
  EXPECT_EQ((Dim(1) - N).str(), "-N+1");
  EXPECT_EQ((N * M * N - 3).str(), "M*N*N-3");
  EXPECT_EQ(floordiv(N * M * 768, 12 * M), 64 * N);
  EXPECT_EQ(floordiv(N * 2 + 5, 2).str(), "N+2");
  EXPECT_EQ(floordiv(N + 5, 2).str(), "floordiv(N+1,2)+2");
  EXPECT_EQ(floordiv(floordiv(N, 2), 3), floordiv(N, 6));
  EXPECT_EQ(floordiv(N * 6 + 3, 4).str(), "N+floordiv(N+1,2)");
  EXPECT_EQ(floordiv(N * 4 + 6, 8), floordiv(N + 1, 2));
  EXPECT_EQ(mod(N * 7 + 9, 3), mod(N, 3));
  EXPECT_EQ(max(N, 0), N);
  EXPECT_EQ(min(N, N + M), N);
  EXPECT_EQ(ceildiv(N * 4, 4), N);
  EXPECT_EQ(ceildiv(N, 4).eval({{"N", 9}}), 3);
  EXPECT_EQ((N + M) - (M + N), Dim(0));
  EXPECT_TRUE(((N + 1) - N).is_static());
  EXPECT_EQ(Dim::parse(" ceildiv( batch_size , 2 ) * -3"), Dim(-3) * ceildiv(Dim::symbol("batch_size"), 2));
}

TEST(Shape, SymbolsAreListedOnce) {
  std::vector<std::string> used;
  (N * M + floordiv(N, K)).symbols(used);
  std::sort(used.begin(), used.end());
  EXPECT_EQ(used, (std::vector<std::string>{"K", "M", "N"}));
}

template <class F>
std::string message(F f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::InvalidArgument);
    return e.what();
  }
  return "nothing thrown";
}

TEST(Shape, ErrorsSayWhatIsWrong) {
  EXPECT_NE(message([] { (N * M).eval({{"N", 1}}); }).find('M'), std::string::npos);
  EXPECT_NE(message([] { (N * N).eval({{"N", std::int64_t{1} << 40}}); }).find("overflow"),
            std::string::npos);
  EXPECT_NE(message([] { Dim::parse("N+"); }).find("character 3"), std::string::npos);
  EXPECT_NE(message([] { Dim::parse("max(N)"); }).find("','"), std::string::npos);
  EXPECT_NE(message([] { Dim::parse("99999999999999999999"); }).find("overflow"), std::string::npos);
  EXPECT_NE(message([] { Dim::parse(std::string(100000, '(')); }).find("nested"), std::string::npos);
  EXPECT_NE(message([] { Dim::symbol("a b"); }).find("a b"), std::string::npos);
  EXPECT_NE(message([] { floordiv(N, 0); }).find("not 0"), std::string::npos);
  EXPECT_NE(message([] { N.value(); }).find('N'), std::string::npos);
  EXPECT_NE(message([] { numel(Dims{std::int64_t{1} << 40, std::int64_t{1} << 40}); }).find("overflow"),
            std::string::npos);
  std::string power = "(a+b+c+d)";
  for (int i = 0; i < 4; ++i) power = "(" + power + "*" + power + ")";
  EXPECT_NE(message([&] { Dim::parse(power); }).find("at most"), std::string::npos);
}

TEST(Shape, Numel) {
  EXPECT_EQ(numel(Shape{N, 3, M}), 3 * N * M);
  EXPECT_EQ(numel(Dims{}), 1);
  EXPECT_EQ(numel(Dims{std::int64_t{1} << 40, 0, std::int64_t{1} << 40}), 0);
  EXPECT_EQ(str(Shape{2, N, 2 * N + 1}), "[2, N, 2*N+1]");
}

TEST(Shape, Broadcast) {
  EXPECT_EQ(broadcast({2, 1, N}, {5, N}), (Shape{2, 5, N}));
  EXPECT_EQ(broadcast({}, {3}), (Shape{3}));
  EXPECT_EQ(broadcast({N}, {4}), (Shape{4}));
  EXPECT_EQ(broadcast({4}, {N}), (Shape{4}));
  EXPECT_EQ(broadcast({0}, {1}), (Shape{0}));
  EXPECT_EQ(broadcast({N}, {M}), (Shape{N}));
  EXPECT_EQ(broadcast({2, 3}, {2, 4}), std::nullopt);
}

}  // namespace
}  // namespace deepseek
