// From a graph to an executable.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepseek/executable.h"
#include "deepseek/graph.h"

namespace deepseek {

struct CompileOptions {
  // "auto", "cpu", "gpu", "npu", or "interpreter": the reference.
  std::string target = "auto";
  // A target that is lacking: false: the best that there is, said in CompileReport::warnings; true:
  // Error{Unsupported}.
  bool strict = false;
  // Caps the instruction set ("avx2", "avx512", ...); empty: DEEPSEEK_CPU_ISA, else what the machine has. One that this
  // machine lacks ("neon") gives an executable to be saved: running it here is Error{Unsupported}.
  std::string isa;
  // 0: default_threads().
  int threads = 0;
  // "fp32": results as precise as fp32 ops give them. "bf16": fp32 contractions round their operands to bf16 where the
  // target multiplies those faster, and sum in fp32; what they multiply is stored so, for all who read it. "int8": those
  // with weights known before the run quantise them by column, and what comes by row, and sum in integers; the others
  // run as with "bf16". explain() says which do.
  // "int8_weights": matmuls alone keep weights by column in int8, widen them where they multiply, and sum in fp32: for
  // few rows, where reading weights takes the time. "int4_weights": the same in int4, with a scale (bfloat16) per 32
  // neighbours of a column.
  // What is not to be had is said in CompileReport::warnings and runs in fp32. "auto": the fastest of these whose
  // results on `samples` stay within `tolerance` of fp32's; explain() gives the figures.
  std::string precision = "fp32";
  // What kernels hand fp32 values to each other in: "fp32", "bf16" or "fp16" (largest finite value 65504). Inputs, results,
  // sums and statistics (sums along axes) keep their dtype.
  std::string storage = "fp32";
  // Inputs as runs will have them. "int8" then quantises what comes by the range that it has in them, one scale for the
  // whole tensor, which is faster than looking for one per row.
  std::vector<NamedTensors> samples;
  // Of "auto": the largest difference from fp32's results, relative to the largest element of each.
  double tolerance = 0.01;
  // How ways to compute the same thing are chosen. "off": by their prices, from a model of the machine. "fast": where
  // prices are close the ways are measured, once on a machine, within a second or so. "full": as long as it takes.
  std::string tune = "fast";
  // How far an fp32 contraction's result may be from the exact one, relative to the largest: ways that round more, such
  // as Winograd's 4x4, are not taken.
  double rtol = 1e-5;
  // Keeps what derives from parameters between runs (folded, packed weights).
  bool freeze = true;
  // An output and an input each, by number: the output is the input's new value. A run stores it in the memory that
  // the caller gives for that input, an argument of its own, and the executable has no such output. Whatever else
  // is computed or returned sees what the input was.
  std::vector<std::pair<int, int>> updates;
  // Names of passes, rewrite rules and ways to leave out: every result must stay right without any one of
  // them.
  std::vector<std::string> disable;
};

// What compiling did that its caller may want to tell.
struct CompileReport {
  std::string target;                 // what was used
  std::vector<std::string> warnings;  // "target gpu is not there: cpu is used instead"
};

// Throws Error that names the op and its source.
Executable compile(const Graph& graph, const CompileOptions& options = {}, CompileReport* report = nullptr);

}  // namespace deepseek
