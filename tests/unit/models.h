// Small models for tests of the whole compiler.
#pragma once

#include "deepseek/executable.h"
#include "deepseek/graph.h"

namespace deepseek::testing {

struct Model {
  Graph graph;
  NamedTensors inputs;  // random, of sizes that the model takes
};

// Convolutions (padded by an op of its own, grouped, depthwise, strided) with batch norm, a residual, pooling and a
// classifier.
Model small_cnn();
// Layer norm, grouped attention at a dynamic length, a gated feed-forward net.
Model transformer_block();
// An LSTM over a sequence x [T, B, I] of dynamic length, one step for each turn of a while loop. Gives the hidden states
// y [T, B, H] and the last h and c. `steps`: the length of the inputs' sequence.
Model lstm(std::int64_t steps);

}  // namespace deepseek::testing
