// Emits one function of a loop program as LLVM IR.
//
// Expressions of the loop language are scalar. Inside a Vector loop each value has a shape: Uniform (all lanes
// agree; stays a scalar), Linear (lane l holds v + l*stride; an index, still a scalar until somebody needs the
// vector) or Varying (a vector of `lanes` elements). Loads look at the shape of their index: Uniform is one
// scalar load, Linear with stride 1 a vector load, anything else a gather. Divergent If statements and the last
// step of a loop run under a mask.
//
// Held in registers, Bool is i1 and narrow floats are integers of their bits; in memory Bool is i8. Sub-byte types
// are held as i8, extended by their sign.
#pragma once

#include <llvm/Analysis/InstSimplifyFolder.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include <array>
#include <functional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "loops/ir.h"
#include "targets/llvm/accumulator.h"
#include "targets/llvm/amx.h"
#include "targets/llvm/congruence.h"
#include "targets/llvm/machine.h"
#include "targets/llvm/scratch.h"
#include "targets/llvm/tile_state.h"

namespace deepseek::codegen {

struct Val {
  enum class Shape : std::uint8_t { Uniform, Linear, Varying };
  llvm::Value* v = nullptr;
  Shape shape = Shape::Uniform;
  std::int64_t stride = 0;  // of Linear
  Congruence known = {};    // of an I64, in lane 0

  bool uniform() const { return shape == Shape::Uniform; }
  bool contiguous() const { return shape == Shape::Linear && stride == 1; }
};

// Where a buffer lives. Per-lane memory has an element for each lane: [extent][lanes].
struct Memory {
  llvm::Value* base = nullptr;
  DType dtype = DType::F32;
  bool per_lane = false;
  bool packed = false;  // several elements to a byte
  bool stream = false;  // aligned vectors are stored past the caches
  bool scan = false;    // lines are asked for ahead of the vectors that are loaded
};

// What the function's arguments and surroundings give to the emitter.
struct Frame {
  llvm::Function* function = nullptr;
  llvm::Value* status = nullptr;  // null: Asserts are dropped
  llvm::Value* scratch = nullptr;
  const ScratchPlan* plan = nullptr;
  const AmxPlan* amx = nullptr;                     // null: no tile is in a matrix register
  std::array<std::int64_t, 3> block_dims{1, 1, 1};  // GPU: threads of a block along x, y, z
};

class Emitter {
 public:
  using Builder = llvm::IRBuilder<llvm::InstSimplifyFolder>;

  Emitter(const Machine& machine, llvm::Module& module, const Frame& frame);

  void bind(const loops::Buffer& buffer, llvm::Value* base);
  void stream(const loops::Buffer& buffer) { memory(buffer).stream = true; }  // its base is on a cache line
  void ask_ahead(const loops::Buffer& buffer) { memory(buffer).scan = true; }
  void bind(const std::string& symbol, llvm::Value* value) { symbols_[symbol] = value; }
  void emit(const loops::Stmt& s);
  // for (var = begin; var < end; ++var) body
  void emit_range(const loops::Var& var, llvm::Value* begin, llvm::Value* end, const loops::Stmt& body);
  llvm::Value* emit_scalar(const loops::Expr& e);  // outside Vector loops
  void configure_amx();                            // before and after all that uses matrix registers
  void release_amx();
  Builder& builder() { return b_; }

 private:
  // expr.cc
  Val emit(const loops::Expr& e);
  Val emit_new(const loops::Expr& e);
  Val emit_constant(const loops::ExprNode& e);
  Val emit_unary(loops::Op op, DType t, const Val& x);
  Val emit_binary(const loops::Expr& e, const Val& x, const Val& y);
  Val emit_compare(loops::Op op, DType t, const Val& x, const Val& y);
  Val emit_choice(const loops::Expr& e);
  Val emit_select(const Val& c, const Val& x, const Val& y);
  // A branch around one arm of each of these, taken where any of the lanes is set.
  void emit_where_wanted(llvm::Value* lanes, std::span<const loops::Expr> choices, std::size_t arm);
  std::vector<loops::Expr> choices_by(const loops::Expr& condition, std::size_t arm) const;
  bool are_costly(std::span<const loops::Expr> choices, std::size_t arm) const;
  // Index arithmetic on Uniform and Linear values; an empty result means that the vectors are needed.
  Val linear_binary(const loops::Expr& e, const Val& x, const Val& y);
  Val linear_divide(loops::Op op, const Val& x, const Val& y);
  Val linear_compare(loops::Op op, const Val& x, const Val& y);

  // values.cc
  llvm::Type* type(DType t) const;  // in registers
  llvm::Type* memory_type(DType t) const;
  llvm::Type* shaped(llvm::Type* scalar, const llvm::Value* like) const;  // a vector where `like` is one
  llvm::Type* vector_type(llvm::Type* scalar) const;  // `lanes_` wide, or the scalar itself
  llvm::Value* vec(const Val& x);                     // as vector_type
  llvm::Value* iota(llvm::Type* scalar);              // 0, 1, 2, ... lanes-1
  llvm::Value* i64(std::int64_t v) { return b_.getInt64(static_cast<std::uint64_t>(v)); }
  llvm::Value* any(llvm::Value* mask);  // i1
  Val apply(std::span<const Val> args, const std::function<llvm::Value*(std::span<llvm::Value* const>)>& f);
  llvm::AllocaInst* local(llvm::Type* t, const llvm::Twine& name);  // in the entry block
  llvm::Value* select_mask(llvm::Value* x, llvm::Value* y);         // and of masks; null is all true

  // arithmetic.cc: element by element on scalars or vectors
  llvm::Value* unary(loops::Op op, DType t, llvm::Value* x);
  llvm::Value* binary(loops::Op op, DType t, llvm::Value* x, llvm::Value* y);
  llvm::Value* integer_binary(loops::Op op, DType t, llvm::Value* x, llvm::Value* y);
  llvm::Value* float_binary(loops::Op op, DType t, llvm::Value* x, llvm::Value* y);
  llvm::Value* divide(loops::Op op, bool is_signed, llvm::Value* x, llvm::Value* y);
  llvm::Value* shift(loops::Op op, bool is_signed, llvm::Value* x, llvm::Value* y);
  llvm::Value* compare(loops::Op op, DType t, llvm::Value* x, llvm::Value* y);
  llvm::Value* ldexp(llvm::Value* x, llvm::Value* n);
  llvm::Value* minmax(bool is_max, DType t, llvm::Value* x, llvm::Value* y);
  llvm::Value* combine(loops::Reducer r, DType t, llvm::Value* x, llvm::Value* y);
  llvm::Value* reduce_lanes(loops::Reducer r, DType t, llvm::Value* x);
  llvm::Value* identity(loops::Reducer r, DType t);

  // convert.cc
  llvm::Value* convert(llvm::Value* x, DType from, DType to);
  llvm::Value* widen(llvm::Value* x, DType t);   // narrow float -> F32, others as they are
  llvm::Value* narrow(llvm::Value* x, DType t);  // F32 -> narrow float
  llvm::Value* round_small(llvm::Value* x, DType t);
  llvm::Value* power_of_two(llvm::Value* x);  // F8E8M0 to F32
  llvm::Value* round_to_power_of_two(llvm::Value* x);
  llvm::Value* to_memory(llvm::Value* x, DType t);
  llvm::Value* from_memory(llvm::Value* x, DType t);

  // memory.cc
  Memory& memory(const loops::Buffer& buffer);
  llvm::Value* address(const Memory& m, llvm::Value* index);
  Val emit_load(const loops::ExprNode& e);
  Val load(const Memory& m, const Val& index, const Val* predicate, const Val* otherwise);
  Val load_packed(const Memory& m, const Val& index, const Val* predicate, const Val* otherwise);
  Val load_strided(const Memory& m, const Val& index);
  llvm::Value* guarded(llvm::Value* pointer, llvm::Value* condition);  // zeros where the condition is false
  void store(const Memory& m, const Val& index, const Val& value, llvm::Value* mask, bool mask_any);
  void store_packed(const Memory& m, llvm::Value* index, llvm::Value* value);
  bool may_stream(const Memory& m, const Val& index) const;  // a vector from there on
  void emit_store(const loops::Store& s);
  void emit_accumulate(const loops::Stmt& s);
  void each_active_lane(llvm::Value* mask, const std::function<void(llvm::Value* lane)>& f);
  void update(const Memory& m, llvm::Value* index, loops::Reducer r, llvm::Value* value);

  // statements.cc
  void emit_if(const loops::If& s);
  void emit_while(const loops::While& s);
  void emit_alloc(const loops::Alloc& s);
  void emit_assert(const loops::Assert& s);
  void emit_copy(const loops::CopyAsync& s);
  void emit_prefetch(const loops::Prefetch& s);
  void prefetch(llvm::Value* line, bool near);
  void emit_barrier();
  void emit_for(const loops::For& s);
  using PutAway = std::function<void()>;
  void emit_serial(const loops::For& s, std::int64_t length = 0, const PutAway& put_away = {});
  void emit_hardware_loop(const loops::For& s);
  void emit_vector(const loops::For& s);
  // Emits `then` where the condition holds, `otherwise` (which may be empty) where not; falls through afterwards.
  void when(llvm::Value* condition, const std::function<void()>& then, const char* name,
            const std::function<void()>& otherwise = {});
  // for (i = begin; i < end; i += step) body(i), at least one iteration being known if `entered`.
  void loop(llvm::Value* begin, llvm::Value* end, std::int64_t step, bool entered,
            const std::function<void(llvm::Value*)>& body);

  // vector_loop.cc
  std::vector<Accumulator> find_accumulators(const loops::For& s);
  void emit_pieces(const loops::For& s);
  // Emits a loop whose sums stay in so many registers each until it is over. Where it is `long_loop`, it gets a function
  // that puts them away, to be run after every kLongestChain additions (empty: no need).
  void accumulating(std::vector<Accumulator> accumulators, int registers, bool long_loop,
                    const std::function<void(const PutAway&)>& emit_loop);
  // loop() from begin to end, with `put_away` run after every `length` iterations and after the last one.
  void loop_in_parts(llvm::Value* begin, llvm::Value* end, std::int64_t step, std::int64_t length,
                     const PutAway& put_away, const std::function<void(llvm::Value*)>& body);
  void emit_steps(const loops::For& s, llvm::Value* n, int sets, const PutAway& put_away);
  llvm::Value* sum_of_registers(const Accumulator& a);
  void put_away(const Accumulator& a);
  void finish(Accumulator& a);
  bool accumulate_in_register(const loops::Stmt& s, llvm::Value* mask);
  bool needs_scalar_tail(const loops::Stmt& body) const;

  // tiles.cc
  TileState& tile(const loops::Tile& t);
  void emit_tile_alloc(const loops::TileAlloc& s);
  void emit_tile_fill(const loops::TileFill& s);
  void emit_tile_load(const loops::TileLoad& s);
  void emit_tile_mma(const loops::TileMma& s);
  void emit_tile_map(const loops::TileMap& s);
  void emit_tile_store(const loops::TileStore& s);
  void load_nibbles(const loops::TileLoad& s, TileState& t, const Memory& m);
  bool load_turned(TileState& t, const TileState::Pending& p);
  void load_tile_elements(TileState& t);
  void settle_tiles();  // loads that were put off happen now
  llvm::Value* tile_row(const TileState::Pending& p, std::int64_t row);
  llvm::Value* tile_operand(TileState& t, std::int64_t row, std::int64_t col);
  void bind_element(TileState& t, const loops::Var& i, const loops::Var& j, const loops::Var& x,
                    std::int64_t row, std::int64_t vector);
  // dots.cc: multiplies of neighbours
  bool feeds_dot(const TileState& t) const;  // a right operand that need not be loaded before its multiply
  bool emit_dot(TileState& c, const TileState& a, const TileState& b);  // false: not such a multiply
  // The same of bytes, where a unit that saturates sums pairs of them.
  void emit_byte_pairs(TileState& c, const TileState& a, const TileState& b);
  llvm::Value* pairs_fit(const TileState& a);  // i1: no sum of a pair by any two bytes saturates
  // amx.cc: tiles in matrix registers
  bool in_amx(const loops::Tile& t) const;
  void fill_amx();
  void load_amx(const loops::TileLoad& s);
  void multiply_amx();
  void spill_amx(TileState& t);
  // Runs f with `lanes` lanes and without a mask.
  void with_lanes(int lanes, const std::function<void()>& f);

  const Machine& machine_;
  llvm::Module& module_;
  Frame frame_;
  Builder b_;
  int lanes_ = 1;
  llvm::Value* mask_ = nullptr;  // active lanes; null: all
  bool mask_any_ = true;         // at least one lane is active
  bool in_vector_ = false;
  bool in_thread_loop_ = false;
  int accumulator_set_ = 0;  // which of an Accumulator's registers the step being emitted uses

  std::unordered_map<const loops::VarNode*, Val> vars_;
  std::unordered_map<std::string, llvm::Value*> symbols_;
  std::unordered_map<const loops::BufferNode*, Memory> memories_;
  std::unordered_map<const loops::TileNode*, std::shared_ptr<TileState>> tiles_;
  // Of the statement being emitted; an expression is kept alive while its node is a key.
  std::unordered_map<const loops::ExprNode*, std::pair<loops::Expr, Val>> memo_;
  std::vector<loops::Expr> roots_;                       // its expressions
  std::unordered_set<const loops::ExprNode*> choosing_;  // Selects whose arms are being emitted
  std::unordered_map<const loops::StmtNode*, Accumulator*> accumulators_;
  llvm::GlobalVariable* zeros_ = nullptr;
};

// An emitter whose program cannot be compiled by it throws this.
[[noreturn]] void unsupported(const std::string& what);

}  // namespace deepseek::codegen
