// Reads what print.cc writes. Nodes are built as they stand, without simplification.
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>

#include "deepseek/error.h"
#include "loops/ir.h"
#include "loops/lexer.h"
#include "loops/scalar.h"
#include "loops/simplify.h"
#include "loops/types.h"

namespace deepseek::loops {
namespace {

constexpr int kDeepest = 500;           // nesting of statements and parentheses
constexpr int kMostOperations = 10000;  // of one expression: bounds the depth of its tree

struct Infix {
  Op op;
  int precedence;
};
std::optional<Infix> infix(const std::string& sign) {
  static const std::map<std::string, Infix> table = {
      {"|", {Op::Or, 1}},   {"^", {Op::Xor, 2}},       {"&", {Op::And, 3}}, {"==", {Op::Eq, 4}},
      {"!=", {Op::Ne, 4}},  {"<", {Op::Lt, 4}},        {"<=", {Op::Le, 4}}, {"<<", {Op::Shl, 5}},
      {">>", {Op::Shr, 5}}, {"+", {Op::Add, 6}},       {"-", {Op::Sub, 6}}, {"*", {Op::Mul, 7}},
      {"/", {Op::Div, 7}},  {"//", {Op::FloorDiv, 7}}, {"%", {Op::Mod, 7}}};
  const auto it = table.find(sign);
  return it == table.end() ? std::nullopt : std::optional(it->second);
}
constexpr int kComparison = 4, kUnary = 8;

std::optional<Op> function(const std::string& word) {
  static const std::map<std::string, Op> table = [] {
    std::map<std::string, Op> t;
    for (int i = static_cast<int>(Op::Neg); i <= static_cast<int>(Op::Fma); ++i)
      t.emplace(name(static_cast<Op>(i)), static_cast<Op>(i));
    return t;
  }();
  const auto it = table.find(word);
  return it == table.end() ? std::nullopt : std::optional(it->second);
}
std::optional<Reducer> reducer(const std::string& word) {
  for (int i = 0; i <= static_cast<int>(Reducer::Or); ++i)
    if (word == name(static_cast<Reducer>(i))) return static_cast<Reducer>(i);
  return std::nullopt;
}
std::optional<LoopKind> loop_kind(const std::string& word) {
  for (int i = 0; i <= static_cast<int>(LoopKind::Thread); ++i)
    if (word == name(static_cast<LoopKind>(i))) return static_cast<LoopKind>(i);
  return std::nullopt;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : tokens_(tokenize(text)) {}

  Program program() {
    Program p;
    expect("program");
    p.name = name_token();
    std::vector<std::string> symbols;
    while (accept("symbol")) {
      expect("$");
      symbols.push_back(name_token());
    }
    while (accept("message")) p.messages.push_back(take(TokenKind::String, "a quoted message").text);
    while (accept("param")) p.params.push_back(param());
    std::vector<Stmt> top;
    while (peek().kind != TokenKind::End) top.push_back(statement());
    p.body = top.size() == 1 ? top[0] : stmt(Block{std::move(top)});
    p.symbols = std::move(symbols);
    for (const std::string& s : collect_symbols(p)) p.symbols.push_back(s);
    std::ranges::sort(p.symbols);
    p.symbols.erase(std::ranges::unique(p.symbols).begin(), p.symbols.end());
    return p;
  }

 private:
  std::vector<Token> tokens_;
  std::size_t next_ = 0;
  int depth_ = 0, operations_ = 0;
  std::map<std::string, Var> variables_;
  std::map<std::string, Buffer> buffers_;
  std::map<std::string, Tile> tiles_;
  std::map<std::string, Var> tokens_of_copies_;
  std::vector<Expr> shared_;

  // -- tokens --------------------------------------------------------------------------------------------------

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  [[noreturn]] void fail(const Token& at, const std::string& expected, const std::string& got) const {
    throw Error(Code::InvalidArgument, "parse", std::to_string(at.line) + ":" + std::to_string(at.column),
                expected, got);
  }
  [[noreturn]] void fail(const std::string& expected) const {
    fail(peek(), expected, peek().kind == TokenKind::End ? "the end" : "'" + peek().text + "'");
  }
  bool is(std::string_view text, std::size_t ahead = 0) const {
    const Token& t = peek(ahead);
    return (t.kind == TokenKind::Word || t.kind == TokenKind::Sign) && t.text == text;
  }
  bool accept(std::string_view text) {
    if (!is(text)) return false;
    ++next_;
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) fail("'" + std::string(text) + "'");
  }
  Token take(TokenKind kind, const std::string& what) {
    if (peek().kind != kind) fail(what);
    return tokens_[next_++];
  }
  std::string word(const std::string& what) { return take(TokenKind::Word, what).text; }
  std::string name_token() {
    if (peek().kind == TokenKind::String) return tokens_[next_++].text;
    return word("a name");
  }
  DType dtype() {
    const Token t = take(TokenKind::Word, "a type");
    const auto d = parse_dtype(t.text);
    if (!d) fail(t, "a type", "'" + t.text + "'");
    return *d;
  }
  std::int64_t integer() {
    const bool negative = accept("-");
    const Token t = take(TokenKind::Number, "an integer");
    std::int64_t v = 0;
    const auto [end, error] = std::from_chars(t.text.data(), t.text.data() + t.text.size(), v);
    if (error != std::errc() || end != t.text.data() + t.text.size()) fail(t, "an integer", t.text);
    return negative ? -v : v;
  }

  template <class T>
  const T& known(const std::map<std::string, T>& names, const Token& t, const char* what) const {
    const auto it = names.find(t.text);
    if (it == names.end()) fail(t, what, "'" + t.text + "'");
    return it->second;
  }
  Buffer buffer() {
    const Token t = take(TokenKind::Word, "a buffer");
    return known(buffers_, t, "a buffer");
  }
  Tile tile() {
    const Token t = take(TokenKind::Word, "a tile");
    return known(tiles_, t, "a tile");
  }

  class Deeper {
   public:
    explicit Deeper(Parser& p) : p_(p) {
      if (++p_.depth_ > kDeepest)
        p_.fail(p_.peek(), "less nesting", "more than " + std::to_string(kDeepest) + " levels");
    }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --p_.depth_; }

   private:
    Parser& p_;
  };

  // Constructors complain without knowing the place.
  template <class F>
  auto placed(const Token& at, F f) {
    try {
      return f();
    } catch (const Error& e) {
      fail(at, e.expected(), e.got());
    }
  }

  // -- expressions ---------------------------------------------------------------------------------------------

  Expr expression() {
    operations_ = 0;
    shared_.clear();
    return infix_expression(0);
  }
  Expr index() { return typed(DType::I64); }
  Expr typed(DType t) {
    const Token at = peek();
    Expr e = expression();
    if (e.type() != t) fail(at, std::string(name(t)), std::string(name(e.type())));
    return e;
  }

  Expr built(const Token& at, Op op, std::vector<Expr> args) {
    if (++operations_ > kMostOperations)
      fail(at, "a smaller expression", "more than " + std::to_string(kMostOperations) + " operations");
    const DType t = placed(at, [&] { return result_type(op, args); });
    return node(op, t, std::move(args));
  }

  Expr infix_expression(int least) {
    const Deeper deeper(*this);
    Expr left = unary();
    bool compared = false;  // comparisons do not chain
    while (peek().kind == TokenKind::Sign) {
      const auto i = infix(peek().text);
      if (!i || i->precedence < least) break;
      if (i->precedence == kComparison && compared) fail("parentheses around a comparison");
      compared |= i->precedence == kComparison;
      const Token at = tokens_[next_++];
      left = built(at, i->op, {left, infix_expression(i->precedence + 1)});
    }
    return left;
  }

  Expr unary() {
    const Token at = peek();
    if (!accept("!")) return primary();
    const Deeper deeper(*this);
    return built(at, Op::Not, {infix_expression(kUnary)});
  }

  Expr primary() {
    const Token t = peek();
    switch (t.kind) {
      case TokenKind::Number:
        return number(false);
      case TokenKind::Shared: {
        ++next_;
        std::size_t i = 0;
        std::from_chars(t.text.data(), t.text.data() + t.text.size(), i);
        if (i >= shared_.size()) fail(t, "a shared expression", "%" + t.text);
        return shared_[i];
      }
      case TokenKind::Sign:
        if (accept("(")) {
          Expr e = infix_expression(0);
          expect(")");
          return e;
        }
        if (accept("$")) return symbol(name_token());
        if (accept("-")) return number(true);
        break;
      case TokenKind::Word:
        ++next_;
        return word_expression(t);
      case TokenKind::String:
      case TokenKind::End:
        break;
    }
    fail("an expression");
  }

  // 3, 3:int8, 1.5, 1.5f, 1.5:bfloat16, inf:float32.
  Expr number(bool negative) {
    const Token t = tokens_[next_++];
    std::string digits = t.text;
    DType type = DType::I64;
    bool is_float_text = t.kind == TokenKind::Word;
    if (t.kind == TokenKind::Word) {
      if (digits != "inf" && digits != "nan") fail(t, "a number", "'" + digits + "'");
      // inf:float32 without a space, unlike the colon before a body.
      const bool suffix = is(":") && peek().line == t.line && peek().column == t.column + 3;
      if (suffix) ++next_;
      type = suffix ? dtype() : DType::F64;
    } else if (t.kind != TokenKind::Number) {
      fail(t, "a number", "'" + digits + "'");
    } else {
      const std::size_t colon = digits.find(':');
      is_float_text = digits.substr(0, colon).find_first_of(".ef") != std::string::npos;
      if (colon != std::string::npos) {
        const auto d = parse_dtype(digits.substr(colon + 1));
        if (!d) fail(t, "a number's type", "'" + digits.substr(colon + 1) + "'");
        type = *d;
        digits.resize(colon);
      } else if (digits.back() == 'f') {
        type = DType::F32;
        digits.pop_back();
      } else if (is_float_text) {
        type = DType::F64;
      }
    }
    if (is_float_text != is_float(type) || !(is_float(type) || is_integer(type)))
      fail(t, "a number of its type", t.text);
    return is_float_text ? float_constant(t, digits, type, negative)
                         : integer_constant(t, digits, type, negative);
  }

  Expr float_constant(const Token& at, const std::string& digits, DType type, bool negative) const {
    double v = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), v);
    if (error == std::errc::result_out_of_range) fail(at, "a float in range", digits);
    if (error != std::errc() || end != digits.data() + digits.size()) fail(at, "a float", digits);
    return constant(type, negative ? -v : v);
  }
  Expr integer_constant(const Token& at, const std::string& digits, DType type, bool negative) const {
    std::uint64_t magnitude = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude);
    if (error != std::errc() || end != digits.data() + digits.size())
      fail(at, "an integer of 64 bits", digits);
    const auto v = static_cast<std::int64_t>(negative ? 0 - magnitude : magnitude);
    const bool fits_64 =
        type == DType::U64 ? !negative || magnitude == 0 : (v < 0) == (negative && magnitude != 0);
    if (!fits_64 || wrap_to(type, v) != v)
      fail(at, "an integer in the range of " + std::string(name(type)), digits);
    return constant(type, v);
  }

  std::vector<Expr> arguments() {
    std::vector<Expr> args;
    expect("(");
    do args.push_back(infix_expression(0));
    while (accept(","));
    expect(")");
    return args;
  }
  Expr one_argument() {
    expect("(");
    Expr e = infix_expression(0);
    expect(")");
    return e;
  }

  Expr word_expression(const Token& t) {
    const std::string& w = t.text;
    if (w == "true" || w == "false") return constant(DType::Bool, std::int64_t{w == "true"});
    if (w == "inf" || w == "nan") {
      --next_;
      return number(false);
    }
    if (w == "with") return with_shared();
    if (w == "reduce") return reduction(t);
    if (w == "bitcast") {
      expect(".");
      const DType to = dtype();
      const Expr x = one_argument();
      if (bits(to) != bits(x.type()) || to == DType::Bool || x.type() == DType::Bool || bits(to) == 0)
        fail(t, "a bitcast of types of one width",
             std::string(name(x.type())) + " to " + std::string(name(to)));
      return node(Op::Bitcast, to, {x});
    }
    if (const auto to = parse_dtype(w)) {
      const Expr x = one_argument();
      placed(t, [&] { return cast(*to, var(make_var("x", x.type()))); });
      return node(Op::Cast, *to, {x});
    }
    if (const auto op = function(w)) return built(t, *op, arguments());
    if (is("[")) return load_expression(t);
    return var(known(variables_, t, "a variable"));
  }

  Expr load_expression(const Token& t) {
    const Buffer b = known(buffers_, t, "a buffer");
    ++next_;
    const Expr at = infix_expression(0);
    if (at.type() != DType::I64) fail(t, "an int64 index", std::string(name(at.type())));
    std::vector<Expr> args = {at};
    if (accept("if")) {
      args.push_back(infix_expression(0));
      expect("else");
      args.push_back(infix_expression(0));
      if (args[1].type() != DType::Bool || args[2].type() != b->dtype)
        fail(t, "a bool and a " + std::string(name(b->dtype)), "others");
    }
    expect("]");
    return Expr(std::make_shared<const ExprNode>(
        ExprNode{.op = Op::Load, .type = b->dtype, .args = std::move(args), .buffer = b}));
  }

  Expr with_shared() {
    expect("(");
    do {
      const Token t = take(TokenKind::Shared, "a shared expression");
      if (t.text != std::to_string(shared_.size()))
        fail(t, "%" + std::to_string(shared_.size()), "%" + t.text);
      expect("=");
      shared_.push_back(infix_expression(0));
    } while (accept(","));
    expect(":");
    Expr e = infix_expression(0);
    expect(")");
    return e;
  }

  Expr reduction(const Token& t) {
    expect(".");
    const Token which = take(TokenKind::Word, "a reducer");
    const auto r = reducer(which.text);
    if (!r) fail(which, "a reducer", "'" + which.text + "'");
    expect("(");
    std::vector<Axis> axes;
    do {
      const std::string axis = word("an axis");
      expect("<");
      const Expr extent = infix_expression(0);
      if (extent.type() != DType::I64) fail(t, "int64 axes", std::string(name(extent.type())));
      axes.push_back({loop_var(axis, extent), extent});
      variables_[axis] = axes.back().var;
    } while (accept(","));
    expect(":");
    const Expr body = infix_expression(0);
    expect(")");
    placed(t, [&] { return reduce(*r, axes, body); });
    return Expr(std::make_shared<const ExprNode>(
        ExprNode{.op = Op::Reduce,
                 .type = body.type(),
                 .args = {body},
                 .reduction = std::make_shared<const Reduction>(Reduction{*r, axes})}));
  }

  // -- statements ----------------------------------------------------------------------------------------------

  Param param() {
    const Token t = take(TokenKind::Word, "read, scan, write, stream, readwrite or workspace");
    static const std::map<std::string, Access> accesses = {
        {"read", Access::Read},     {"scan", Access::Scan},           {"write", Access::Write},
        {"stream", Access::Stream}, {"readwrite", Access::ReadWrite}, {"workspace", Access::Workspace}};
    const Access access = known(accesses, t, "read, scan, write, stream, readwrite or workspace");
    return {declare_buffer(Space::Global), access};
  }

  // NAME: TYPE[EXTENT]
  struct Declared {
    std::string name;
    DType dtype;
    Expr extent;
  };
  Declared declaration() {
    std::string name = word("a buffer's name");
    expect(":");
    const DType t = dtype();
    expect("[");
    Expr extent = index();
    expect("]");
    return {std::move(name), t, std::move(extent)};
  }
  Buffer declare_buffer(Space space) {
    const Declared d = declaration();
    return buffers_[d.name] = make_buffer(d.name, d.dtype, space, d.extent);
  }

  Stmt braces() {
    expect("{");
    std::vector<Stmt> inner;
    while (!is("}")) {
      if (peek().kind == TokenKind::End) fail("'}'");
      inner.push_back(statement());
    }
    expect("}");
    return inner.size() == 1 ? inner[0] : stmt(Block{std::move(inner)});
  }

  Stmt statement() {
    const Deeper deeper(*this);
    const Token t = take(TokenKind::Word, "a statement");
    if (t.text == "block" && is("{")) {
      const Stmt inner = braces();
      return as<Block>(inner) ? inner : stmt(Block{{inner}});
    }
    if (const auto kind = loop_kind(t.text)) return loop(*kind);
    if (t.text == "while") {
      const Expr condition = typed(DType::Bool);
      return stmt(While{condition, braces()});
    }
    if (t.text == "if") return conditional();
    if (t.text == "let") return let();
    if (t.text == "alloc") return alloc();
    if (t.text == "assert") {
      const Expr condition = typed(DType::Bool);
      expect(",");
      return stmt(
          Assert{condition, static_cast<std::int32_t>(std::clamp<std::int64_t>(integer(), 0, 1 << 30))});
    }
    if (t.text == "barrier") return stmt(Barrier{});
    if (t.text == "prefetch") return prefetch();
    if (t.text == "copy") return copy();
    if (t.text == "wait") {
      const Token token = take(TokenKind::Word, "a token");
      return stmt(Wait{known(tokens_of_copies_, token, "a copy's token")});
    }
    if (t.text == "tile") return tile_alloc();
    if (t.text == "fill") {
      const Tile to = tile();
      expect("=");
      return stmt(TileFill{to, expression()});
    }
    if (t.text == "load") return tile_load();
    if (t.text == "mma") {
      const Tile c = tile();
      expect("+=");
      const Tile a = tile();
      expect("*");
      return stmt(TileMma{c, a, tile()});
    }
    if (t.text == "map") return tile_map();
    if (t.text == "store") return tile_store();
    return write(t);
  }

  Stmt loop(LoopKind kind) {
    const std::string variable = word("a loop variable");
    expect("<");
    const Expr extent = index();
    const Var v = variables_[variable] = loop_var(variable, extent);
    return stmt(For{v, extent, kind, braces()});
  }
  Stmt conditional() {
    const Expr condition = typed(DType::Bool);
    const Stmt then = braces();
    return stmt(If{condition, then, accept("else") ? braces() : nullptr});
  }
  Stmt let() {
    const std::string variable = word("a variable");
    expect(":");
    const DType t = dtype();
    expect("=");
    const Expr value = typed(t);
    const Range r = t == DType::I64 ? range(value) : Range{};
    const Var v =
        std::make_shared<const VarNode>(VarNode{.name = variable, .dtype = t, .min = r.min, .max = r.max});
    variables_[variable] = v;
    return stmt(Let{v, value});
  }
  Stmt alloc() {
    const Declared d = declaration();
    expect("in");
    const Token t = take(TokenKind::Word, "a memory space");
    static const std::map<std::string, Space> spaces = {
        {"register", Space::Register}, {"shared", Space::Shared}, {"global", Space::Global}};
    const Buffer b = make_buffer(d.name, d.dtype, known(spaces, t, "a memory space"), d.extent);
    buffers_[d.name] = b;
    return stmt(Alloc{b});
  }
  Stmt write(const Token& t) {
    const Buffer b = known(buffers_, t, "a statement");
    expect("[");
    const Expr at = index();
    expect("]");
    std::optional<Reducer> r;
    if (peek().kind == TokenKind::Word) {
      const Token which = tokens_[next_++];
      r = reducer(which.text);
      if (!r) fail(which, "a reducer", "'" + which.text + "'");
    }
    expect("=");
    const Expr value = expression();
    Expr predicate;
    if (accept("when")) predicate = typed(DType::Bool);
    if (r) return stmt(Accumulate{*r, b, at, value, predicate});
    return stmt(Store{b, at, value, predicate});
  }
  Stmt prefetch() {
    const Token t = take(TokenKind::Word, "a buffer");
    const Buffer b = known(buffers_, t, "a buffer");
    expect("[");
    const Expr at = index();
    expect("]");
    return stmt(Prefetch{b, at, accept("near")});
  }
  Stmt copy() {
    const std::string token = word("a token");
    expect(":");
    CopyAsync c;
    const auto place = [&](Buffer& b, Expr& base, Expr& stride) {
      b = buffer();
      expect("[");
      base = index();
      expect(";");
      stride = index();
      expect("]");
    };
    place(c.dst, c.dst_base, c.dst_stride);
    expect("=");
    place(c.src, c.src_base, c.src_stride);
    expect(",");
    c.rows = index();
    expect(",");
    c.cols = index();
    c.token = tokens_of_copies_.try_emplace(token, make_var(token)).first->second;
    return stmt(std::move(c));
  }

  Stmt tile_alloc() {
    const std::string tile_name = word("a tile's name");
    expect(":");
    const DType t = dtype();
    expect("[");
    const std::int64_t rows = integer();
    expect(",");
    const std::int64_t cols = integer();
    expect("]");
    return stmt(
        TileAlloc{tiles_[tile_name] = std::make_shared<const TileNode>(TileNode{tile_name, t, rows, cols})});
  }
  Stmt tile_load() {
    TileLoad l;
    l.tile = tile();
    expect("=");
    l.buffer = buffer();
    expect("[");
    l.base = index();
    expect(";");
    l.row_stride = index();
    expect(",");
    l.col_stride = index();
    expect(";");
    l.valid_rows = index();
    expect(",");
    l.valid_cols = index();
    expect("]");
    if (accept("by")) l.group = integer();
    return stmt(std::move(l));
  }
  Var element(const Tile& t) {
    expect("as");
    const std::string x = word("an element's name");
    return variables_[x] = make_var(x, t->dtype);
  }
  Var coordinate(std::int64_t extent) {
    const std::string v = word("a coordinate");
    return variables_[v] = loop_var(v, extent);
  }
  Stmt tile_map() {
    TileMap m;
    m.tile = tile();
    expect("[");
    m.i = coordinate(m.tile->rows);
    expect(",");
    m.j = coordinate(m.tile->cols);
    expect("]");
    m.x = element(m.tile);
    expect("=");
    m.value = expression();
    return stmt(std::move(m));
  }
  Stmt tile_store() {
    TileStore s;
    s.tile = tile();
    expect("[");
    s.i = coordinate(s.tile->rows);
    expect("<");
    s.valid_rows = index();
    expect(",");
    s.j = coordinate(s.tile->cols);
    expect("<");
    s.valid_cols = index();
    expect("]");
    s.x = element(s.tile);
    s.body = braces();
    return stmt(std::move(s));
  }
};

}  // namespace

Program parse(std::string_view text) { return Parser(text).program(); }

}  // namespace deepseek::loops
