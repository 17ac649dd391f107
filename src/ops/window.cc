#include <algorithm>

#include "ops/conv.h"

namespace deepseek {

std::string default_layout(std::string_view letters, int rank) {
  std::string layout(letters);
  for (int i = 0; i + 2 < rank; ++i) layout += static_cast<char>('0' + i);
  return layout;
}

Layout parse_layout(const Node& n, const std::string& layout, std::string_view letters, int rank) {
  const auto fail = [&] {
    bad_input(n,
              "a layout such as \"" + default_layout(letters, rank) + "\" for rank " + std::to_string(rank),
              "\"" + layout + "\"");
  };
  if (rank < 2 || rank > 11 || static_cast<int>(layout.size()) != rank) fail();
  const auto find = [&](char c) {
    const auto at = layout.find(c);
    if (at == std::string::npos) fail();
    return static_cast<int>(at);
  };
  Layout result{find(letters[0]), find(letters[1]), {}};
  for (int i = 0; i + 2 < rank; ++i) result.spatial.push_back(find(static_cast<char>('0' + i)));
  return result;
}

std::string renamed(std::string layout, std::string_view from, std::string_view to) {
  for (char& c : layout) {
    const auto at = from.find(c);
    if (at != std::string_view::npos) c = to[at];
  }
  return layout;
}

Dim dilated(const Dim& d, std::int64_t factor) {
  if (factor == 1) return d;
  if (d.is_static() && d.value() == 0) return d;
  return (d - 1) * Dim(factor) + 1;
}

Dim window_positions(const Window& w) {
  const Dim room = dilated(w.input, w.input_dilation) + Dim(w.low + w.high) - dilated(w.taps, w.dilation);
  if (room.is_static() && room.value() < 0) return Dim(0);
  return floordiv(room, Dim(w.stride)) + 1;
}

WindowTap window_tap(Elements& e, const Window& w, const Expr& p, const Expr& k) {
  Expr at = p * Expr(w.stride) + k * Expr(w.dilation) - Expr(w.low);
  Expr valid = loops::constant(DType::Bool, std::int64_t{1});
  if (w.input_dilation > 1) {
    valid = loops::mod(at, Expr(w.input_dilation)) == Expr(0);
    at = loops::floordiv(at, Expr(w.input_dilation));
  }
  if (w.low > 0) valid = valid && Expr(0) <= at;
  if (w.high > 0) valid = valid && at < e.dim(w.input);
  return {at, valid};
}

void fill_spatial(Node& n, const char* key, std::size_t count, std::int64_t value) {
  auto& list = std::get<std::vector<std::int64_t>>(n.attrs.at(key));
  if (list.empty()) list.assign(count, value);
  if (list.size() != count)
    bad_input(n, std::to_string(count) + " numbers in '" + std::string(key) + "'", str(list));
}

namespace {
// Far from overflow when a few are multiplied or added.
constexpr std::int64_t kMaxNumber = std::int64_t{1} << 40;

void check_range(const Node& n, std::string_view key, std::int64_t least) {
  const auto& values = ints(n, key);
  if (std::any_of(values.begin(), values.end(), [&](std::int64_t v) { return v < least || v > kMaxNumber; }))
    bad_input(n, "'" + std::string(key) + "' from " + std::to_string(least) + " to 2^40", str(values));
}
}  // namespace

std::vector<Window> conv_windows(const Node& n) {
  const Layout in = parse_layout(n, text(n, "input_layout"), "NC", n.in(0).rank());
  const Layout kernel = parse_layout(n, text(n, "kernel_layout"), "OI", n.in(1).rank());
  const std::size_t count = in.spatial.size();
  const auto &strides = ints(n, "strides"), &low = ints(n, "pad_low"), &high = ints(n, "pad_high"),
             &inner = ints(n, "input_dilation"), &dilation = ints(n, "kernel_dilation");
  for (const char* key : {"strides", "input_dilation", "kernel_dilation"}) check_range(n, key, 1);
  for (const char* key : {"pad_low", "pad_high"}) check_range(n, key, -kMaxNumber);
  std::vector<Window> windows;
  for (std::size_t i = 0; i < count; ++i)
    windows.push_back({n.in(0).dim(in.spatial[i]), n.in(1).dim(kernel.spatial[i]), strides[i], low[i],
                       high[i], inner[i], dilation[i]});
  return windows;
}

std::vector<Window> pool_windows(const Node& n, const Shape& spatial) {
  const std::size_t count = spatial.size();
  const auto& taps = ints(n, "window");
  if (taps.size() != count) bad_input(n, "a window of " + std::to_string(count) + " dims", str(taps));
  const auto &strides = ints(n, "strides"), &low = ints(n, "pad_low"), &high = ints(n, "pad_high"),
             &dilation = ints(n, "dilation");
  for (const char* key : {"window", "strides", "dilation"}) check_range(n, key, 1);
  for (const char* key : {"pad_low", "pad_high"}) check_range(n, key, -kMaxNumber);
  if (n.attrs.contains("uncounted_high")) check_range(n, "uncounted_high", -kMaxNumber);
  std::vector<Window> windows;
  for (std::size_t i = 0; i < count; ++i)
    windows.push_back({spatial[i], Dim(taps[i]), strides[i], low[i], high[i], 1, dilation[i]});
  return windows;
}

}  // namespace deepseek
