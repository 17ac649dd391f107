// What the fuzz targets share: they compile and run small graphs on inputs of their own.
#pragma once

#include <cstdint>
#include <string_view>

#include "deepseek/graph.h"

namespace deepseek::fuzz {

// Small numbers that differ from element to element; other bits would make most indices wrong.
Tensor sample(DType dtype, const Dims& dims, unsigned seed);
// What a symbolic dim is bound to, and all those of a shape.
std::int64_t bound(std::string_view symbol, unsigned seed);
DimEnv bind(const Shape& shape, unsigned seed);

// Compiles for the interpreter with all its checks, now and then for the cpu, and runs. Graphs that are large, or that
// decompose into large ones, are left alone.
void compile_and_run(const Graph& g, unsigned seed);

}  // namespace deepseek::fuzz
