// Random expressions for property tests.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "loops/ir.h"
#include "loops/scalar.h"
#include "loops/simplify.h"
#include "loops/types.h"

namespace deepseek::loops::testing {

// An expression twice: as its constructors simplify it, and as it stands.
struct Twin {
  Expr simple, plain;
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(n));
  }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  template <class T>
  const T& one_of(const std::vector<T>& all) {
    return all[static_cast<std::size_t>(below(static_cast<std::int64_t>(all.size())))];
  }
  double unit() { return std::uniform_real_distribution<double>(0, 1)(engine_); }

 private:
  std::mt19937_64 engine_;
};

inline Twin apply(Op op, const std::vector<Twin>& args) {
  std::vector<Expr> simple, plain;
  for (const Twin& a : args) {
    simple.push_back(a.simple);
    plain.push_back(a.plain);
  }
  const DType t = result_type(op, plain);
  return {make(op, std::move(simple)), node(op, t, std::move(plain))};
}

// What `e` gives when variable i has values[i]; for expressions without loads.
inline Scalar value_of(const Expr& e, const std::vector<Expr>& leaves, const std::vector<Scalar>& values) {
  if (e.is_const()) return scalar_of(*e);
  if (e.op() == Op::Var || e.op() == Op::Symbol) {
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (same(leaves[i], e)) return values[i];
    throw std::logic_error("a leaf without a value");
  }
  std::vector<Scalar> args;
  for (const Expr& a : e->args) args.push_back(value_of(a, leaves, values));
  if (e.op() == Op::Cast) return convert(e->args[0].type(), e.type(), args[0]);
  return evaluate(e.op(), e->args.back().type(), args);
}

}  // namespace deepseek::loops::testing
