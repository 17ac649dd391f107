// The geometry that convolutions and poolings share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ops/entries.h"

namespace deepseek {

// Which axis is which. A layout is a string with one letter per axis: N and C for data, O and I for kernels,
// digits for the spatial dims ("NC01", "N01C", "01IO").
struct Layout {
  int major = 0;             // N or O
  int minor = 0;             // C or I
  std::vector<int> spatial;  // by spatial dim
  int rank() const { return static_cast<int>(spatial.size()) + 2; }
};
// "NC01" for letters "NC" and rank 4.
std::string default_layout(std::string_view letters, int rank);
// Throws Error{InvalidArgument} for the node.
Layout parse_layout(const Node& n, const std::string& layout, std::string_view letters, int rank);
// The layout string with letters exchanged: renamed("NC01", "NC", "CN") is "CN01".
std::string renamed(std::string layout, std::string_view from, std::string_view to);

// A window that slides along one dim: its position p and tap k meet the element at
// p*stride + k*dilation - low of the dim with `input_dilation - 1` zeros between neighbours.
struct Window {
  Dim input, taps;
  std::int64_t stride = 1, low = 0, high = 0, input_dilation = 1, dilation = 1;
};
// How many positions a window has: 0 when it does not fit.
Dim window_positions(const Window& w);
// Size of d elements with factor - 1 holes between neighbours.
Dim dilated(const Dim& d, std::int64_t factor);

// Where position p and tap k look; valid is the constant true where it cannot be outside.
struct WindowTap {
  Expr at, valid;
};
WindowTap window_tap(Elements& e, const Window& w, const Expr& p, const Expr& k);

// Windows of a conv node, by spatial dim.
std::vector<Window> conv_windows(const Node& n);
// Of a pooling node whose pooled tensor has spatial dims `spatial`.
std::vector<Window> pool_windows(const Node& n, const Shape& spatial);
// Makes an empty list attribute `count` times `value`.
void fill_spatial(Node& n, const char* key, std::size_t count, std::int64_t value);

}  // namespace deepseek
