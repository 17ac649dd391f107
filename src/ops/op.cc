#include "ops/op.h"

#include <algorithm>

namespace deepseek {

// -- builder
// -------------------------------------------------------------------------------------------------
OpBuilder& OpBuilder::doc(std::string text) {
  d_.doc = std::move(text);
  return *this;
}
OpBuilder& OpBuilder::input(std::string name, Accepts a) {
  d_.inputs.push_back({std::move(name), a});
  return *this;
}
OpBuilder& OpBuilder::input_free(std::string name, Accepts a) {
  d_.inputs.push_back({.name = std::move(name), .accepts = a, .free = true});
  return *this;
}
OpBuilder& OpBuilder::input_optional(std::string name, Accepts a, bool free) {
  d_.inputs.push_back({.name = std::move(name), .accepts = a, .optional = true, .free = free});
  return *this;
}
OpBuilder& OpBuilder::inputs_variadic(std::string name, Accepts a, bool free) {
  d_.inputs.push_back({.name = std::move(name), .accepts = a, .variadic = true, .free = free});
  return *this;
}
OpBuilder& OpBuilder::attr(std::string name, AttrKind kind, std::string doc) {
  d_.attrs.push_back({std::move(name), kind, std::nullopt, std::move(doc)});
  return *this;
}
OpBuilder& OpBuilder::attr(std::string name, AttrKind kind, Attr default_value, std::string doc) {
  d_.attrs.push_back({std::move(name), kind, std::move(default_value), std::move(doc)});
  return *this;
}
OpBuilder& OpBuilder::normalize(NormalizeFn f) {
  d_.normalize = std::move(f);
  return *this;
}
OpBuilder& OpBuilder::infer(InferFn f) {
  d_.infer = std::move(f);
  return *this;
}
OpBuilder& OpBuilder::pointwise(PointwiseFn f) {
  d_.definition = Pointwise{std::move(f)};
  return *this;
}
OpBuilder& OpBuilder::indexed(IndexedFn f) {
  d_.definition = Indexed{std::move(f)};
  return *this;
}
OpBuilder& OpBuilder::program(ProgramFn f, ProgramFn extents) {
  d_.definition = Programmed{std::move(f), std::move(extents)};
  return *this;
}
OpBuilder& OpBuilder::composed(ComposedFn f) {
  d_.definition = Composed{std::move(f)};
  return *this;
}
OpBuilder& OpBuilder::structural() {
  d_.definition = Structural{};
  return *this;
}
OpBuilder& OpBuilder::gradient(GradientFn f) {
  d_.gradient = std::move(f);
  return *this;
}

// -- table
// ---------------------------------------------------------------------------------------------------
OpBuilder OpTable::add(std::string name) {
  auto& slot = ops_[name];
  check(slot == nullptr, "an op is entered once");
  slot = std::make_unique<OpDef>();
  slot->name = std::move(name);
  return OpBuilder(*slot);
}

const OpDef* OpTable::find(std::string_view name) const {
  const auto it = ops_.find(name);
  return it == ops_.end() ? nullptr : it->second.get();
}

std::vector<const OpDef*> OpTable::all() const {
  std::vector<const OpDef*> result;
  for (const auto& [name, def] : ops_) result.push_back(def.get());
  return result;
}

const OpTable& op_table() {
  static const OpTable table = [] {
    OpTable t;
    add_unary_ops(t);
    add_binary_ops(t);
    add_activation_ops(t);
    add_shape_ops(t);
    add_reduce_ops(t);
    add_matmul_ops(t);
    add_distance_ops(t);
    add_expert_ops(t);
    add_conv_ops(t);
    add_pool_ops(t);
    add_conv_transpose_ops(t);
    add_adaptive_pool_ops(t);
    add_norm_ops(t);
    add_channel_norm_ops(t);
    add_attention_ops(t);
    add_scan_ops(t);
    add_sort_ops(t);
    add_factor_ops(t);
    add_orthogonal_ops(t);
    add_control_ops(t);
    add_recurrent_ops(t);
    add_random_ops(t);
    add_quantize_ops(t);
    return t;
  }();
  return table;
}

// -- reading nodes
// -------------------------------------------------------------------------------------------
void bad_input(const Node& n, std::string expected, std::string got) {
  throw Error(Code::InvalidArgument, std::string(n.op_name()), n.source, std::move(expected), std::move(got));
}

namespace {

bool accepts(Accepts a, DType t) {
  switch (a) {
    case Accepts::Any:
      return true;
    case Accepts::Real:
      return t == DType::Bool || is_float(t) || is_integer(t);
    case Accepts::Number:
      return is_float(t) || is_integer(t);
    case Accepts::Float:
      return is_float(t);
    case Accepts::Integer:
      return is_integer(t);
    case Accepts::Bool:
      return t == DType::Bool;
    case Accepts::IntegerOrBool:
      return t == DType::Bool || is_integer(t);
    case Accepts::Index:
      return t == DType::I32 || t == DType::I64;
  }
  return false;
}

const char* words(Accepts a) {
  switch (a) {
    case Accepts::Any:
      return "any dtype";
    case Accepts::Real:
      return "a real dtype";
    case Accepts::Number:
      return "an integer or float dtype";
    case Accepts::Float:
      return "a float dtype";
    case Accepts::Integer:
      return "an integer dtype";
    case Accepts::Bool:
      return "bool";
    case Accepts::IntegerOrBool:
      return "an integer dtype or bool";
    case Accepts::Index:
      return "int32 or int64";
  }
  return "";
}

bool has_kind(const Attr& a, AttrKind k) {
  switch (k) {
    case AttrKind::Bool:
      return std::holds_alternative<bool>(a);
    case AttrKind::Int:
      return std::holds_alternative<std::int64_t>(a);
    case AttrKind::Float:
      return std::holds_alternative<double>(a);
    case AttrKind::String:
      return std::holds_alternative<std::string>(a);
    case AttrKind::Ints:
      return std::holds_alternative<std::vector<std::int64_t>>(a);
    case AttrKind::Floats:
      return std::holds_alternative<std::vector<double>>(a);
    case AttrKind::DType:
      return std::holds_alternative<DType>(a);
    case AttrKind::Shape:
      return std::holds_alternative<Shape>(a);
    case AttrKind::Tensor:
      return std::holds_alternative<Tensor>(a);
    case AttrKind::Graph:
      return std::holds_alternative<std::shared_ptr<const Graph>>(a);
  }
  return false;
}

void check_inputs(const Node& n) {
  const auto& specs = n.op->inputs;
  const bool variadic = !specs.empty() && specs.back().variadic;
  std::size_t required = 0;  // up to the last one that must be there
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (!specs[i].optional && !specs[i].variadic) required = i + 1;
  if (n.inputs.size() < required || (!variadic && n.inputs.size() > specs.size()))
    bad_input(n,
              (variadic || required < specs.size() ? "at least " : "") + std::to_string(required) + " inputs",
              std::to_string(n.inputs.size()));
  const Value* shared = nullptr;
  for (std::size_t i = 0; i < n.inputs.size(); ++i) {
    const InputSpec& spec = specs[std::min(i, specs.size() - 1)];
    const Value& v = n.inputs[i];
    if (!v) {
      if (!spec.optional) bad_input(n, "input '" + spec.name + "'", "nothing");
      continue;
    }
    if (!accepts(spec.accepts, v.dtype()))
      bad_input(n, std::string(words(spec.accepts)) + " for '" + spec.name + "'", str(v.type()));
    if (spec.free) continue;
    if (shared && shared->dtype() != v.dtype())
      bad_input(n, "'" + spec.name + "' of dtype " + std::string(name(shared->dtype())), str(v.type()));
    if (!shared) shared = &v;
  }
}

}  // namespace

void complete(Node& n) {
  check_inputs(n);
  for (const AttrSpec& spec : n.op->attrs) {
    const auto it = n.attrs.find(spec.name);
    if (it == n.attrs.end()) {
      if (!spec.default_value) bad_input(n, "attribute '" + spec.name + "'", "none");
      n.attrs[spec.name] = *spec.default_value;
      continue;
    }
    // An integer list (or an integer, for one dim) serves where a shape is meant, an integer where a float is.
    if (spec.kind == AttrKind::Shape) {
      if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&it->second))
        it->second = to_shape(*ints);
      else if (const auto* i = std::get_if<std::int64_t>(&it->second))
        it->second = Shape{Dim(*i)};
    }
    if (spec.kind == AttrKind::Float)
      if (const auto* i = std::get_if<std::int64_t>(&it->second)) it->second = static_cast<double>(*i);
    if (!has_kind(it->second, spec.kind))
      bad_input(n, "attribute '" + spec.name + "' of another type", "a wrong one");
    const auto* graph = std::get_if<std::shared_ptr<const Graph>>(&it->second);
    if (graph && !*graph && !spec.default_value) bad_input(n, "a graph for '" + spec.name + "'", "none");
  }
  for (const auto& [key, value] : n.attrs)
    if (std::none_of(n.op->attrs.begin(), n.op->attrs.end(),
                     [&](const AttrSpec& s) { return s.name == key; }))
      bad_input(n, "an attribute that the op has", "'" + key + "'");
  if (n.op->normalize) n.op->normalize(n);
}

int normalize_axis(const Node& n, std::int64_t axis, int rank) {
  const std::int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    bad_input(n, "an axis of a rank-" + std::to_string(rank) + " tensor", std::to_string(axis));
  return static_cast<int>(a);
}

std::vector<int> normalize_axes(const Node& n, const std::vector<std::int64_t>& axes, int rank) {
  std::vector<int> result;
  for (const std::int64_t a : axes) result.push_back(normalize_axis(n, a, rank));
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end())
    bad_input(n, "distinct axes", "one twice");
  return result;
}

namespace {
thread_local Assumptions* current_assumptions = nullptr;
}  // namespace

Assumptions::Assumptions() : outer_(std::exchange(current_assumptions, this)) {}
Assumptions::~Assumptions() { current_assumptions = outer_; }

bool may_equal(const Dim& a, const Dim& b) {
  if (a == b) return true;
  if (a.is_static() && b.is_static()) return false;
  if (current_assumptions) current_assumptions->pairs.emplace_back(a, b);
  return true;
}

bool may_be_at_most(const Dim& a, const Dim& b) { return may_equal(min(a, b), a); }

std::optional<Shape> broadcast_assuming(const Shape& a, const Shape& b) {
  return broadcast(a, b, current_assumptions ? &current_assumptions->pairs : nullptr);
}

InferFn same_as(int input) {
  return [input](const Node& n) { return std::vector<Type>{n.in(input).type()}; };
}

namespace {
Shape broadcast_shape(const Node& n) {
  Shape shape;
  for (const Value& v : n.inputs) {
    if (!v) continue;
    const auto joined = broadcast_assuming(shape, v.shape());
    if (!joined) bad_input(n, "shapes that broadcast", str(shape) + " and " + str(v.shape()));
    shape = *joined;
  }
  return shape;
}
}  // namespace

InferFn broadcast_inputs() {
  return [](const Node& n) { return std::vector<Type>{{n.in(0).dtype(), broadcast_shape(n)}}; };
}
InferFn broadcast_to_dtype(DType t) {
  return [t](const Node& n) { return std::vector<Type>{{t, broadcast_shape(n)}}; };
}

Expr Elements::reduce(loops::Reducer r, std::span<const Expr> extents,
                      const std::function<Expr(std::span<const Expr>)>& body) {
  std::vector<loops::Axis> axes;
  std::vector<Expr> coords;
  for (const Expr& extent : extents) {
    axes.push_back({loops::loop_var("r" + std::to_string(axes.size()), extent), extent});
    coords.push_back(loops::var(axes.back().var));
  }
  return loops::reduce(r, std::move(axes), body(coords));
}

Value unbroadcast(Graph& g, Value dy, Value like) {
  if (dy.shape() == like.shape()) return dy;
  const int extra = dy.rank() - like.rank();
  std::vector<std::int64_t> axes;
  for (int i = 0; i < dy.rank(); ++i)
    if (i < extra || (like.dim(i - extra) == Dim(1) && !(dy.dim(i) == Dim(1)))) axes.push_back(i);
  if (!axes.empty()) dy = g.op("sum", {dy}, {{"axes", axes}, {"keepdims", false}});
  return g.op("reshape", {dy}, {{"shape", like.shape()}});
}

}  // namespace deepseek
