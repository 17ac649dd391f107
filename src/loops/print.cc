// The text form; parse.cc reads it. In short:
//   program f
//   message "index out of range"
//   param read x: float32[$N]
//   param write y: float32[$N]
//   parallel i < $N {
//     let a: float32 = x[i]
//     y[i] = max(a, 0.0f) when i != 3
//   }
// $N is a symbol; literals: 3 (int64), 3:int32, 1.5 (float64), 1.5f (float32), true. float32(e) casts. A name
// that occurs twice gets a number. Large shared sub-expressions are named once: with(%0 = e, %1 = e: e).
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>

#include "loops/ir.h"
#include "loops/types.h"

namespace deepseek::loops {
namespace {

// Trees beyond this size name what they share.
constexpr std::int64_t kLargeTree = 400;

bool is_identifier(std::string_view s) {
  if (s.empty() || (std::isdigit(static_cast<unsigned char>(s[0])) != 0)) return false;
  for (const char c : s)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') return false;
  return true;
}

std::string quoted(std::string_view s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + "\"";
}

std::string plain_or_quoted(std::string_view s) { return is_identifier(s) ? std::string(s) : quoted(s); }

// Words that the parser would read as something else.
bool is_reserved(const std::string& s) {
  static const std::set<std::string> words = [] {
    std::set<std::string> w = {"true",  "false",   "inf",    "nan",     "if",   "else", "while",
                               "let",   "alloc",   "assert", "tile",    "fill", "load", "map",
                               "store", "copy",    "wait",   "barrier", "mma",  "with", "when",
                               "in",    "program", "param",  "message", "sum",  "prod"};
    for (int i = 0; i <= static_cast<int>(Op::Reduce); ++i) w.insert(name(static_cast<Op>(i)));
    for (int i = 0; i <= static_cast<int>(LoopKind::Thread); ++i) w.insert(name(static_cast<LoopKind>(i)));
    for (int i = 0; i < kDTypeCount; ++i) w.insert(std::string(name(static_cast<DType>(i))));
    return w;
  }();
  return words.contains(s);
}

struct Infix {
  const char* text;
  int precedence;
};
std::optional<Infix> infix(Op op) {
  switch (op) {
    case Op::Or:
      return Infix{"|", 1};
    case Op::Xor:
      return Infix{"^", 2};
    case Op::And:
      return Infix{"&", 3};
    case Op::Eq:
      return Infix{"==", 4};
    case Op::Ne:
      return Infix{"!=", 4};
    case Op::Lt:
      return Infix{"<", 4};
    case Op::Le:
      return Infix{"<=", 4};
    case Op::Shl:
      return Infix{"<<", 5};
    case Op::Shr:
      return Infix{">>", 5};
    case Op::Add:
      return Infix{"+", 6};
    case Op::Sub:
      return Infix{"-", 6};
    case Op::Mul:
      return Infix{"*", 7};
    case Op::Div:
      return Infix{"/", 7};
    case Op::FloorDiv:
      return Infix{"//", 7};
    case Op::Mod:
      return Infix{"%", 7};
    default:
      return std::nullopt;
  }
}
constexpr int kUnary = 8;

// The shortest text that reads back as v; narrow types need no more digits than a float.
std::string float_text(double v, bool wide) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer{};
  char* const begin = buffer.data();
  char* const limit = begin + buffer.size();
  const char* end =
      wide ? std::to_chars(begin, limit, v).ptr : std::to_chars(begin, limit, static_cast<float>(v)).ptr;
  std::string text(static_cast<const char*>(begin), end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string constant_text(const ExprNode& n) {
  const std::string type = ":" + std::string(name(n.type));
  if (const auto* d = std::get_if<double>(&n.value)) {
    const std::string text = float_text(*d, n.type == DType::F64);
    if (n.type == DType::F64) return text;
    return n.type == DType::F32 && std::isfinite(*d) ? text + "f" : text + type;
  }
  const std::int64_t v = std::get<std::int64_t>(n.value);
  if (n.type == DType::Bool) return v ? "true" : "false";
  if (n.type == DType::U64) return std::to_string(static_cast<std::uint64_t>(v)) + type;
  return std::to_string(v) + (n.type == DType::I64 ? "" : type);
}

class Printer {
 public:
  std::string expr(const Expr& e) {
    if (!e.get()) return "<empty>";
    shared_.clear();
    if (tree_size(e) > kLargeTree) return with_shared(e);
    return expr(e, 0);
  }

  std::string program(const Program& p) {
    out_ = "program " + plain_or_quoted(p.name) + "\n";
    const std::vector<std::string> used = collect_symbols(p);
    for (const std::string& symbol : p.symbols)
      if (std::ranges::find(used, symbol) == used.end()) out_ += "symbol $" + plain_or_quoted(symbol) + "\n";
    for (const std::string& m : p.messages) out_ += "message " + quoted(m) + "\n";
    for (const Param& param : p.params)
      out_ += "param " + std::string(access(param.access)) + " " + declare(*param.buffer) + "\n";
    if (const Block* b = as<Block>(p.body)) {
      for (const Stmt& s : b->stmts) print(s);
    } else {
      print(p.body);
    }
    return std::move(out_);
  }

 private:
  std::map<const void*, std::string> names_;
  std::set<std::string> taken_;
  std::unordered_map<const ExprNode*, std::string> shared_;
  std::string out_;
  std::string indent_;

  static const char* access(Access a) {
    switch (a) {
      case Access::Read:
        return "read";
      case Access::Scan:
        return "scan";
      case Access::Write:
        return "write";
      case Access::Stream:
        return "stream";
      case Access::ReadWrite:
        return "readwrite";
      case Access::Workspace:
        return "workspace";
    }
    return "?";
  }

  const std::string& named(const void* identity, const std::string& wish) {
    if (const auto it = names_.find(identity); it != names_.end()) return it->second;
    std::string base;
    for (const char c : wish) base += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    if (base.empty() || std::isdigit(static_cast<unsigned char>(base[0])) != 0 || is_reserved(base))
      base = "_" + base;
    std::string unique = base;
    for (int i = 1; !taken_.insert(unique).second; ++i) unique = base + "_" + std::to_string(i);
    return names_.emplace(identity, unique).first->second;
  }
  const std::string& ref(const Var& v) { return named(v.get(), v->name); }
  const std::string& ref(const Buffer& b) { return named(b.get(), b->name); }
  const std::string& ref(const Tile& t) { return named(t.get(), t->name); }

  std::string declare(const BufferNode& b) {
    return named(&b, b.name) + ": " + std::string(name(b.dtype)) + "[" + expr(b.extent) + "]";
  }

  static std::int64_t tree_size(const Expr& e) {
    std::unordered_map<const ExprNode*, std::int64_t> sizes;
    const auto size = [&](const auto& self, const Expr& x) -> std::int64_t {
      if (const auto it = sizes.find(x.get()); it != sizes.end()) return it->second;
      std::int64_t n = 1;
      for (const Expr& a : x->args) n = std::min(n + self(self, a), kLargeTree + 1);
      sizes.emplace(x.get(), n);
      return n;
    };
    return size(size, e);
  }

  // Names each compound node that is used twice, in an order in which it can be read back. What stands under
  // a Reduce may read its axes, so it is left in place.
  std::string with_shared(const Expr& e) {
    std::unordered_map<const ExprNode*, int> uses;
    std::vector<Expr> order;
    const auto count = [&](const auto& self, const Expr& x) -> void {
      if (x->args.empty() || ++uses[x.get()] > 1) return;
      if (x.op() != Op::Reduce)
        for (const Expr& a : x->args) self(self, a);
      order.push_back(x);
    };
    count(count, e);
    std::string bindings;
    for (const Expr& x : order) {
      if (uses[x.get()] < 2) continue;
      std::string text = expr(x, 0);
      const std::string name = "%" + std::to_string(shared_.size());
      bindings += (bindings.empty() ? "" : ", ") + name + " = " + text;
      shared_.emplace(x.get(), name);
    }
    std::string body = expr(e, 0);
    shared_.clear();
    return bindings.empty() ? body : "with(" + bindings + ": " + body + ")";
  }

  std::string list(const std::vector<Expr>& args) {
    std::string text;
    for (const Expr& a : args) text += (text.empty() ? "" : ", ") + expr(a, 0);
    return text;
  }

  std::string expr(const Expr& e, int outer) {
    if (const auto it = shared_.find(e.get()); it != shared_.end()) return it->second;
    switch (e.op()) {
      case Op::Const:
        return constant_text(*e);
      case Op::Var:
        return ref(e->var);
      case Op::Symbol:
        return "$" + plain_or_quoted(e->symbol);
      case Op::Cast:
        return std::string(name(e.type())) + "(" + expr(e->args[0], 0) + ")";
      case Op::Bitcast:
        return "bitcast." + std::string(name(e.type())) + "(" + expr(e->args[0], 0) + ")";
      case Op::Not:
        return "!" + expr(e->args[0], kUnary);
      case Op::Load: {
        std::string text = ref(e->buffer) + "[" + expr(e->args[0], 0);
        if (e->args.size() == 3) text += " if " + expr(e->args[1], 0) + " else " + expr(e->args[2], 0);
        return text + "]";
      }
      case Op::Reduce: {
        std::string axes;
        for (const Axis& a : e->reduction->axes)
          axes += (axes.empty() ? "" : ", ") + ref(a.var) + " < " + expr(a.extent, 5);
        return "reduce." + std::string(name(e->reduction->reducer)) + "(" + axes + ": " +
               expr(e->args[0], 0) + ")";
      }
      default:
        break;
    }
    if (const auto i = infix(e.op())) {
      // Comparisons do not chain; the others associate to the left.
      const int left = i->precedence == 4 ? 5 : i->precedence;
      std::string text = expr(e->args[0], left) + " " + i->text + " " + expr(e->args[1], i->precedence + 1);
      return outer > i->precedence ? "(" + text + ")" : text;
    }
    return std::string(name(e.op())) + "(" + list(e->args) + ")";
  }

  void line(const std::string& text) { out_ += indent_ + text + "\n"; }

  void body(const std::string& head, const Stmt& s) {
    line(head + " {");
    indent_ += "  ";
    print(s);
    indent_.resize(indent_.size() - 2);
  }

  static std::string condition(const std::string& text, const Expr& predicate, Printer& p) {
    return predicate ? text + " when " + p.expr(predicate) : text;
  }

  void print(const Stmt& s) {
    if (!s) return;
    std::visit([this](const auto& x) { print(x); }, s->v);
  }

  void print(const Block& b) {
    for (const Stmt& s : b.stmts) {
      if (as<Block>(s)) {
        body("block", s);
        line("}");
      } else {
        print(s);
      }
    }
  }
  void print(const For& x) {
    const std::string extent = expr(x.extent);
    body(std::string(name(x.kind)) + " " + ref(x.var) + " < " + extent, x.body);
    line("}");
  }
  void print(const While& x) {
    body("while " + expr(x.condition), x.body);
    line("}");
  }
  void print(const If& x) {
    body("if " + expr(x.condition), x.then);
    if (x.otherwise) body("} else", x.otherwise);
    line("}");
  }
  void print(const Let& x) {
    const std::string value = expr(x.value);
    line("let " + ref(x.var) + ": " + std::string(name(x.var->dtype)) + " = " + value);
  }
  void print(const Alloc& x) {
    const char* space = x.buffer->space == Space::Register ? "register"
                        : x.buffer->space == Space::Shared ? "shared"
                                                           : "global";
    line("alloc " + declare(*x.buffer) + " in " + space);
  }
  void print(const Store& x) {
    line(condition(ref(x.buffer) + "[" + expr(x.index) + "] = " + expr(x.value), x.predicate, *this));
  }
  void print(const Accumulate& x) {
    line(condition(ref(x.buffer) + "[" + expr(x.index) + "] " + name(x.reducer) + "= " + expr(x.value),
                   x.predicate, *this));
  }
  void print(const Assert& x) { line("assert " + expr(x.condition) + ", " + std::to_string(x.code)); }
  void print(const TileAlloc& x) {
    line("tile " + ref(x.tile) + ": " + std::string(name(x.tile->dtype)) + "[" +
         std::to_string(x.tile->rows) + ", " + std::to_string(x.tile->cols) + "]");
  }
  void print(const TileFill& x) { line("fill " + ref(x.tile) + " = " + expr(x.value)); }
  void print(const TileLoad& x) {
    line("load " + ref(x.tile) + " = " + ref(x.buffer) + "[" + expr(x.base) + "; " + expr(x.row_stride) +
         ", " + expr(x.col_stride) + "; " + expr(x.valid_rows) + ", " + expr(x.valid_cols) + "]" +
         (x.group == 1 ? "" : " by " + std::to_string(x.group)));
  }
  void print(const TileMma& x) { line("mma " + ref(x.c) + " += " + ref(x.a) + " * " + ref(x.b)); }
  void print(const TileMap& x) {
    const std::string tile = ref(x.tile), i = ref(x.i), j = ref(x.j), e = ref(x.x);
    line("map " + tile + "[" + i + ", " + j + "] as " + e + " = " + expr(x.value));
  }
  void print(const TileStore& x) {
    const std::string tile = ref(x.tile), i = ref(x.i), j = ref(x.j), e = ref(x.x);
    body("store " + tile + "[" + i + " < " + expr(x.valid_rows) + ", " + j + " < " + expr(x.valid_cols) +
             "] as " + e,
         x.body);
    line("}");
  }
  void print(const CopyAsync& x) {
    line("copy " + ref(x.token) + ": " + ref(x.dst) + "[" + expr(x.dst_base) + "; " + expr(x.dst_stride) +
         "] = " + ref(x.src) + "[" + expr(x.src_base) + "; " + expr(x.src_stride) + "], " + expr(x.rows) +
         ", " + expr(x.cols));
  }
  void print(const Wait& x) { line("wait " + ref(x.token)); }
  void print(const Barrier&) { line("barrier"); }
  void print(const Prefetch& x) {
    line("prefetch " + ref(x.buffer) + "[" + expr(x.index) + "]" + (x.near ? " near" : ""));
  }
};

}  // namespace

std::string print(const Program& p) { return Printer().program(p); }
std::string print(const Expr& e) { return Printer().expr(e); }

}  // namespace deepseek::loops
