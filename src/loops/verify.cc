// The rules of the language. Each is one throw below, and one test in tests/unit/loops_verify_test.cc.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "deepseek/error.h"
#include "loops/ir.h"
#include "loops/simplify.h"
#include "loops/types.h"

namespace deepseek::loops {
namespace {

[[noreturn]] void broken(const std::string& expected, const std::string& got) {
  throw Error(Code::Internal, "verify", "", expected, got);
}
std::string text(DType t) { return std::string(name(t)); }

bool storable(DType t) { return t == DType::Bool || is_integer(t) || is_float(t); }

// What a value may differ by, of the loops around it.
enum Varies : unsigned { kNothing = 0, kLane = 1, kIteration = 2, kThread = 4 };

class Verifier {
 public:
  explicit Verifier(const Program& p) : p_(p), symbols_(p.symbols.begin(), p.symbols.end()) {}

  void run() {
    if (!std::ranges::is_sorted(p_.symbols) || symbols_.size() != p_.symbols.size())
      broken("sorted, distinct symbols", "another order");
    for (const Param& param : p_.params) {
      const BufferNode& b = *param.buffer;
      if (b.space != Space::Global) broken("parameters in global memory", b.name);
      declare(param.buffer);
      index(b.extent, "extent of " + b.name);
      if (reads_variables(b.extent)) broken("a parameter's extent over symbols", print(b.extent));
      if (is_only_read(param.access)) read_only_.insert(param.buffer.get());
      if (param.access == Access::Stream && is_read(p_, param.buffer))
        broken("plain stores to the stream " + b.name, "more than those");
    }
    visit_stmts(p_.body, [&](const Stmt& s) {
      if (const auto* c = as<CopyAsync>(s)) tokens_.insert(c->token.get());
    });
    top_level();
  }

 private:
  const Program& p_;
  std::set<std::string> symbols_;
  std::unordered_map<const BufferNode*, int> buffers_;  // declared: loops deep
  std::unordered_set<const BufferNode*> read_only_;
  std::unordered_map<const VarNode*, unsigned> variables_;  // in scope: what they vary with
  std::unordered_set<const TileNode*> tiles_;
  std::unordered_set<const VarNode*> tokens_;
  struct Enclosing {
    LoopKind kind;
    const VarNode* var;
    bool once;  // its extent is 1: nothing to race with
  };
  std::vector<Enclosing> loops_;
  std::vector<unsigned> ifs_;          // what the conditions of Ifs around vary with
  std::vector<unsigned> trip_counts_;  // and the number of times that loops around run
  bool in_tile_store_ = false;

  bool inside(LoopKind k) const {
    return std::ranges::any_of(loops_, [k](const Enclosing& l) { return l.kind == k; });
  }
  static unsigned any(const std::vector<unsigned>& all) {
    unsigned v = kNothing;
    for (const unsigned c : all) v |= c;
    return v;
  }

  static bool reads_variables(const Expr& e) {
    bool found = false;
    visit(e, [&](const Expr& x) { found |= x.op() == Op::Var || x.op() == Op::Load; });
    return found;
  }

  // -- scopes --------------------------------------------------------------------------------------------------

  void declare(const Buffer& b) {
    if (!storable(b->dtype)) broken("a buffer of real numbers", b->name + ": " + text(b->dtype));
    if (!buffers_.emplace(b.get(), static_cast<int>(loops_.size())).second)
      broken("a buffer declared once", b->name);
  }
  void declare(const Var& v, unsigned varies) {
    if (!variables_.emplace(v.get(), varies).second) broken("a variable bound once", v->name);
  }
  void declared(const Buffer& b) const {
    if (!buffers_.contains(b.get())) broken("a buffer in scope", b->name);
  }
  void declared(const Tile& t) const {
    if (!tiles_.contains(t.get())) broken("a tile in scope", t->name);
  }

  // Runs f and takes back what it declared.
  template <class F>
  void scope(F f) {
    const auto buffers = buffers_;
    const auto variables = variables_;
    const auto tiles = tiles_;
    f();
    buffers_ = buffers;
    variables_ = variables;
    tiles_ = tiles;
  }

  // -- expressions ---------------------------------------------------------------------------------------------

  // Checks the tree and gives what its value may vary with. A load from memory that the program writes may give
  // anything.
  unsigned check(const Expr& e, const std::string& where) {
    if (!e.get()) broken("an expression in " + where, "none");
    unsigned varies = kNothing;
    visit(e, [&](const Expr& x) { varies |= node(x, where); });
    return varies;
  }

  unsigned node(const Expr& e, const std::string& where) {
    switch (e.op()) {
      case Op::Const:
        return kNothing;
      case Op::Symbol:
        if (!symbols_.contains(e->symbol)) broken("a symbol of the program in " + where, e->symbol);
        return kNothing;
      case Op::Var: {
        const auto it = variables_.find(e->var.get());
        if (it == variables_.end()) broken("a variable in scope in " + where, e->var->name);
        if (e.type() != e->var->dtype) broken("a variable's own type", e->var->name + ": " + text(e.type()));
        return it->second;
      }
      case Op::Reduce:
        broken("no reduction in a program: " + where, print(e));
      case Op::Cast:
        if (e->args.size() != 1 || !storable(e.type()) || !storable(e->args[0].type()))
          broken("a cast of real types", print(e));
        return kNothing;
      case Op::Bitcast:
        if (e->args.size() != 1 || bits(e.type()) != bits(e->args[0].type()))
          broken("a bitcast of types of one width", print(e));
        return kNothing;
      case Op::Load:
        return load_node(e);
      default:
        break;
    }
    if (result_type(e.op(), e->args) != e.type()) broken("the type of " + print(e), text(e.type()));
    return kNothing;
  }

  unsigned load_node(const Expr& e) {
    declared(e->buffer);
    if (e.type() != e->buffer->dtype) broken("a load of " + text(e->buffer->dtype), text(e.type()));
    const bool predicated = e->args.size() == 3;
    if (!predicated && e->args.size() != 1) broken("a load with one or three arguments", e->buffer->name);
    if (e->args[0].type() != DType::I64)
      broken("an int64 index of " + e->buffer->name, text(e->args[0].type()));
    if (predicated) {
      if (e->args[1].type() != DType::Bool)
        broken("a bool predicate of " + e->buffer->name, text(e->args[1].type()));
      if (e->args[2].type() != e->type) broken("`otherwise` of " + text(e->type), text(e->args[2].type()));
    } else {
      within(e->buffer, e->args[0]);
    }
    return read_only_.contains(e->buffer.get()) ? kNothing : kLane | kIteration | kThread;
  }

  // Catches what is out of bounds for certain.
  static void within(const Buffer& b, const Expr& i) {
    const Range r = range(i), extent = range(b->extent);
    if (r.min && r.max && *r.min > *r.max) return;  // in a loop that does not run
    if (r.max && *r.max < 0) broken("an index of " + b->name + " from 0", print(i));
    if (r.min && extent.max && *r.min >= *extent.max)
      broken("an index of " + b->name + " below " + print(b->extent), print(i));
  }

  unsigned index(const Expr& e, const std::string& where) {
    const unsigned varies = check(e, where);
    if (e.type() != DType::I64) broken("int64 in " + where, text(e.type()));
    return varies;
  }
  unsigned truth(const Expr& e, const std::string& where) {
    const unsigned varies = check(e, where);
    if (e.type() != DType::Bool) broken("bool in " + where, text(e.type()));
    return varies;
  }
  unsigned typed(const Expr& e, DType t, const std::string& where) {
    const unsigned varies = check(e, where);
    if (e.type() != t) broken(text(t) + " in " + where, text(e.type()));
    return varies;
  }

  // -- statements ----------------------------------------------------------------------------------------------

  // Declarations of the top level are repeated in each phase: what a phase leaves in an Alloc is gone in the next,
  // and a Let must give the same again.
  void top_level() {
    std::map<const BufferNode*, std::size_t> used;
    std::set<const BufferNode*> own;
    const std::vector<Phase> all = phases(p_);
    if (const auto* top = as<Block>(p_.body)) {
      for (const Stmt& s : top->stmts) {
        if (const auto* a = as<Alloc>(s)) own.insert(a->buffer.get());
        const auto* let = as<Let>(s);
        if (!let || all.size() < 2) continue;
        visit(let->value, [&](const Expr& x) {
          if (x.op() == Op::Load && !reads_only(x->buffer.get()))
            broken("a top-level let that phases may repeat", let->var->name + " loads " + x->buffer->name);
        });
      }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (reads_variables(all[i].grid())) broken("a grid over symbols", print(all[i].parallel->extent));
      const auto note = [&](const BufferNode* b) {
        if (own.contains(b) && used.emplace(b, i).first->second != i)
          broken("a top-level alloc used in one phase", b->name);
      };
      visit_stmts(all[i].body, [&](const Stmt& s) {
        if (const auto* store = as<Store>(s)) note(store->buffer.get());
        visit_exprs(s, [&](const Expr& e) {
          visit(e, [&](const Expr& x) {
            if (x.op() == Op::Load) note(x->buffer.get());
          });
        });
      });
    }
    stmt(p_.body, true);
  }
  bool reads_only(const BufferNode* b) const {
    return std::ranges::any_of(p_.params,
                               [b](const Param& p) { return p.buffer.get() == b && is_only_read(p.access); });
  }

  void stmt(const Stmt& s, bool top = false) {
    if (!s) return;
    if (const auto* b = as<Block>(s)) {
      scope([&] {
        for (const Stmt& inner : b->stmts) stmt(inner, top);
      });
    } else if (const auto* f = as<For>(s)) {
      loop(*f, top);
    } else {
      std::visit([this](const auto& x) { rule(x); }, s->v);
    }
  }
  void nested(const Stmt& s) {
    scope([&] { stmt(s); });
  }

  void rule(const Block&) {}
  void rule(const For&) {}

  void loop(const For& x, bool top) {
    const std::string where = std::string(name(x.kind)) + " " + x.var->name;
    unsigned varies = index(x.extent, "extent of " + where);
    if (x.var->dtype != DType::I64) broken("an int64 variable of " + where, text(x.var->dtype));
    const bool constant_extent = x.extent.is_const();
    switch (x.kind) {
      case LoopKind::Serial:
        break;
      case LoopKind::Parallel:
        if (!top) broken("a parallel loop at top level only", where);
        break;
      case LoopKind::Block:
        if (!top && (loops_.empty() || !std::ranges::all_of(loops_, [](const Enclosing& l) {
                       return l.kind == LoopKind::Block;
                     })))
          broken("a block loop at top level or in block loops", where);
        break;
      case LoopKind::Thread:
        if (!inside(LoopKind::Block)) broken("a thread loop in a block loop", where);
        if (!constant_extent) broken("a constant extent of " + where, print(x.extent));
        if (inside(LoopKind::Vector)) broken("no thread loop in a vector loop", where);
        break;
      case LoopKind::Vector:
        if (inside(LoopKind::Vector)) broken("no vector loop in a vector loop", where);
        break;
      case LoopKind::Unrolled:
        if (!constant_extent) broken("a constant extent of " + where, print(x.extent));
        break;
    }
    if (inside(LoopKind::Vector) && (varies & kLane) != 0)
      broken("a uniform extent inside a vector loop: " + where, print(x.extent));
    const unsigned around = varies;
    if (x.kind == LoopKind::Vector) varies |= kLane;
    if (x.kind == LoopKind::Parallel || x.kind == LoopKind::Block) varies |= kIteration;
    if (x.kind == LoopKind::Thread) varies |= kThread;
    loops_.push_back({x.kind, x.var.get(), x.extent.int_value() == 1});
    trip_counts_.push_back(around);
    scope([&] {
      declare(x.var, varies);
      stmt(x.body);
    });
    trip_counts_.pop_back();
    loops_.pop_back();
  }
  void rule(const While& x) {
    if (inside(LoopKind::Vector)) broken("no while in a vector loop", print(x.condition));
    trip_counts_.push_back(truth(x.condition, "while"));
    nested(x.body);
    trip_counts_.pop_back();
  }
  void rule(const If& x) {
    ifs_.push_back(truth(x.condition, "if"));
    nested(x.then);
    nested(x.otherwise);
    ifs_.pop_back();
  }
  void rule(const Let& x) {
    const unsigned varies = typed(x.value, x.var->dtype, "let " + x.var->name);
    declare(x.var, varies);
  }
  void rule(const Alloc& x) {
    index(x.buffer->extent, "extent of " + x.buffer->name);
    if (x.buffer->space == Space::Global) broken("an alloc in shared memory or registers", x.buffer->name);
    if (x.buffer->space == Space::Register && !x.buffer->extent.is_const())
      broken("a constant extent of the register buffer " + x.buffer->name, print(x.buffer->extent));
    if (x.buffer->space == Space::Shared && (inside(LoopKind::Thread) || inside(LoopKind::Vector)))
      broken("shared memory allocated outside thread and vector loops", x.buffer->name);
    declare(x.buffer);
  }

  // Would two lanes, threads, or iterations of a Parallel loop write one element?
  void no_race(const Buffer& b, unsigned index_varies, unsigned guard_varies, bool accumulates,
               const std::string& where) {
    const int declared_at = buffers_.at(b.get());
    const unsigned told_apart = index_varies | guard_varies | any(ifs_);
    for (std::size_t i = static_cast<std::size_t>(declared_at); i < loops_.size(); ++i) {
      if (loops_[i].once) continue;
      const LoopKind k = loops_[i].kind;
      if (k == LoopKind::Vector && !accumulates && (told_apart & kLane) == 0)
        broken("an index that depends on the lane " + std::string(loops_[i].var->name), where);
      if (k == LoopKind::Thread && !in_tile_store_ && (told_apart & kThread) == 0)
        broken("an index that depends on the thread " + std::string(loops_[i].var->name), where);
      if ((k == LoopKind::Parallel || k == LoopKind::Block) && b->space == Space::Global &&
          (told_apart & kIteration) == 0)
        broken("an index that depends on the iteration " + std::string(loops_[i].var->name), where);
    }
  }

  void written(const Buffer& b, const Expr& i, const Expr& predicate, bool accumulates,
               const std::string& where) {
    declared(b);
    if (read_only_.contains(b.get())) broken("no store to the input " + b->name, where);
    const unsigned index_varies = index(i, "index of " + where);
    unsigned guard = kNothing;
    if (predicate)
      guard = truth(predicate, "predicate of " + where);
    else
      within(b, i);
    no_race(b, index_varies, guard, accumulates, where + "[" + print(i) + "]");
  }
  void rule(const Store& x) {
    written(x.buffer, x.index, x.predicate, false, "store " + x.buffer->name);
    typed(x.value, x.buffer->dtype, "store " + x.buffer->name);
  }
  void rule(const Accumulate& x) {
    written(x.buffer, x.index, x.predicate, true, "accumulate " + x.buffer->name);
    typed(x.value, x.buffer->dtype, "accumulate " + x.buffer->name);
    combine(x.reducer, x.value, x.value);  // throws where the type has no such operation
  }
  void rule(const Assert& x) {
    truth(x.condition, "assert");
    if (x.code < 1 || static_cast<std::size_t>(x.code) > p_.messages.size())
      broken("an assert's code from 1 to " + std::to_string(p_.messages.size()), std::to_string(x.code));
  }

  void collective(const std::string& where) const {
    if (inside(LoopKind::Vector) || in_tile_store_) broken("no " + where + " in a vector loop", "one");
  }
  void rule(const TileAlloc& x) {
    collective("tile");
    if (x.tile->rows < 1 || x.tile->cols < 1) broken("a tile of at least one element", x.tile->name);
    if (!tiles_.insert(x.tile.get()).second) broken("a tile declared once", x.tile->name);
  }
  void rule(const TileFill& x) {
    collective("tile operation");
    declared(x.tile);
    typed(x.value, x.tile->dtype, "fill " + x.tile->name);
  }
  void rule(const TileLoad& x) {
    collective("tile operation");
    declared(x.tile);
    declared(x.buffer);
    const DType from = x.buffer->dtype;
    const bool bytes = from == DType::I8 || from == DType::U8,
               nibbles = from == DType::I4 || from == DType::U4;
    const bool widens = x.tile->dtype == DType::F32 && (bytes || nibbles) && x.group == 1;
    if (x.tile->dtype != from && !widens)
      broken("a tile of " + text(from), x.tile->name + ": " + text(x.tile->dtype));
    for (const Expr* e : {&x.base, &x.row_stride, &x.col_stride, &x.valid_rows, &x.valid_cols})
      index(*e, "load " + x.tile->name);
    if (x.group < 1 || x.tile->rows % x.group != 0)
      broken("groups that divide the rows of " + x.tile->name, std::to_string(x.group));
  }
  void rule(const TileMma& x) {
    collective("tile operation");
    for (const Tile* t : {&x.c, &x.a, &x.b}) declared(*t);
    if (x.a->rows != x.c->rows || x.b->cols != x.c->cols || x.a->cols != x.b->rows)
      broken("tiles that multiply", x.c->name + " += " + x.a->name + " * " + x.b->name);
  }
  void rule(const TileMap& x) {
    collective("tile operation");
    declared(x.tile);
    scope([&] {
      declare_element(x.i, x.j, x.x, x.tile);
      typed(x.value, x.tile->dtype, "map " + x.tile->name);
    });
  }
  void rule(const TileStore& x) {
    collective("tile operation");
    declared(x.tile);
    index(x.valid_rows, "store " + x.tile->name);
    index(x.valid_cols, "store " + x.tile->name);
    scope([&] {
      declare_element(x.i, x.j, x.x, x.tile);
      in_tile_store_ = true;
      visit_stmts(x.body, [&](const Stmt& s) {
        if (s && !as<Block>(s) && !as<Store>(s) && !as<Let>(s) && !as<Accumulate>(s) && !as<If>(s))
          broken("stores and lets in a tile's store", x.tile->name);
      });
      stmt(x.body);
      in_tile_store_ = false;
    });
  }
  void declare_element(const Var& i, const Var& j, const Var& x, const Tile& t) {
    for (const Var* v : {&i, &j}) {
      if ((*v)->dtype != DType::I64) broken("int64 coordinates of " + t->name, (*v)->name);
      declare(*v, kNothing);
    }
    if (x->dtype != t->dtype) broken("an element of " + t->name, x->name + ": " + text(x->dtype));
    declare(x, kLane | kIteration | kThread);
  }

  void rule(const CopyAsync& x) {
    collective("copy");
    declared(x.dst);
    declared(x.src);
    if (read_only_.contains(x.dst.get())) broken("no copy to the input", x.dst->name);
    if (x.dst->dtype != x.src->dtype) broken("a copy of one type", x.dst->name + " = " + x.src->name);
    for (const Expr* e : {&x.dst_base, &x.dst_stride, &x.src_base, &x.src_stride, &x.rows, &x.cols})
      index(*e, "copy to " + x.dst->name);
  }
  void rule(const Wait& x) {
    collective("wait");
    if (!tokens_.contains(x.token.get())) broken("a wait for a copy's token", x.token->name);
  }
  void rule(const Prefetch& x) {
    collective("prefetch");
    declared(x.buffer);
    index(x.index, "prefetch of " + x.buffer->name);
  }
  void rule(const Barrier&) {
    if (!inside(LoopKind::Block)) broken("a barrier in a block loop", "another place");
    if (inside(LoopKind::Vector)) broken("no barrier in a vector loop", "one");
    if (((any(ifs_) | any(trip_counts_)) & kThread) != 0)
      broken("a barrier that all threads reach", "a condition that depends on the thread");
  }
};

}  // namespace

void verify(const Program& p) { Verifier(p).run(); }

}  // namespace deepseek::loops
