// The text form of a graph, read. See text.h for the grammar.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>

#include "deepseek/graph.h"
#include "graph/text.h"
#include "ops/op.h"

namespace deepseek {
namespace {

constexpr int kMaxNesting = 32;                               // of graphs in attributes
constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;  // of one tensor

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Graph parse() {
    Graph g = graph();
    space();
    if (at_ != text_.size()) fail("the end of the text");
    return g;
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  int nesting_ = 0;

  // -- characters and words
  [[noreturn]] void fail(const std::string& expected) { fail(expected, at_); }
  [[noreturn]] void fail(const std::string& expected, std::size_t where) {
    std::size_t end = where;
    while (end < text_.size() && end < where + 20 && text_[end] != '\n') ++end;
    throw Error(
        Code::InvalidArgument, "graph text", place(where), expected,
        end == where ? "the end of the line" : "'" + std::string(text_.substr(where, end - where)) + "'");
  }
  std::string place(std::size_t where) const {
    int line = 1, column = 1;
    for (const char c : text_.substr(0, where)) {
      ++column;
      if (c == '\n') ++line, column = 1;
    }
    return "line " + std::to_string(line) + ", column " + std::to_string(column);
  }

  void space() {
    while (at_ < text_.size()) {
      if (std::strchr(" \t\r\n", text_[at_]) && text_[at_] != '\0')
        ++at_;
      else if (text_.substr(at_, 2) == "//")
        at_ = std::min(text_.find('\n', at_), text_.size());
      else
        return;
    }
  }
  char peek() {
    space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(std::string_view token) {
    space();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) fail("'" + std::string(token) + "'");
  }
  std::string_view word() {
    space();
    const std::size_t start = at_;
    while (at_ < text_.size() && text::is_name_char(text_[at_]) && text_.substr(at_, 2) != "//") ++at_;
    return text_.substr(start, at_ - start);
  }
  // Takes the word only when it is this one.
  bool take_word(std::string_view wanted) {
    space();
    const std::size_t start = at_;
    if (word() == wanted) return true;
    at_ = start;
    return false;
  }

  std::string quoted() {
    expect("\"");
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (c == '\n') fail("'\"' before the end of the line", at_ - 1);
      if (c == '\\') {
        c = at_ < text_.size() ? text_[at_++] : '\0';
        if (c == 'x')
          c = byte();
        else if (c != '"' && c != '\\')
          fail("\\\", \\\\ or \\x", at_ - 1);
      }
      out += c;
    }
    expect("\"");
    return out;
  }
  char byte() {
    unsigned value = 0;
    const char* start = text_.data() + at_;
    const char* end = text_.data() + std::min(at_ + 2, text_.size());
    const auto [p, error] = std::from_chars(start, end, value, 16);
    if (error != std::errc() || p != start + 2) fail("two hexadecimal digits");
    at_ += 2;
    return static_cast<char>(value);
  }
  std::string name() {
    const std::string s = peek() == '"' ? quoted() : std::string(word());
    if (s.empty()) fail("a name");
    return s;
  }

  // -- numbers
  template <class T>
  T number(std::string_view what) {
    const std::size_t start = (space(), at_);
    const std::string_view w = word();
    T value{};
    const auto [p, error] = std::from_chars(w.data(), w.data() + w.size(), value);
    if (w.empty() || error != std::errc() || p != w.data() + w.size()) fail(std::string(what), start);
    return value;
  }
  std::int64_t integer() { return number<std::int64_t>("a 64-bit integer"); }
  double real() {
    const std::size_t start = (space(), at_);
    std::string w(word());
    // An exponent's sign is no part of a word.
    if (at_ < text_.size() && text_[at_] == '+' && !w.empty() && (w.back() == 'e' || w.back() == 'E')) {
      ++at_;
      w += word();
    }
    double value = 0;
    const auto [p, error] = std::from_chars(w.data(), w.data() + w.size(), value);
    if (w.empty() || error != std::errc() || p != w.data() + w.size()) fail("a number", start);
    return value;
  }
  bool boolean() {
    if (take_word("true")) return true;
    if (!take_word("false")) fail("true or false");
    return false;
  }

  // -- types
  DType dtype() {
    const std::size_t start = (space(), at_);
    const auto t = parse_dtype(word());
    if (!t) fail("a dtype", start);
    return *t;
  }
  Dim dim() {
    const std::size_t start = (space(), at_);
    int depth = 0;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '(') ++depth;
      if (c == ')') --depth;
      if (depth == 0 && (c == ',' || c == ']')) break;
      if (c == '\n' || depth < 0) break;
    }
    try {
      return Dim::parse(text_.substr(start, at_ - start));
    } catch (const Error& e) {
      throw Error(e.code(), "graph text", place(start), e.expected(), e.got());
    }
  }
  Shape shape() {
    Shape s;
    sequence("[", "]", [&] { s.push_back(dim()); });
    return s;
  }
  Type type() {
    const DType t = dtype();
    return {t, shape()};
  }
  template <class F>
  void sequence(std::string_view open, std::string_view close, F&& one) {
    expect(open);
    if (take(close)) return;
    do one();
    while (take(","));
    expect(close);
  }

  // -- tensors
  Tensor tensor() {
    const std::size_t start = (space(), at_);
    const Type t = type();
    if (!is_static(t.shape)) fail("a shape of numbers", start);
    Dims dims = static_dims(t.shape);
    for (const std::int64_t d : dims)
      if (d < 0) fail("dims of at least 0", start);
    if (t.dtype == DType::String) fail("elements of a fixed size", start);
    if (numel(dims) > kMaxElements) fail("at most 2^28 elements", start);
    Tensor result = Tensor::zeros(t.dtype, std::move(dims));
    if (take_word("hex")) {
      hex(result);
    } else if (take_word("splat")) {
      const std::size_t value = (space(), at_);
      for (std::int64_t i = 0; i < result.numel(); ++i) {
        at_ = value;
        element(result, i);
      }
      if (result.numel() == 0) fail("elements to fill", start);
    } else {
      std::int64_t i = 0;
      sequence("{", "}", [&] {
        if (i == result.numel()) fail("'}' after " + std::to_string(i) + " elements");
        element(result, i++);
      });
      if (i != result.numel()) fail(std::to_string(result.numel()) + " elements", start);
    }
    return result;
  }
  void element(Tensor& t, std::int64_t i) {
    if (t.dtype() == DType::I64) {
      t.as<std::int64_t>()[static_cast<std::size_t>(i)] = integer();
    } else if (t.dtype() == DType::U64) {
      t.as<std::uint64_t>()[static_cast<std::size_t>(i)] = number<std::uint64_t>("an unsigned integer");
    } else if (is_complex(t.dtype())) {
      fail("hex");
    } else {
      const std::size_t start = (space(), at_);
      const double x = is_float(t.dtype()) ? real() : static_cast<double>(integer());
      t.set(i, x);
      if (!is_float(t.dtype()) && t.at(i) != x) fail("a value that the dtype has", start);
    }
  }
  void hex(Tensor& t) {
    expect("\"");
    for (char& c : t.as<char>()) c = byte();
    expect("\"");
  }

  // -- statements
  struct Names {
    std::map<std::string, Node*, std::less<>> nodes;
  };

  Value value(const Names& names) {
    if (take_word("_")) return {};
    expect("%");
    const std::size_t start = at_;
    const std::string n = name();
    const auto it = names.nodes.find(n);
    if (it == names.nodes.end()) fail("a value defined above", start);
    std::int64_t index = 0;
    if (at_ < text_.size() && text_[at_] == '#') {
      ++at_;
      index = integer();
    }
    if (index < 0 || index >= static_cast<std::int64_t>(it->second->outputs.size()))
      fail("one of its results", start);
    return it->second->out(static_cast<int>(index));
  }

  Attr attribute(const AttrSpec& spec) {
    switch (spec.kind) {
      case AttrKind::Bool:
        return boolean();
      case AttrKind::Int:
        return integer();
      case AttrKind::Float:
        return real();
      case AttrKind::String:
        return quoted();
      case AttrKind::Ints: {
        std::vector<std::int64_t> v;
        sequence("[", "]", [&] { v.push_back(integer()); });
        return v;
      }
      case AttrKind::Floats: {
        std::vector<double> v;
        sequence("[", "]", [&] { v.push_back(real()); });
        return v;
      }
      case AttrKind::DType:
        return dtype();
      case AttrKind::Shape:
        return shape();
      case AttrKind::Tensor:
        return take_word("none") ? Tensor() : tensor();
      case AttrKind::Graph:
        if (take_word("none")) return std::shared_ptr<const Graph>();
        return std::make_shared<const Graph>(graph());
    }
    fail("an attribute");
  }

  void operation(Graph& g, const Names& names, const std::string& result, std::size_t start) {
    const std::string op(word());
    const OpDef* def = op_table().find(op);
    if (!def) throw Error(Code::NotFound, op, place(start), "an op of the table", "'" + op + "'");
    std::vector<Value> inputs;
    Attrs attrs;
    sequence("(", ")", [&] {
      if (peek() == '%' || (peek() == '_' && text_.substr(at_, 2).find_first_of(",)", 1) == 1)) {
        inputs.push_back(value(names));
        return;
      }
      const std::size_t where = at_;
      const std::string key(word());
      const AttrSpec* spec = nullptr;
      for (const AttrSpec& s : def->attrs)
        if (s.name == key) spec = &s;
      if (!spec) fail("an attribute of " + op, where);
      expect("=");
      if (!attrs.emplace(key, attribute(*spec)).second) fail("an attribute that is not given yet", where);
    });
    std::vector<Type> types;
    const std::size_t types_at = (space(), at_);
    if (take(":")) {
      do types.push_back(type());
      while (take(","));
    }
    source(g);
    try {
      g.ops(op, std::move(inputs), std::move(attrs), result);
    } catch (const Error& e) {
      throw e.with_context(op, place(start));
    }
    Node& node = *g.nodes().back();
    if (types.empty() || types == node.outputs) return;
    // A data-dependent result names its own symbols.
    const bool dependent = def->programmed() && def->programmed()->extents;
    const auto alike = [](const Type& a, const Type& b) {
      return a.dtype == b.dtype && a.shape.size() == b.shape.size();
    };
    if (!dependent || !std::ranges::equal(types, node.outputs, alike)) {
      std::string inferred;
      for (const Type& t : node.outputs) inferred += (inferred.empty() ? "" : ", ") + str(t);
      fail("the type that the op has: " + inferred, types_at);
    }
    node.outputs = types;
  }

  void source(Graph& g) { g.set_source(take_word("at") ? quoted() : ""); }

  void definition(Graph& g, Names& names) {
    const std::size_t start = at_;
    const std::string result = name();
    if (names.nodes.contains(result)) fail("a name that is not taken", start);
    expect("=");
    const std::size_t kind = (space(), at_);
    if (take_word("placeholder")) {
      Role role = Role::Argument;
      if (take_word("parameter"))
        role = Role::Parameter;
      else if (take_word("fixed"))
        role = Role::Constant;
      Type t = type();
      source(g);
      g.placeholder(result, t.dtype, std::move(t.shape), role);
    } else if (take_word("constant")) {
      Tensor t = tensor();
      source(g);
      g.constant(std::move(t), result);
    } else {
      operation(g, names, result, kind);
    }
    names.nodes[result] = g.nodes().back().get();
  }

  Graph graph() {
    if (++nesting_ > kMaxNesting) fail("graphs nested less deeply");
    Graph g;
    Names names;
    expect("graph");
    expect("{");
    while (!take("}")) {
      if (take("%")) {
        definition(g, names);
      } else if (take_word("equal")) {
        EqualDims dims;
        dims.a = dim();
        expect(",");
        dims.b = dim();
        if (take(",")) {
          dims.op = name();
          if (take_word("at")) dims.source = quoted();
        }
        g.assume_equal(std::move(dims));
      } else if (take_word("output")) {
        const std::size_t start = (space(), at_);
        std::string result = name();
        expect("=");
        const Value v = value(names);
        if (!v) fail("a value", start);
        try {
          g.output(std::move(result), v);
        } catch (const Error& e) {
          throw e.with_context("output", place(start));
        }
      } else {
        fail("a statement: %name = ..., output, equal, or '}'");
      }
    }
    g.set_source("");
    --nesting_;
    return g;
  }
};

}  // namespace

Graph Graph::parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace deepseek
