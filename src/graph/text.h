// The text form of a graph: what passes are tested on, what errors and explain() show.
//
//   graph {
//     %x = placeholder float32[N, 4]
//     %w = placeholder parameter float32[4, 2] at "model.py:3"
//     %c = constant float32[2] {1, 2.5}            // or `splat 0`, or `hex "0000803f..."`: the bytes
//     %y = matmul(%x, %w, transpose_b=true) : float32[N, 2] at "model.py:12"
//     %t = topk(%y, _, axis=-1) : float32[N, 3], int64[N, 3]
//     equal N, M, add at "model.py:7"
//     output y = %t#1
//   }
//
// Statements are in topological order, one value name each; result k > 0 of a node is %name#k, `_` is an optional
// input that is absent. Names with other characters than letters, digits and _./- are quoted. Attributes at
// their defaults are left out; types of ops may be left out and are checked where they stand. `placeholder fixed`
// is an input of Role::Constant. // starts a comment.
#pragma once

namespace deepseek::text {

inline bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
         c == '/' || c == '-';
}

}  // namespace deepseek::text
