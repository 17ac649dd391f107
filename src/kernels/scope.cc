#include "kernels/scope.h"

#include <algorithm>

namespace deepseek::kernels {

using namespace loops;

namespace {

Expr combined(Dim::Atom::Kind kind, const Expr& a, const Expr& b) {
  switch (kind) {
    case Dim::Atom::Kind::FloorDiv:
      return floordiv(a, b);
    case Dim::Atom::Kind::Mod:
      return mod(a, b);
    case Dim::Atom::Kind::Min:
      return loops::min(a, b);
    default:
      return loops::max(a, b);
  }
}

Expr atom_expr(const Dim::Atom& a) {
  if (a.kind == Dim::Atom::Kind::Symbol) return symbol(a.symbol);
  Expr result = expr_of(a.args[0]);  // min and max may be of more than two
  for (std::size_t i = 1; i < a.args.size(); ++i) result = combined(a.kind, result, expr_of(a.args[i]));
  return result;
}

}  // namespace

Expr expr_of(const Dim& d) {
  if (d.is_static()) return d.value();
  Expr sum = 0;
  for (const Dim::Term& t : d.terms()) {
    Expr product = t.coefficient;
    for (const auto& f : t.factors) product = product * atom_expr(*f);
    sum = sum + product;
  }
  return sum;
}

std::vector<Expr> extents_of(const Shape& shape) {
  std::vector<Expr> result;
  for (const Dim& d : shape) result.push_back(expr_of(d));
  return result;
}

Expr flat_index(const Shape& shape, std::span<const Expr> coords) {
  check(shape.size() == coords.size(), "one coordinate per dim");
  Expr index = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) index = index * expr_of(shape[i]) + coords[i];
  return index;
}

std::vector<Expr> unflatten(Expr position, std::span<const Expr> extents) {
  std::vector<Expr> coords(extents.size());
  for (std::size_t i = extents.size(); i-- > 0;) {
    if (i == 0) {
      coords[0] = position;
    } else {
      coords[i] = mod(position, extents[i]);
      position = floordiv(position, extents[i]);
    }
  }
  return coords;
}

std::int32_t message_code(std::vector<std::string>& messages, std::string_view message) {
  auto it = std::find(messages.begin(), messages.end(), message);
  if (it == messages.end()) it = messages.insert(messages.end(), std::string(message));
  return static_cast<std::int32_t>(it - messages.begin()) + 1;
}

void Scope::bind(Value v, Buffer buffer) {
  bind(v, [buffer = std::move(buffer), v](std::span<const Expr> coords, const Expr& predicate) {
    const Expr index = flat_index(v.shape(), coords);
    return predicate ? load(buffer, index, predicate, zero(v.dtype())) : load(buffer, index);
  });
}

void Scope::bind(Value v, Binding f) {
  bindings_[key(v)] = std::move(f);
  known_.clear();
}

std::vector<Stmt> Scope::take_checks() { return std::exchange(checks_, {}); }

// The Elements that an inlined indexed definition sees.
class InlineElements final : public Elements {
 public:
  InlineElements(Scope& scope, const Node& node, Expr predicate)
      : scope_(scope), node_(node), predicate_(std::move(predicate)) {}

  Expr in(int i, std::span<const Expr> coords) override { return scope_.at(node_.in(i), coords, predicate_); }

  Expr in(int i, std::span<const Expr> coords, Expr predicate, Expr otherwise) override {
    const Value v = node_.in(i);
    const Expr both = predicate_ ? predicate_ && predicate : predicate;
    const Expr value = scope_.at(v, coords, both);
    otherwise = cast(v.dtype(), otherwise);
    // A plain load takes `otherwise` along; anything inlined is selected.
    if (value.op() == Op::Load && value->args.size() == 3 && same(value->args[1], both))
      return load(value->buffer, value->args[0], both, otherwise);
    return select(predicate, value, otherwise);
  }

  Expr dim(const Dim& d) override { return expr_of(d); }

  void require(Expr condition, std::string_view message) override {
    if (predicate_) condition = !predicate_ || condition;
    if (condition.int_value() == 1) return;
    scope_.checks_.push_back(stmt(Assert{condition, message_code(scope_.messages_, message)}));
  }

 private:
  Scope& scope_;
  const Node& node_;
  Expr predicate_;
};

namespace {

// Coordinates of an operand of a broadcasting op: aligned right, 0 along dims of 1.
std::vector<Expr> broadcast_coords(const Shape& operand, const Shape& result, std::span<const Expr> coords) {
  std::vector<Expr> own;
  const std::size_t skip = result.size() - operand.size();
  for (std::size_t i = 0; i < operand.size(); ++i) {
    const bool stretched = operand[i] == Dim(1) && !(result[i + skip] == Dim(1));
    own.push_back(stretched || operand[i] == Dim(1) ? Expr(0) : coords[i + skip]);
  }
  return own;
}

// Integers are not divided by 0 in silence, as little as in PyTorch, ONNX Runtime and TensorFlow.
bool divides_integers(const Node& n) {
  const std::string& name = n.op->name;
  return !is_float(n.outputs[0].dtype) &&
         (name == "div" || name == "floor_div" || name == "mod" || name == "rem");
}

constexpr std::string_view kDivisors = "integers other than 0 to divide by";

}  // namespace

Expr Scope::at(Value v, std::span<const Expr> coords, const Expr& predicate) {
  auto& known = known_[key(v)];
  for (const Known& k : known)
    if (k.predicate.get() == predicate.get() &&
        std::equal(coords.begin(), coords.end(), k.coords.begin(), k.coords.end(),
                   [](const Expr& a, const Expr& b) { return a.get() == b.get() || same(a, b); }))
      return k.result;
  Expr result = compute(v, coords, predicate);
  known_[key(v)].push_back({{coords.begin(), coords.end()}, predicate, result});
  return result;
}

Expr Scope::compute(Value v, std::span<const Expr> coords, const Expr& predicate) {
  if (const auto it = bindings_.find(key(v)); it != bindings_.end()) return it->second(coords, predicate);
  const Node& n = *v.node;
  if (n.is_constant() && n.data.numel() == 1) {
    const double value = n.data.at(0);
    return is_float(v.dtype()) ? constant(v.dtype(), value) : constant(v.dtype(), n.data.to_int64()[0]);
  }
  check(n.op != nullptr, "a group's outside values are bound");
  if (const Pointwise* p = n.op->pointwise()) {
    std::vector<Expr> args;
    for (const Value& in : n.inputs) {
      if (!in) {
        args.emplace_back();
        continue;
      }
      const Expr x = at(in, broadcast_coords(in.shape(), v.shape(), coords), predicate);
      args.push_back(cast(compute_type(in.dtype()), x));
    }
    if (divides_integers(n))
      InlineElements(*this, n, predicate).require(args[1] != zero(args[1].type()), kDivisors);
    return cast(v.dtype(), p->fn(n, args));
  }
  const Indexed* indexed = n.op->indexed();
  check(indexed != nullptr, "only pointwise and indexed definitions are inlined");
  InlineElements elements(*this, n, predicate);
  return cast(v.dtype(), indexed->fn(n, elements, coords));
}

}  // namespace deepseek::kernels
