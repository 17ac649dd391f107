// What is known of an integer at compile time: it is `residue` modulo `modulus`.
#pragma once

#include <cstdint>
#include <numeric>

namespace deepseek::codegen {

// modulus 1: nothing is known; 0: the integer is `residue` itself. 0 <= residue < modulus otherwise. Integers are
// indices, taken not to wrap; facts that would need large numbers are dropped.
struct Congruence {
  std::int64_t modulus = 1, residue = 0;

  static Congruence of(std::int64_t modulus, std::int64_t residue) {
    if (modulus == 0) return {0, residue};
    const std::int64_t r = residue % modulus;
    return {modulus, r < 0 ? r + modulus : r};
  }
  static Congruence exactly(std::int64_t value) {
    return value > -kLarge && value < kLarge ? Congruence{0, value} : Congruence{};
  }

  // What is left of it modulo gcd(modulus, c), c > 0.
  Congruence modulo(std::int64_t c) const { return of(std::gcd(modulus, c), residue); }

  friend Congruence operator+(Congruence a, Congruence b) {
    return small(a) && small(b) ? of(std::gcd(a.modulus, b.modulus), a.residue + b.residue) : Congruence{};
  }
  friend Congruence operator-(Congruence a, Congruence b) {
    return a + Congruence::of(b.modulus, -b.residue);
  }
  friend Congruence operator*(Congruence a, Congruence b) {
    if (!small(a) || !small(b)) return {};
    const std::int64_t g =
        std::gcd(std::gcd(a.modulus * b.modulus, a.modulus * b.residue), b.modulus * a.residue);
    return of(g, a.residue * b.residue);
  }

 private:
  static constexpr std::int64_t kLarge = std::int64_t{1} << 30;
  static bool small(Congruence c) { return c.modulus < kLarge && c.residue < kLarge && c.residue > -kLarge; }
};

}  // namespace deepseek::codegen
