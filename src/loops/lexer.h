// Words, numbers and signs of the text form, with their places.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace deepseek::loops {

enum class TokenKind : unsigned char {
  Word,    // identifier or keyword
  Number,  // without sign; text may end in f or in :type
  String,  // without quotes, escapes resolved
  Shared,  // %7: text is 7
  Sign,    // one or two characters
  End,
};

struct Token {
  TokenKind kind;
  std::string text;
  std::size_t line, column;  // from 1
};

// Throws Error{InvalidArgument} with line and column; the last token is End.
std::vector<Token> tokenize(std::string_view text);

}  // namespace deepseek::loops
