#include "toy/compiler.h"

#include <unordered_map>
#include <utility>

#include "deepseek/error.h"

namespace deepseek::toy {
namespace {

using namespace loops;

class Compiler {
 public:
  explicit Compiler(const Program& p) : program_(p) {
    for (const Param& param : p.params) add_buffer(param.buffer);
    code_.first_symbol = static_cast<int>(code_.registers.size());
    for (std::size_t i = 0; i < p.symbols.size(); ++i) fresh();
  }

  Routine run(const Phase& phase) {
    for (const Stmt& s : phase.prefix) emit(s);
    code_.iteration = fresh();
    if (phase.parallel) {
      variables_[phase.parallel->var.get()] = code_.iteration;
      emit(phase.parallel->body);
    } else {
      emit(phase.body);
    }
    return std::move(code_);
  }

 private:
  const Program& program_;
  Routine code_;
  int lanes_ = 1;
  std::unordered_map<const VarNode*, int> variables_;
  std::unordered_map<const VarNode*, std::int64_t> copies_;
  std::unordered_map<const BufferNode*, int> buffers_;
  std::unordered_map<const TileNode*, int> tiles_;
  std::unordered_map<const ExprNode*, int> values_;  // of the statement in progress

  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    throw Error(Code::Unsupported, "toy", program_.name, expected, got);
  }

  // -- registers, memory, instructions ---------------------------------------------------------------------------

  int fresh(Scalar initial = {}) {
    code_.registers.push_back(initial);
    return static_cast<int>(code_.registers.size()) - 1;
  }
  void check_type(DType t) const {
    if (!has_type(t)) refuse("float32, int32, int64 or bool", std::string(deepseek::name(t)));
  }
  void add_buffer(const Buffer& b) {
    check_type(b->dtype);
    buffers_.emplace(b.get(), static_cast<int>(buffers_.size()));
  }
  Instruction& put(Opcode opcode, int to, std::array<int, 6> in, std::int64_t immediate = 0) {
    code_.instructions.push_back(
        {.opcode = opcode, .to = to, .in = in, .immediate = immediate, .lanes = lanes_});
    return code_.instructions.back();
  }
  std::size_t here() const { return code_.instructions.size(); }
  // A jump from instruction `from` to instruction `to`.
  void jump(std::size_t from, std::size_t to) {
    code_.instructions[from].immediate = static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from) - 1;
  }

  // -- expressions -----------------------------------------------------------------------------------------------

  int value(const Expr& e) {
    if (const auto known = values_.find(e.get()); known != values_.end()) return known->second;
    return values_[e.get()] = compute(e);
  }
  int compute(const Expr& e) {
    check_type(e.type());
    if (e.op() == Op::Const) return fresh(scalar_of(*e));
    if (e.op() == Op::Var) return variables_.at(e->var.get());
    if (e.op() == Op::Symbol) {
      int i = code_.first_symbol;
      for (const std::string& s : program_.symbols) i += s < e->symbol ? 1 : 0;
      return i;
    }
    if (e.op() == Op::Bitcast || e.op() == Op::Reduce) refuse("arithmetic", loops::name(e.op()));
    std::array<int, 6> in = {};
    for (std::size_t i = 0; i < e->args.size(); ++i) in[i] = value(e->args[i]);
    const int to = fresh();
    if (e.op() == Op::Load) {
      if (e->args.size() == 1) in[1] = fresh({1, 0});
      put(Opcode::Load, to, in).memory = buffers_.at(e->buffer.get());
    } else if (e.op() == Op::Cast) {
      Instruction& x = put(Opcode::Convert, to, in);
      x.type = e->args[0].type();
      x.into = e.type();
    } else {
      Instruction& x = put(Opcode::Compute, to, in, static_cast<std::int64_t>(e->args.size()));
      x.alu = e.op();
      x.type = e->args.back().type();
    }
    return to;
  }

  // -- statements ------------------------------------------------------------------------------------------------

  void emit(const Stmt& s) {
    if (!s) return;
    values_.clear();
    std::visit([&](const auto& x) { emit(x); }, s->v);
  }
  void emit(const Block& x) {
    for (const Stmt& s : x.stmts) emit(s);
  }
  // body for each value of v below `extent`; `lanes` of them at once.
  template <class F>
  void loop(const Var& v, const Expr& extent, int lanes, F body) {
    const int end = value(extent), i = variables_[v.get()] = fresh(), one = fresh({1, 0}), go_on = fresh();
    put(Opcode::Convert, i, {fresh({0, 0})});
    const std::size_t top = here();
    put(Opcode::Compute, go_on, {i, end}, 2).alu = Op::Lt;
    put(Opcode::JumpUnless, 0, {go_on});
    const int outer = std::exchange(lanes_, lanes_ * lanes);
    body();
    lanes_ = outer;
    put(Opcode::Compute, i, {i, one}, 2).alu = Op::Add;
    put(Opcode::Jump, 0, {});
    jump(here() - 1, top);
    jump(top + 1, here());
  }
  void emit(const For& x) {
    if (x.kind == LoopKind::Block || x.kind == LoopKind::Thread)
      refuse("loops without threads", loops::name(x.kind));
    loop(x.var, x.extent, x.kind == LoopKind::Vector ? kTile : 1, [&] { emit(x.body); });
  }
  void emit(const While& x) {
    const std::size_t top = here();
    const int go_on = value(x.condition);
    const std::size_t test = here();
    put(Opcode::JumpUnless, 0, {go_on});
    emit(x.body);
    put(Opcode::Jump, 0, {});
    jump(here() - 1, top);
    jump(test, here());
  }
  void emit(const If& x) {
    const int condition = value(x.condition);
    const std::size_t test = here();
    put(Opcode::JumpUnless, 0, {condition});
    emit(x.then);
    const std::size_t skip = here();
    put(Opcode::Jump, 0, {});
    jump(test, here());
    emit(x.otherwise);
    jump(skip, here());
  }
  void emit(const Let& x) { variables_[x.var.get()] = value(x.value); }
  void emit(const Alloc& x) {
    loops::visit(x.buffer->extent, [&](const Expr& e) {
      if (e.op() == Op::Var)
        refuse("scratchpad buffers of a size known when the kernel starts", x.buffer->name);
    });
    add_buffer(x.buffer);
    code_.scratchpad.push_back(x.buffer);
  }
  void emit(const Store& x) {
    const int index = value(x.index), v = value(x.value);
    const int predicate = x.predicate ? value(x.predicate) : fresh({1, 0});
    put(Opcode::Store, 0, {index, v, predicate}).memory = buffers_.at(x.buffer.get());
  }
  void emit(const Accumulate& x) {
    const Expr old =
        x.predicate ? load(x.buffer, x.index, x.predicate, zero(x.buffer->dtype)) : load(x.buffer, x.index);
    const Expr sum = combine(x.reducer, old, x.value);
    emit(Store{x.buffer, x.index, sum, x.predicate});
  }
  void emit(const Assert& x) { put(Opcode::Check, 0, {value(x.condition)}, x.code); }

  void emit(const CopyAsync& x) {
    const std::int64_t copy = copies_[x.token.get()] = static_cast<std::int64_t>(copies_.size());
    Instruction& i = put(Opcode::CopyStart, 0,
                         {value(x.dst_base), value(x.dst_stride), value(x.src_base), value(x.src_stride),
                          value(x.rows), value(x.cols)},
                         copy);
    i.memory = buffers_.at(x.dst.get());
    i.other = buffers_.at(x.src.get());
  }
  void emit(const Wait& x) { put(Opcode::CopyWait, 0, {}, copies_.at(x.token.get())); }
  void emit(const Barrier&) { refuse("programs without threads", "a barrier"); }
  void emit(const Prefetch&) {}

  void emit(const TileAlloc& x) {
    if (x.tile->rows != kTile || x.tile->cols != kTile || x.tile->dtype != DType::F32)
      refuse("float32 tiles of 16 x 16", x.tile->name);
    tiles_[x.tile.get()] = code_.tiles++;
  }
  void emit(const TileFill& x) { put(Opcode::TileFill, tiles_.at(x.tile.get()), {value(x.value)}); }
  void emit(const TileLoad& x) {
    if (x.buffer->space != Space::Shared) refuse("tiles loaded from the scratchpad", x.buffer->name);
    if (x.group != 1) refuse("rows that lie one after another", x.tile->name);
    put(Opcode::TileLoad, tiles_.at(x.tile.get()),
        {value(x.base), value(x.row_stride), value(x.col_stride), value(x.valid_rows), value(x.valid_cols)})
        .memory = buffers_.at(x.buffer.get());
  }
  void emit(const TileMma& x) {
    put(Opcode::TileMultiply, tiles_.at(x.c.get()), {tiles_.at(x.a.get()), tiles_.at(x.b.get())});
  }
  // body for each valid element, x bound to it: the vector unit takes a row at once.
  template <class F>
  void each_element(const Tile& tile, const Var& i, const Var& j, const Var& x, const Expr& rows,
                    const Expr& cols, F body) {
    loop(i, rows, 1, [&] {
      loop(j, cols, kTile, [&] {
        const int element = variables_[x.get()] = fresh();
        put(Opcode::TileGet, element,
            {tiles_.at(tile.get()), variables_.at(i.get()), variables_.at(j.get())});
        body();
      });
    });
  }
  void emit(const TileMap& x) {
    each_element(x.tile, x.i, x.j, x.x, kTile, kTile, [&] {
      const int v = value(x.value);
      put(Opcode::TileSet, tiles_.at(x.tile.get()), {variables_.at(x.i.get()), variables_.at(x.j.get()), v});
    });
  }
  void emit(const TileStore& x) {
    each_element(x.tile, x.i, x.j, x.x, x.valid_rows, x.valid_cols, [&] { emit(x.body); });
  }
};

}  // namespace

Routine compile(const Program& program, const Phase& phase) { return Compiler(program).run(phase); }

}  // namespace deepseek::toy
