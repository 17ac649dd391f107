// The loop language: what every kernel is written in and every target compiles.
//
// A Program is a list of phases over buffers. Its expressions are scalar; a `Vector` loop says that its
// iterations are independent lanes and may run side by side (SPMD), so one source serves the interpreter, which
// runs lanes one after another, a SIMD machine, which widens them, and a GPU. Values are immutable trees shared
// by pointer; constructors fold constants and simplify index arithmetic (see simplify.h for the rules).
//
// Semantics, the same on every target:
//  - Integers wrap. Div and Rem truncate (C); FloorDiv and Mod round down (Python). Division by zero gives 0;
//    MIN / -1 gives MIN. A shift by width or more gives 0 (Shr of a signed negative: -1).
//  - Float Rem is C fmod, Mod is Python %. Min and Max propagate NaN. Eq, Lt, Le with NaN are false, Ne true.
//    Round is half to even. Nothing contracts a*b+c unless Fma is written.
//  - Cast float -> int truncates, saturates, NaN gives 0; to Bool is x != 0. Cast to a narrow float goes
//    through F32 and rounds to nearest even; F8 types without infinity give NaN beyond their
//    range as ONNX's non-saturating mode does.
//  - Load with a predicate does not touch memory when it is false and gives `otherwise`.
//  - Assert that fails puts its code into the status word and execution goes on: guard the loads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "deepseek/dtype.h"

namespace deepseek::loops {

// clang-format off
enum class Op : std::uint8_t {
  // leaves
  Const, Var, Symbol,
  // unary, type of the argument
  Neg, Abs, Not /* logical on Bool, bitwise on integers */, Floor, Ceil, Trunc, Round, Sqrt, Exp, Expm1, Log, Log1p,
  Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Tanh, Sigmoid, Asinh, Acosh, Atanh, Erf, Erfc, LGamma,
  Digamma,
  // unary to Bool
  IsNan, IsInf,
  // binary, both arguments of one type
  Add, Sub, Mul, Div, FloorDiv, Rem, Mod, Min, Max, Pow, Atan2,
  Ldexp,  // of F32: a * 2^b rounded once, a 0 or |a| from 1/2 to 2, b a whole number and |b| <= 152
  And, Or, Xor, Shl, Shr,
  // binary to Bool
  Eq, Ne, Lt, Le,
  Select,   // (Bool, x, y)
  Fma,      // a*b + c, rounded once
  Cast, Bitcast,
  Load,     // (index) or (index, predicate, otherwise)
  Reduce,   // definitions only: see Reduction
};
// clang-format on
const char* name(Op op);

struct ExprNode;
class Expr {
 public:
  Expr() = default;
  explicit Expr(std::shared_ptr<const ExprNode> node) : node_(std::move(node)) {}
  Expr(std::int64_t literal);  // NOLINT: an I64 constant; takes the other operand's type in arithmetic
  Expr(int literal) : Expr(static_cast<std::int64_t>(literal)) {}  // NOLINT
  Expr(double literal);  // NOLINT: F64 constant; takes the other operand's type in arithmetic

  // Not empty. `!e` is the language's Not, and && and || with an Expr build one: test emptiness with get() there.
  explicit operator bool() const { return node_ != nullptr; }
  const ExprNode& operator*() const { return *node_; }
  const ExprNode* operator->() const { return node_.get(); }
  const ExprNode* get() const { return node_.get(); }
  DType type() const;
  Op op() const;
  bool is_const() const { return op() == Op::Const; }
  // The constant's value, when this is an integer constant.
  std::optional<std::int64_t> int_value() const;

 private:
  std::shared_ptr<const ExprNode> node_;
};

enum class Space : std::uint8_t {
  Global,  // parameters: inputs, outputs, workspaces
  Shared,  // on-chip memory of a block (GPU shared memory, an accelerator's scratchpad); on a CPU: per thread
  Register,  // private to an iteration; small, constant extent
};

// Identity is the pointer. `extent` is in elements; a parameter's may use symbols.
struct BufferNode {
  std::string name;
  DType dtype;
  Space space;
  Expr extent;
};
using Buffer = std::shared_ptr<const BufferNode>;

// A loop variable or a Let. Identity is the pointer. [min, max] and `extent`, when known, bound it: min <= it <= max,
// it < extent. Simplification uses them.
struct VarNode {
  std::string name;
  DType dtype;
  std::optional<std::int64_t> min, max;
  Expr extent;  // of a loop whose extent is not a constant
  Expr value;   // of a Let of an index expression, when known: rules see through the variable
};
using Var = std::shared_ptr<const VarNode>;

enum class Reducer : std::uint8_t { Sum, Prod, Min, Max, And, Or };
const char* name(Reducer r);

// Part of a definition: reducer over the box of `axes` of `body`, which reads the axes' variables.
struct Axis {
  Var var;
  Expr extent;
};
struct Reduction {
  Reducer reducer;
  std::vector<Axis> axes;
};

struct ExprNode {
  Op op;
  DType type;
  std::vector<Expr> args;
  std::variant<std::monostate, std::int64_t, double>
      value;                                   // Const: integers and Bool as int64, floats as double
  Var var;                                     // Var
  std::string symbol;                          // Symbol: a symbolic dim, I64, >= 0
  Buffer buffer;                               // Load
  std::shared_ptr<const Reduction> reduction;  // Reduce, args = {body}
};

// -- building expressions ------------------------------------------------------------------------------------
Expr constant(DType t, std::int64_t v);
Expr constant(DType t, double v);
Expr zero(DType t);
Expr one(DType t);
Expr lowest(DType t);  // -inf for floats, the minimum for integers: the identity of Max
Expr highest(DType t);
Expr identity(Reducer r, DType t);
Expr var(const Var& v);
Expr symbol(std::string name);
// The general constructor: types checked, constants folded, indices simplified.
Expr make(Op op, std::vector<Expr> args);
Expr cast(DType t, Expr x);
Expr bitcast(DType t, Expr x);
Expr load(const Buffer& b, Expr index);
Expr load(const Buffer& b, Expr index, Expr predicate, Expr otherwise);
Expr reduce(Reducer r, std::vector<Axis> axes, Expr body);
Expr combine(Reducer r, Expr a, Expr b);  // the reducer applied to two values

Expr operator+(Expr a, Expr b);
Expr operator-(Expr a, Expr b);
Expr operator*(Expr a, Expr b);
Expr operator/(Expr a, Expr b);  // Div
Expr operator-(Expr a);
Expr operator&&(Expr a, Expr b);  // And
Expr operator||(Expr a, Expr b);  // Or
Expr operator!(Expr a);
Expr operator==(Expr a, Expr b);  // Eq: an expression, not a comparison of trees; see same()
Expr operator!=(Expr a, Expr b);
Expr operator<(Expr a, Expr b);
Expr operator<=(Expr a, Expr b);
Expr operator>(Expr a, Expr b);
Expr operator>=(Expr a, Expr b);
Expr floordiv(Expr a, Expr b);
Expr mod(Expr a, Expr b);
Expr min(Expr a, Expr b);
Expr max(Expr a, Expr b);
Expr select(Expr condition, Expr yes, Expr no);

Var make_var(std::string name, DType t = DType::I64);
Var loop_var(std::string name, const Expr& extent);  // I64 in [0, extent)
Buffer make_buffer(std::string name, DType t, Space space, Expr extent);

bool same(const Expr& a, const Expr& b);  // equal trees
// Replaces variables. `to` must cover each occurrence's scope.
Expr substitute(const Expr& e, std::span<const Var> from, std::span<const Expr> to);
// Rebuilds `e` bottom-up: f gets each node with its arguments already rebuilt; an empty result keeps it.
Expr rewrite(const Expr& e, const std::function<Expr(const Expr&)>& f);
void visit(const Expr& e, const std::function<void(const Expr&)>& f);  // every node once (shared ones too)
// The coefficient c with e = c*v + rest, rest free of v; nothing when e is not linear in v.
std::optional<Expr> coefficient(const Expr& e, const Var& v);
bool uses(const Expr& e, const Var& v);

// -- statements ----------------------------------------------------------------------------------------------
struct StmtNode;
using Stmt = std::shared_ptr<const StmtNode>;

enum class LoopKind : std::uint8_t {
  Serial,
  Parallel,  // top level of a program only: its range is divided among the executor's threads
  Vector,    // iterations are independent lanes; inner loops have uniform bounds; no While inside
  Unrolled,  // constant extent; expanded
  Block,     // GPU grid; on other targets Parallel
  Thread,    // GPU threads of a block, constant extent; Barrier may stand inside
};
const char* name(LoopKind k);

struct Block {
  std::vector<Stmt> stmts;
};
struct For {
  Var var;
  Expr extent;
  LoopKind kind;
  Stmt body;
};  // var runs 0 ... extent-1
struct While {
  Expr condition;
  Stmt body;
};  // condition reads buffers
struct If {
  Expr condition;
  Stmt then, otherwise;
};  // otherwise may be null
struct Let {
  Var var;
  Expr value;
};  // in scope for the rest of its Block
struct Alloc {
  Buffer buffer;
};  // in scope for the rest of its Block; contents undefined
struct Store {
  Buffer buffer;
  Expr index, value;
  Expr predicate;
};  // predicate may be empty
// buffer[index] = reducer(buffer[index], value). Inside a Vector loop an index that does not depend on the lane
// is legal here (and only here): lanes are combined in an unspecified but fixed order.
struct Accumulate {
  Reducer reducer;
  Buffer buffer;
  Expr index, value;
  Expr predicate;
};
struct Assert {
  Expr condition;
  std::int32_t code;
};  // code: index into Program::messages, plus 1

// A tile is a rows x cols matrix held where the target's matrix unit wants it. All its operations are
// collective over the scope (one thread, a warp, a block).
struct TileNode {
  std::string name;
  DType dtype;
  std::int64_t rows, cols;
};
using Tile = std::shared_ptr<const TileNode>;
struct TileAlloc {
  Tile tile;
};
struct TileFill {
  Tile tile;
  Expr value;
};
// tile[i][j] = buffer[base + (i/group)*row_stride + j*col_stride + i%group] for i < valid_rows, j < valid_cols, else 0:
// `group` rows may lie interleaved, as matrix units that multiply pairs or quads want their right operand. A tile of
// float32 may be filled from whole numbers of 8 or 4 bits.
struct TileLoad {
  Tile tile;
  Buffer buffer;
  Expr base, row_stride, col_stride, valid_rows, valid_cols;
  std::int64_t group = 1;
};
// c += a * b with a: c.rows x k, b: k x c.cols, k = a.cols = b.rows; accumulates in c's type.
struct TileMma {
  Tile c, a, b;
};
// tile[i][j] = value, where value reads i, j (variables) and x (variable: the element).
struct TileMap {
  Tile tile;
  Var i, j, x;
  Expr value;
};
// Runs body once per element i < valid_rows, j < valid_cols with x bound to it. body: Stores (and Lets); a Vector
// loop over j in effect.
struct TileStore {
  Tile tile;
  Var i, j, x;
  Expr valid_rows, valid_cols;
  Stmt body;
};

// Starts copying rows x cols elements between buffers (either may be Shared); complete after Wait on its token.
struct CopyAsync {
  Buffer dst;
  Expr dst_base, dst_stride;
  Buffer src;
  Expr src_base, src_stride;
  Expr rows, cols;
  Var token;
};
struct Wait {
  Var token;
};
struct Barrier {};  // all threads of a block

// Asks for the cache line of an element that will be wanted soon, or (near: into the first cache) next. Changes nothing
// else: the index may lie outside.
struct Prefetch {
  Buffer buffer;
  Expr index;
  bool near = false;
};

struct StmtNode {
  std::variant<Block, For, While, If, Let, Alloc, Store, Accumulate, Assert, TileAlloc, TileFill, TileLoad,
               TileMma, TileMap, TileStore, CopyAsync, Wait, Barrier, Prefetch>
      v;
};

template <class T>
Stmt stmt(T s) {
  return std::make_shared<const StmtNode>(StmtNode{std::move(s)});
}
Stmt block(std::vector<Stmt> stmts);  // flattens nested blocks, drops null statements
template <class T>
const T* as(const Stmt& s) {
  return s ? std::get_if<T>(&s->v) : nullptr;
}
// Every expression that stands directly in the statement (not in its sub-statements).
void visit_exprs(const Stmt& s, const std::function<void(const Expr&)>& f);
// The statement and everything inside it, outer before inner.
void visit_stmts(const Stmt& s, const std::function<void(const Stmt&)>& f);

// -- programs ------------------------------------------------------------------------------------------------
enum class Access : std::uint8_t {
  Read,
  Scan,  // Read, once and in order, of more than the first cache holds: asked for ahead of its use
  Write,
  Stream,  // Write, of more than caches keep until somebody reads it: stores may go past them. Never read
  ReadWrite,
  Workspace,
};
constexpr bool is_only_read(Access access) { return access == Access::Read || access == Access::Scan; }
struct Param {
  Buffer buffer;
  Access access;
};

// The unit that a target compiles. The body's top level is a sequence of phases, each finished before the next
// begins; a phase that is a Parallel loop is divided among threads, anything else runs on one.
struct Program {
  std::string name;
  std::vector<Param> params;          // inputs, outputs, workspaces: the order in which addresses are passed
  std::vector<std::string> symbols;   // sorted: the order in which dims are passed
  std::vector<std::string> messages;  // of Asserts
  Stmt body;
};
// A phase: a Parallel or Block loop of the top level, or the statements between two of them. Lets and Allocs of the
// top level that stand before it are its prefix: they are done again in each phase, so an Alloc's contents do not
// survive from one phase to another.
struct Phase {
  std::vector<Stmt> prefix;
  Stmt body;
  const For* parallel = nullptr;  // body, when it is the loop that threads divide
  Stmt whole() const;             // prefix and body in one Block
  Expr grid() const;              // the loop's extent with the prefix's Lets put in; 1 without a loop
};
std::vector<Phase> phases(const Program& p);  // pointers into p
// Whether anything but a plain Store touches what is in the buffer.
bool is_read(const Program& p, const Buffer& b);
// The symbols that body and params use, sorted.
std::vector<std::string> collect_symbols(const Program& p);

// The text form: parses back to an equal program (parse throws Error with line and column).
std::string print(const Program& p);
std::string print(const Expr& e);
Program parse(std::string_view text);
// Throws Error{Internal} that names the first broken rule: types, scopes, loop kinds, lane races, extents.
void verify(const Program& p);

}  // namespace deepseek::loops
