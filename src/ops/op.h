// The op table. One entry is the whole of an op: inputs, attributes, shape rule, definition, gradient, doc.
// Everything else that knows ops (text form, Python methods, stubs, docs, conformance tests) reads the table.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "deepseek/graph.h"
#include "deepseek/ops.h"
#include "loops/ir.h"

namespace deepseek {

using loops::Expr;

// Which dtypes an input takes. Inputs of one op that share a letter group (`same`) must agree.
enum class Accepts : std::uint8_t {
  Any,
  Real,
  Float,
  Integer,
  Bool,
  IntegerOrBool,
  Index /* I32 or I64 */,
  Number /* Real, no Bool */
};

struct InputSpec {
  std::string name;
  Accepts accepts = Accepts::Any;
  bool optional = false;
  bool variadic = false;  // last input only
  bool free = false;      // dtype need not agree with the op's other non-free inputs
};

struct AttrSpec {
  std::string name;
  AttrKind kind;
  std::optional<Attr> default_value;  // none: required
  std::string doc;
};

// What an `indexed` definition may use: element loads from the inputs, reductions, checks. Elements may come in the
// input's dtype or in the type that it computes in; definitions convert (see element() in entries.h) and give their
// result in the type that the output computes in, which the caller converts to the output's dtype.
class Elements {
 public:
  virtual ~Elements() = default;
  // Element of input i at logical coordinates; with a predicate, `otherwise` where it is false.
  virtual Expr in(int i, std::span<const Expr> coords) = 0;
  virtual Expr in(int i, std::span<const Expr> coords, Expr predicate, Expr otherwise) = 0;
  // A dim as an index expression.
  virtual Expr dim(const Dim& d) = 0;
  // reducer over the box of extents; body gets the coordinates in it.
  Expr reduce(loops::Reducer r, std::span<const Expr> extents,
              const std::function<Expr(std::span<const Expr>)>& body);
  // Raises `message` (InvalidArgument or OutOfRange at run time) where the condition is false; guard the loads too.
  virtual void require(Expr condition, std::string_view message) = 0;
};

// What a `program` definition works with: it writes the loops itself.
class ProgramBuilder {
 public:
  virtual ~ProgramBuilder() = default;
  virtual loops::Buffer input(int i) = 0;  // dense row-major
  virtual loops::Buffer output(int i) = 0;
  virtual Expr dim(const Dim& d) = 0;
  virtual loops::Buffer workspace(std::string name, DType t, Expr extent) = 0;  // shared by all phases
  virtual void phase(loops::Stmt s) = 0;                                        // appended at top level
  virtual loops::Stmt require(Expr condition, std::string_view message) = 0;
};

using InferFn = std::function<std::vector<Type>(const Node&)>;  // node.inputs and node.attrs are filled in
// Inputs already in compute_type, an empty Expr where an optional input is absent. The result is in the output's
// compute_type or dtype.
using PointwiseFn = std::function<Expr(const Node&, std::span<const Expr>)>;
using IndexedFn = std::function<Expr(const Node&, Elements&, std::span<const Expr> coords)>;
using ProgramFn = std::function<void(const Node&, ProgramBuilder&)>;
using ComposedFn =
    std::function<std::vector<Value>(Graph&, const Node&)>;  // node.inputs are values of the graph
// Gradients of the inputs for gradients `dys` of the outputs (empty Values: zero). Inputs not `needed` may stay empty.
using GradientFn = std::function<std::vector<Value>(Graph&, const Node&, std::span<const Value> dys,
                                                    const std::vector<bool>& needed)>;
// Host ops: run on host tensors at bind time or between segments (shape arithmetic, control flow).
using HostFn = std::function<std::vector<Tensor>(const Node&, std::span<const Tensor>)>;

// Fills in what defaults cannot say (lists by rank, layouts) and puts attributes into their normal form, before infer.
using NormalizeFn = std::function<void(Node&)>;

struct Pointwise {
  PointwiseFn fn;
};
struct Indexed {
  IndexedFn fn;
};
struct Programmed {
  ProgramFn fn;
  // A data-dependent result: symbols that this op defines. The program's last output is I64[count] and holds
  // their values; it runs first, as a program of its own, when `extents` is set.
  ProgramFn extents;
};
struct Composed {
  ComposedFn fn;
};
struct Structural {};  // if, while, call: the executor runs sub-graphs

struct OpDef {
  std::string name, doc, example;
  std::vector<InputSpec> inputs;
  std::vector<AttrSpec> attrs;
  NormalizeFn normalize;  // may be empty
  InferFn infer;
  std::variant<std::monostate, Pointwise, Indexed, Programmed, Composed, Structural> definition;
  GradientFn gradient;  // empty: not differentiable

  const Pointwise* pointwise() const { return std::get_if<Pointwise>(&definition); }
  const Indexed* indexed() const { return std::get_if<Indexed>(&definition); }
  const Programmed* programmed() const { return std::get_if<Programmed>(&definition); }
  const Composed* composed() const { return std::get_if<Composed>(&definition); }
};

// Fluent construction of an entry; see activation.cc for the shortest examples.
class OpBuilder {
 public:
  explicit OpBuilder(OpDef& d) : d_(d) {}
  OpBuilder& doc(std::string text);
  OpBuilder& input(std::string name, Accepts a = Accepts::Any);
  OpBuilder& input_free(std::string name, Accepts a = Accepts::Any);  // own dtype
  OpBuilder& input_optional(std::string name, Accepts a = Accepts::Any, bool free = false);
  OpBuilder& inputs_variadic(std::string name, Accepts a = Accepts::Any, bool free = false);
  OpBuilder& attr(std::string name, AttrKind kind, std::string doc);  // required
  OpBuilder& attr(std::string name, AttrKind kind, Attr default_value, std::string doc);
  OpBuilder& normalize(NormalizeFn f);
  OpBuilder& infer(InferFn f);
  OpBuilder& pointwise(PointwiseFn f);
  OpBuilder& indexed(IndexedFn f);
  OpBuilder& program(ProgramFn f, ProgramFn extents = {});
  OpBuilder& composed(ComposedFn f);
  OpBuilder& structural();
  OpBuilder& gradient(GradientFn f);

 private:
  OpDef& d_;
};

class OpTable {
 public:
  OpBuilder add(std::string name);
  const OpDef* find(std::string_view name) const;
  std::vector<const OpDef*> all() const;  // by name
 private:
  std::map<std::string, std::unique_ptr<OpDef>, std::less<>> ops_;
};
const OpTable& op_table();  // built once, thread-safe

// Shape rules used by many ops.
InferFn same_as(int input = 0);       // type of that input
InferFn broadcast_inputs();           // broadcast of all inputs, dtype of the first
InferFn broadcast_to_dtype(DType t);  // broadcast shape, that dtype (comparisons)
// Checks a node's inputs and attributes against its entry and fills in defaults; throws Error{InvalidArgument}.
void complete(Node& n);
// Throws Error{InvalidArgument} for the node.
[[noreturn]] void bad_input(const Node& n, std::string expected, std::string got);
// Attribute axis normalised to [0, rank); throws Error{InvalidArgument} when out of range.
int normalize_axis(const Node& n, std::int64_t axis, int rank);
std::vector<int> normalize_axes(const Node& n, const std::vector<std::int64_t>& axes,
                                int rank);  // sorted, distinct
// Dims that shape rules take to be equal though they are written differently, one of them being symbolic: to be checked
// when they are bound. Rules that run on this thread while one stands append to it.
class Assumptions {
 public:
  Assumptions();
  ~Assumptions();
  Assumptions(const Assumptions&) = delete;
  Assumptions& operator=(const Assumptions&) = delete;
  std::vector<std::pair<Dim, Dim>> pairs;

 private:
  Assumptions* outer_;
};
// Whether a dim may be the other: equal, or assumed to be when one is symbolic.
bool may_equal(const Dim& a, const Dim& b);
// Whether a may be at most b: for certain, or assumed when a symbol decides.
bool may_be_at_most(const Dim& a, const Dim& b);
// broadcast(), with what it assumes.
std::optional<Shape> broadcast_assuming(const Shape& a, const Shape& b);
// Sums dy down to `like`'s shape after a broadcast.
Value unbroadcast(Graph& g, Value dy, Value like);

// One function per subject of entries, called by op_table().
void add_unary_ops(OpTable& t);       // neg, exp, tanh, is_nan, cast ...
void add_binary_ops(OpTable& t);      // add, less, logical_and, select, clamp ...
void add_activation_ops(OpTable& t);  // relu, gelu, silu ...
void add_shape_ops(OpTable& t);       // view.cc, join.cc, make.cc, gather.cc, scatter.cc
void add_reduce_ops(OpTable& t);      // sum, mean, argmax ...
void add_matmul_ops(OpTable& t);
void add_distance_ops(OpTable& t);
void add_expert_ops(OpTable& t);
void add_conv_ops(OpTable& t);
void add_pool_ops(OpTable& t);
void add_conv_transpose_ops(OpTable& t);
void add_adaptive_pool_ops(OpTable& t);
void add_norm_ops(OpTable& t);          // softmax, layer_norm, batch_norm ...
void add_channel_norm_ops(OpTable& t);  // group_norm, instance_norm, lrn
void add_attention_ops(OpTable& t);
void add_scan_ops(OpTable& t);        // cumsum, cumprod
void add_sort_ops(OpTable& t);        // sort, topk, nonzero
void add_factor_ops(OpTable& t);      // lu, cholesky, triangular_solve
void add_orthogonal_ops(OpTable& t);  // householder, jacobi_svd, symmetric_eigen
void add_control_ops(OpTable& t);     // if, while
void add_recurrent_ops(OpTable& t);   // lstm, gru, rnn
void add_random_ops(OpTable& t);
void add_quantize_ops(OpTable& t);

}  // namespace deepseek
