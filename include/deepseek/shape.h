// Dims and shapes. A Dim is an integer or an expression over symbols ("batch", "2*seq+1"), kept in a normal form
// (a polynomial whose atoms are symbols, floor divisions, moduli, minima, maxima), so that equal expressions
// compare equal. Symbols stand for integers >= 0 that are bound when an executable runs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deepseek {

using DimEnv = std::map<std::string, std::int64_t, std::less<>>;  // symbol -> value

class Dim {
 public:
  struct Atom;  // a symbol, or a function of dims
  struct Term {
    std::int64_t coefficient;
    std::vector<std::shared_ptr<const Atom>> factors;  // sorted; empty for the constant term
  };
  struct Atom {
    enum class Kind : std::uint8_t { Symbol, FloorDiv, Mod, Min, Max } kind;
    std::string symbol;
    std::vector<Dim> args;
  };

  Dim() = default;
  Dim(std::int64_t value) : value_(value) {}  // NOLINT: an integer is a dim
  Dim(int value) : value_(value) {}           // NOLINT
  static Dim symbol(std::string name);
  static Dim from_terms(std::vector<Term> terms);  // any terms, with sorted factors: brought into normal form
  static Dim parse(std::string_view text);         // "4", "N", "N*2+1", "floordiv(N,2)"; throws Error

  bool is_static() const { return terms_ == nullptr; }
  std::int64_t value() const;  // of a static dim; throws Error{InvalidArgument} otherwise
  // Terms of a symbolic dim, constant last; empty for a static one.
  const std::vector<Term>& terms() const;
  std::int64_t eval(const DimEnv& env) const;  // throws Error{InvalidArgument} that names an unbound symbol
  std::string str() const;
  void symbols(std::vector<std::string>& out) const;  // appends those used, without repeats

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  friend bool operator==(const Dim& a, const Dim& b);
  friend Dim floordiv(const Dim& a, const Dim& b);
  friend Dim mod(const Dim& a, const Dim& b);
  friend Dim min(const Dim& a, const Dim& b);
  friend Dim max(const Dim& a, const Dim& b);

 private:
  std::int64_t value_ = 0;
  std::shared_ptr<const std::vector<Term>> terms_;  // null: static
};
Dim ceildiv(const Dim& a, const Dim& b);  // b >= 1

// Two dims that an op takes to be equal though they are written differently: checked when they are bound.
struct EqualDims {
  Dim a, b;
  std::string op, source;  // whose
};

using Shape = std::vector<Dim>;
using Dims = std::vector<std::int64_t>;  // a shape with every symbol bound

Dim numel(const Shape& s);
std::int64_t numel(const Dims& s);  // throws Error{InvalidArgument} on overflow
Dims eval(const Shape& s, const DimEnv& env);
bool is_static(const Shape& s);
Dims static_dims(const Shape& s);  // throws Error{InvalidArgument} when symbolic
Shape to_shape(const Dims& d);
std::string str(const Shape& s);  // "[2, N, 2*N+1]"
std::string str(const Dims& s);
// NumPy's broadcasting. Different dims that are not 1, one of them symbolic, are taken to be equal; nothing when shapes
// cannot match. The pairs taken to be equal are appended to `taken`.
std::optional<Shape> broadcast(const Shape& a, const Shape& b,
                               std::vector<std::pair<Dim, Dim>>* taken = nullptr);

}  // namespace deepseek
