#include "loops/lexer.h"

#include <array>
#include <cctype>

#include "deepseek/error.h"

namespace deepseek::loops {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> run() {
    std::vector<Token> tokens;
    while (true) {
      while (std::isspace(static_cast<unsigned char>(at(0))) != 0) advance(1);
      tokens.push_back(next());
      if (tokens.back().kind == TokenKind::End) return tokens;
    }
  }

 private:
  std::string_view text_;
  std::size_t position_ = 0, line_ = 1, column_ = 1;

  char at(std::size_t ahead) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }
  void advance(std::size_t n) {
    for (; n > 0 && position_ < text_.size(); --n, ++position_) {
      column_ = text_[position_] == '\n' ? 1 : column_ + 1;
      line_ += text_[position_] == '\n' ? 1 : 0;
    }
  }

  Token next() {
    Token t{TokenKind::End, "", line_, column_};
    const char c = at(0);
    if (position_ >= text_.size()) return t;
    if (is_digit(c)) {
      t.kind = TokenKind::Number;
      t.text = take(number_length());
    } else if (is_word(c)) {
      t.kind = TokenKind::Word;
      t.text = take(word_length(0));
    } else if (c == '"') {
      t.kind = TokenKind::String;
      t.text = string();
    } else if (c == '%' && is_digit(at(1))) {
      advance(1);
      t.kind = TokenKind::Shared;
      t.text = take(word_length(0));
    } else {
      t.kind = TokenKind::Sign;
      t.text = take(sign_length());
    }
    return t;
  }

  std::string take(std::size_t n) {
    std::string s(text_.substr(position_, n));
    advance(n);
    return s;
  }
  std::size_t word_length(std::size_t from) const {
    std::size_t n = from;
    while (is_word(at(n))) ++n;
    return n - from;
  }
  // 12, 1.5, 1e-7, 1.5f, 3:int32.
  std::size_t number_length() const {
    std::size_t n = 0;
    while (is_digit(at(n))) ++n;
    if (at(n) == '.') {
      ++n;
      while (is_digit(at(n))) ++n;
    }
    if (at(n) == 'e') {
      ++n;
      if (at(n) == '-' || at(n) == '+') ++n;
      while (is_digit(at(n))) ++n;
    }
    if (at(n) == 'f') return n + 1;
    return at(n) == ':' && is_word(at(n + 1)) ? n + 1 + word_length(n + 1) : n;
  }
  std::string string() {
    const std::size_t line = line_, column = column_;
    advance(1);
    std::string s;
    while (position_ < text_.size() && at(0) != '"') {
      if (at(0) == '\\') {
        advance(1);
        s += at(0) == 'n' ? '\n' : at(0);
      } else {
        s += at(0);
      }
      advance(1);
    }
    if (position_ >= text_.size())
      throw Error(Code::InvalidArgument, "parse", std::to_string(line) + ":" + std::to_string(column),
                  "a closing quote", "the end");
    advance(1);
    return s;
  }
  std::size_t sign_length() const {
    constexpr std::array<std::string_view, 7> pairs = {"==", "!=", "<=", "<<", ">>", "//", "+="};
    for (const std::string_view p : pairs)
      if (at(0) == p[0] && at(1) == p[1]) return 2;
    return 1;
  }
};

}  // namespace

std::vector<Token> tokenize(std::string_view text) { return Lexer(text).run(); }

}  // namespace deepseek::loops
