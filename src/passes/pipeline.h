// The passes between an imported graph and groups. Each is a function from graph to graph.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "passes/rewrite.h"

namespace deepseek {

// What a tensor's elements were seen to lie in.
struct Range {
  double low = 0, high = 0;  // 0 is always within
};

struct PassOptions {
  std::span<const std::string> disabled;  // names of passes and rules to leave out
  bool quantise = false;                  // fp32 contractions with weights, to bytes
  std::span<const Range> ranges = {};     // of what those multiply by weights; empty: found as it comes
  bool bf16 = false;                      // what fp32 contractions multiply, to bf16
  DType stored = DType::F32;              // BF16, F16: in what kernels hand fp32 values to each other
  // Bytes are multiplied in pairs or as int16: faster than fp32, but not where that needs fewer products.
  bool bytes_in_words = false;
  int weight_bits = 0;  // 8, 4: weights of fp32 products, to so many; sums stay in fp32
  bool allows(std::string_view name) const;
};

Graph decompose(const Graph& g, const PassOptions& options);  // composed ops become their definitions
Graph canonicalize(const Graph& g,
                   const PassOptions& options);  // one form for each thing; what lowering relies on
Graph simplify(const Graph& g, const PassOptions& options);        // less work, same results
Graph quantised(const Graph& g, const PassOptions& options);       // bytes stay bytes, and uint8
Graph narrow_weights(const Graph& g, const PassOptions& options);  // what PassOptions::weight_bits says
Graph byte_products(const Graph& g,
                    const PassOptions& options);  // contractions of dequantised bytes sum in integers
Graph requantised(const Graph& g, const PassOptions& options);  // scales after products become one
Graph channels_last(const Graph& g,
                    const PassOptions& options);               // convolutions compute in N, spatial, C order
Graph move_views(const Graph& g, const PassOptions& options);  // reshapes next to memory
Graph merge_common(const Graph& g, const PassOptions& options);    // equal nodes become one
Graph round_operands(const Graph& g, const PassOptions& options);  // what PassOptions::bf16 says
Graph round_stored(const Graph& g, const PassOptions& options);    // what PassOptions::stored says

struct Pass {
  std::string_view name;
  Graph (*run)(const Graph&, const PassOptions&);
  bool required;  // cannot be disabled: lowering relies on it
};
std::span<const Pass> pipeline();
// `until`: the name of the pass to stop before.
Graph run_pipeline(const Graph& g, const PassOptions& options, std::string_view until = {});

// What contractions multiply by weights, of those that PassOptions::quantise is for, in the order of
// PassOptions::ranges. `g` is what has come to the pass "byte_products".
std::vector<Value> quantised_operands(Graph& g);

// Every rule of the rewriting passes, for tests and docs.
std::span<const Rule> canonical_rules();
std::span<const Rule> simplify_rules();
std::span<const Rule> byte_rules();
std::span<const Rule> scale_rules();
std::span<const Rule> layout_rules();
std::span<const Rule> view_rules();

}  // namespace deepseek
