#include "loops/assemble.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "deepseek/error.h"
#include "loops/scalar.h"
#include "loops/simplify.h"

namespace deepseek::loops {
namespace {

using Number = std::uint32_t;  // of a register

[[noreturn]] void wrong(const std::string& expected, const std::string& got) {
  throw Error(Code::Internal, "interpreter", "", expected, got);
}

bool rounds(Op op) { return op != Op::Select; }
bool is_narrow(DType t) { return is_float(t) && bits(t) < 32; }

// Expressions without loads are computed once, in the outermost loop whose variables they need; values are
// shared by node. Loads are computed where they stand and shared within one statement.
class Assembler {
 public:
  Assembler(const Program& p, bool check) : check_(check) {
    scopes_.emplace_back();
    for (const Param& param : p.params) add_buffer(param.buffer);
    code_.first_local = p.params.size();
    code_.first_symbol = static_cast<Number>(code_.registers.size());
    for (const std::string& s : p.symbols) symbols_.emplace(s, fresh());
  }

  Assembled finish(const Phase& phase) {
    for (const Stmt& s : phase.prefix) emit(s);
    if (phase.parallel) {
      code_.grid = phase.grid();
      code_.grid_variable = fresh();
      if (code_.grid_variable == 0) code_.grid_variable = fresh();  // 0 means none
      bind(phase.parallel->var, code_.grid_variable, depth());
      emit(phase.parallel->body);
    } else {
      emit(phase.body);
    }
    put(handlers::stop());
    code_.instructions = std::move(scopes_.front().code);
    return std::move(code_);
  }

 private:
  struct Scope {
    std::vector<Instruction> code;
    std::unordered_map<const ExprNode*, Number> values;
  };
  struct Bound {
    Number number;
    int depth;
  };

  const bool check_;
  Assembled code_;
  std::vector<Scope> scopes_;
  std::unordered_map<const VarNode*, Bound> variables_;
  std::unordered_map<std::string, Number> symbols_;
  std::unordered_map<const BufferNode*, Number> buffers_;
  std::unordered_map<const TileNode*, Number> tiles_;
  std::unordered_map<const VarNode*, std::int64_t> tokens_;
  std::map<std::uint64_t, Number> constants_;
  std::unordered_map<const ExprNode*, Number> loads_;  // of the statement in progress
  std::unordered_map<const ExprNode*, int> depths_;    // of the statement in progress
  std::vector<Expr> made_;                             // keeps the nodes alive whose addresses are keys

  static constexpr int kHere = 1 << 30;  // depth of what contains a load

  int depth() const { return static_cast<int>(scopes_.size()) - 1; }
  Number fresh() {
    code_.registers.emplace_back();
    return static_cast<Number>(code_.registers.size() - 1);
  }
  void put(Handler h, Number to = 0, Number a = 0, Number b = 0, Number c = 0, std::int64_t immediate = 0) {
    scopes_.back().code.push_back({h, to, a, b, c, immediate});
  }
  void bind(const Var& v, Number n, int at) { variables_[v.get()] = {n, at}; }
  Expr keep(Expr e) {
    made_.push_back(e);
    return e;
  }
  void begin_statement() {
    loads_.clear();
    depths_.clear();
  }

  Number add_buffer(const Buffer& b) {
    const auto [it, is_new] = buffers_.try_emplace(b.get(), static_cast<Number>(code_.buffers.size()));
    if (is_new) code_.buffers.push_back({b->name, b->dtype});
    return it->second;
  }
  Number buffer(const Buffer& b) const {
    const auto it = buffers_.find(b.get());
    if (it == buffers_.end()) wrong("a declared buffer", b->name);
    return it->second;
  }
  Number tile(const Tile& t) const {
    const auto it = tiles_.find(t.get());
    if (it == tiles_.end()) wrong("a declared tile", t->name);
    return it->second;
  }
  std::int64_t token(const Var& v) {
    return tokens_.try_emplace(v.get(), static_cast<std::int64_t>(tokens_.size())).first->second;
  }

  // -- expressions ---------------------------------------------------------------------------------------------

  const Bound& bound(const Var& v) const {
    const auto it = variables_.find(v.get());
    if (it == variables_.end()) wrong("a variable in scope", v->name);
    return it->second;
  }

  int depth_of(const Expr& e) {
    switch (e.op()) {
      case Op::Const:
      case Op::Symbol:
        return 0;
      case Op::Var:
        return bound(e->var).depth;
      case Op::Load:
        return kHere;
      default:
        break;
    }
    if (const auto it = depths_.find(e.get()); it != depths_.end()) return it->second;
    int d = 0;
    for (const Expr& a : e->args) d = std::max(d, depth_of(a));
    depths_.emplace(e.get(), d);
    return d;
  }

  Number constant_register(const ExprNode& n) {
    Register r;
    const Scalar s = scalar_of(n);
    if (n.type == DType::F64)
      r.set(s.d);
    else if (is_float(n.type))
      r.set(static_cast<float>(s.d));
    else
      r.bits = static_cast<std::uint64_t>(s.i);  // low bytes are the narrower types
    const auto [it, is_new] = constants_.try_emplace(r.bits, 0);
    if (is_new) {
      it->second = fresh();
      code_.registers[it->second] = r;
    }
    return it->second;
  }

  Number value(const Expr& e) {
    switch (e.op()) {
      case Op::Const:
        return constant_register(*e);
      case Op::Var:
        return bound(e->var).number;
      case Op::Symbol: {
        const auto it = symbols_.find(e->symbol);
        if (it == symbols_.end()) wrong("a symbol of the program", e->symbol);
        return it->second;
      }
      case Op::Reduce:
        wrong("a program without reductions", print(e));
      default:
        break;
    }
    const int at = depth_of(e);
    auto& known = at == kHere ? loads_ : scopes_[static_cast<std::size_t>(at)].values;
    if (const auto it = known.find(e.get()); it != known.end()) return it->second;
    Number n[3] = {0, 0, 0};
    for (std::size_t i = 0; i < e->args.size(); ++i) n[i] = value(e->args[i]);
    const Number to = fresh();
    auto& code = scopes_[static_cast<std::size_t>(at == kHere ? depth() : at)].code;
    const auto add = [&](Handler h, Number a, Number b = 0, Number c = 0, std::int64_t immediate = 0) {
      code.push_back({h, to, a, b, c, immediate});
    };
    const DType from = e->args[0].type();
    switch (e.op()) {
      case Op::Load:
        add(handlers::load(e.type(), e->args.size() == 3, check_), n[0], n[1], n[2], buffer(e->buffer));
        break;
      case Op::Cast:
        add(handlers::convert(from, e.type()), n[0]);
        if (is_narrow(e.type())) add(handlers::round(e.type()), to);
        break;
      case Op::Bitcast:
        add(handlers::reinterpret(from, e.type()), n[0]);
        break;
      default:
        add(handlers::operation(e.op(), e->args.back().type()), n[0], n[1], n[2]);
        if (is_narrow(e.type()) && rounds(e.op())) add(handlers::round(e.type()), to);
    }
    (at == kHere ? loads_ : scopes_[static_cast<std::size_t>(at)].values).emplace(e.get(), to);
    return to;
  }

  // -- statements ----------------------------------------------------------------------------------------------

  template <class F>
  std::vector<Instruction> nested(F body) {
    scopes_.emplace_back();
    begin_statement();
    body();
    std::vector<Instruction> code = std::move(scopes_.back().code);
    scopes_.pop_back();
    begin_statement();
    return code;
  }
  void append(std::vector<Instruction> code) {
    auto& to = scopes_.back().code;
    to.insert(to.end(), code.begin(), code.end());
  }

  template <class F>
  void loop(const Var& v, const Expr& extent, bool shuffled, F body) {
    const Number n = value(extent), variable = fresh(), counter = fresh();
    fresh();  // the step of a shuffled order
    auto code = nested([&] {
      bind(v, variable, depth());
      body();
    });
    const auto length = static_cast<std::int64_t>(code.size());
    put(handlers::loop_begin(shuffled), variable, n, counter, 0, length + 2);
    append(std::move(code));
    put(handlers::loop_end(shuffled), variable, n, counter, 0, -length);
  }

  void emit(const Stmt& s) {
    if (!s) return;
    begin_statement();
    std::visit([this](const auto& x) { emit(x); }, s->v);
  }

  void emit(const Block& b) {
    for (const Stmt& s : b.stmts) emit(s);
  }
  void emit(const For& x) {
    if (x.kind == LoopKind::Thread) {
      const Number n = value(x.extent), variable = fresh();
      auto code = nested([&] {
        bind(x.var, variable, depth());
        emit(x.body);
        put(handlers::stop());
      });
      put(handlers::threads_begin(check_), variable, n, 0, 0, static_cast<std::int64_t>(code.size()) + 1);
      append(std::move(code));
      return;
    }
    const bool any_order = x.kind != LoopKind::Serial && x.kind != LoopKind::Unrolled;
    loop(x.var, x.extent, check_ && any_order, [&] { emit(x.body); });
  }
  void emit(const While& x) {
    auto code = nested([&] {
      const Number condition = value(x.condition);
      const std::size_t exit = scopes_.back().code.size();
      put(handlers::jump_unless(), 0, condition);
      emit(x.body);
      auto& code = scopes_.back().code;
      put(handlers::jump(), 0, 0, 0, 0, -static_cast<std::int64_t>(code.size()));
      code[exit].immediate = static_cast<std::int64_t>(code.size() - exit);
    });
    append(std::move(code));
  }
  void emit(const If& x) {
    const Number condition = value(x.condition);
    auto yes = nested([&] { emit(x.then); });
    auto no = nested([&] { emit(x.otherwise); });
    const auto yes_length = static_cast<std::int64_t>(yes.size()),
               no_length = static_cast<std::int64_t>(no.size());
    put(handlers::jump_unless(), 0, condition, 0, 0, yes_length + (no.empty() ? 1 : 2));
    append(std::move(yes));
    if (no.empty()) return;
    put(handlers::jump(), 0, 0, 0, 0, no_length + 1);
    append(std::move(no));
  }
  void emit(const Let& x) {
    const int at = std::min(depth_of(x.value), depth());
    bind(x.var, value(x.value), at);
  }
  void emit(const Alloc& x) {
    const Number extent = value(x.buffer->extent);
    put(handlers::allocate(check_), 0, extent, 0, 0, add_buffer(x.buffer));
  }
  void emit(const Store& x) {
    const Number index = value(x.index), v = value(x.value);
    const Number predicate = x.predicate ? value(x.predicate) : 0;
    put(handlers::store(x.buffer->dtype, static_cast<bool>(x.predicate), check_), 0, index, v, predicate,
        buffer(x.buffer));
  }
  void emit(const Accumulate& x) {
    const Expr old = keep(x.predicate ? load(x.buffer, x.index, x.predicate, zero(x.buffer->dtype))
                                      : load(x.buffer, x.index));
    emit(Store{x.buffer, x.index, keep(combine(x.reducer, old, x.value)), x.predicate});
  }
  void emit(const Assert& x) { put(handlers::assertion(), 0, value(x.condition), 0, 0, x.code); }

  void emit(const TileAlloc& x) {
    const auto [it, is_new] = tiles_.try_emplace(x.tile.get(), static_cast<Number>(code_.tiles.size()));
    if (is_new) code_.tiles.push_back({x.tile->rows, x.tile->cols});
    put(handlers::tile_begin(), 0, 0, 0, 0, it->second);
  }
  // body(i, j) for every element.
  template <class F>
  void each_element(const Tile& t, const Var& i, const Var& j, const Expr& rows, const Expr& cols, F body) {
    loop(i, keep(min(rows, t->rows)), false, [&] { loop(j, keep(min(cols, t->cols)), false, body); });
  }
  void bind_element(const Tile& t, const Var& i, const Var& j, const Var& x) {
    const Number element = fresh();
    put(handlers::tile_get(), element, bound(i).number, bound(j).number, 0, tile(t));
    bind(x, element, depth());
  }
  void set_element(const Tile& t, const Var& i, const Var& j, Number v) {
    put(handlers::tile_set(), 0, bound(i).number, bound(j).number, v, tile(t));
  }
  void emit(const TileFill& x) {
    const Number v = value(x.value);
    const Var i = loop_var("i", x.tile->rows), j = loop_var("j", x.tile->cols);
    each_element(x.tile, i, j, x.tile->rows, x.tile->cols, [&] { set_element(x.tile, i, j, v); });
  }
  void emit(const TileLoad& x) {
    const Var i = loop_var("i", x.tile->rows), j = loop_var("j", x.tile->cols);
    const Expr row = x.group == 1 ? var(i) * x.row_stride
                                  : floordiv(var(i), x.group) * x.row_stride + mod(var(i), x.group);
    const Expr element = keep(
        cast(x.tile->dtype, load(x.buffer, x.base + row + var(j) * x.col_stride,
                                 var(i) < x.valid_rows && var(j) < x.valid_cols, zero(x.buffer->dtype))));
    each_element(x.tile, i, j, x.tile->rows, x.tile->cols,
                 [&] { set_element(x.tile, i, j, value(element)); });
  }
  void emit(const TileMma& x) {
    put(handlers::tile_mma(x.c->dtype, x.a->dtype, x.b->dtype), tile(x.c), tile(x.a), tile(x.b));
  }
  void emit(const TileMap& x) {
    each_element(x.tile, x.i, x.j, x.tile->rows, x.tile->cols, [&] {
      bind_element(x.tile, x.i, x.j, x.x);
      set_element(x.tile, x.i, x.j, value(x.value));
    });
  }
  void emit(const TileStore& x) {
    each_element(x.tile, x.i, x.j, x.valid_rows, x.valid_cols, [&] {
      bind_element(x.tile, x.i, x.j, x.x);
      emit(x.body);
    });
  }

  void emit(const CopyAsync& x) {
    const Expr* operands[] = {&x.dst_base, &x.dst_stride, &x.src_base, &x.src_stride, &x.rows, &x.cols};
    Number values[6];
    for (int i = 0; i < 6; ++i) values[i] = value(*operands[i]);
    const Number first = fresh();
    for (int i = 1; i < 6; ++i) fresh();
    for (Number i = 0; i < 6; ++i) put(handlers::reinterpret(DType::I64, DType::I64), first + i, values[i]);
    put(handlers::copy_begin(check_), buffer(x.dst), buffer(x.src), first, 0, token(x.token));
  }
  void emit(const Wait& x) { put(handlers::copy_wait(check_), 0, 0, 0, 0, token(x.token)); }
  void emit(const Barrier&) { put(handlers::barrier()); }
  void emit(const Prefetch&) {}
};

}  // namespace

Assembled assemble(const Program& program, const Phase& phase, bool check) {
  return Assembler(program, check).finish(phase);
}

}  // namespace deepseek::loops
