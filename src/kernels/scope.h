// Expressions for the values of a group at logical coordinates: where fusion happens. A value is a buffer, or
// is bound to something computed already (an accumulator, a row's sum), or its definition is inlined.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "loops/ir.h"
#include "ops/op.h"

namespace deepseek::kernels {

Expr expr_of(const Dim& d);
// Row-major index of coordinates in a dense array of this shape.
Expr flat_index(const Shape& shape, std::span<const Expr> coords);
// Coordinates of a row-major position in the box of `extents`.
std::vector<Expr> unflatten(Expr position, std::span<const Expr> extents);
std::vector<Expr> extents_of(const Shape& shape);

using ValueKey = std::pair<const Node*, int>;
inline ValueKey key(Value v) { return {v.node, v.index}; }

class Scope {
 public:
  using Binding = std::function<Expr(std::span<const Expr> coords, const Expr& predicate)>;

  // The value is read from a dense row-major buffer.
  void bind(Value v, loops::Buffer buffer);
  // The value is what `f` gives. Binding a value after it was read changes later readings only.
  void bind(Value v, Binding f);
  bool bound(Value v) const { return bindings_.contains(key(v)); }

  // The value at logical coordinates, as an expression of the value's dtype. With a predicate nothing is read
  // where it is false; the result there is unspecified.
  Expr at(Value v, std::span<const Expr> coords, const Expr& predicate = {});

  // Checks that `at` met since the last call, as statements to run before the values are used.
  std::vector<loops::Stmt> take_checks();
  std::vector<std::string>& messages() { return messages_; }

 private:
  friend class InlineElements;
  Expr compute(Value v, std::span<const Expr> coords, const Expr& predicate);

  std::map<ValueKey, Binding> bindings_;
  // What `at` gave, by value and identity of coordinates and predicate: shared values stay shared.
  struct Known {
    std::vector<Expr> coords;
    Expr predicate, result;
  };
  std::map<ValueKey, std::vector<Known>> known_;
  std::vector<loops::Stmt> checks_;
  std::vector<std::string> messages_;
};

// Index of `message` in `messages` plus one, appended when new: what Assert carries.
std::int32_t message_code(std::vector<std::string>& messages, std::string_view message);

}  // namespace deepseek::kernels
