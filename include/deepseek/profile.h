// Where the time of a run goes, step by step, beside what this machine could do.
//
//   const Profile p = profile(executable, inputs);
//   std::cout << p.str();
//   p.write_chrome_trace("trace.json");   // for ui.perfetto.dev or chrome://tracing
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "deepseek/executable.h"

namespace deepseek {

// What a machine does at best with so many threads: measured by us.
struct Roof {
  // Memory that holds `capacity` bytes, and how fast it is streamed through.
  struct Level {
    std::string name;       // "L1", "L2", "L3", "memory"
    std::int64_t capacity;  // of all threads together
    double read, write;     // bytes per second, all threads together
  };
  int threads = 1;
  int vector_bits = 0;          // of the fused multiply-adds measured
  double flops_per_s = 0;       // fp32, two for each multiply-add
  double bf16_flops_per_s = 0;  // of pairs of bf16 in vectors; 0 where the machine has no such instruction
  double int8_flops_per_s = 0;  // of quads of uint8 by int8 likewise
  std::vector<Level> levels;    // smallest first, memory last

  // The level that still holds what was touched this many bytes ago.
  const Level& level(double distance) const;
};

// Measured at the first call with these arguments, in a fraction of a second, and kept. `vector_bits`: the widest
// vectors to count with; 0: what the machine has.
const Roof& measured_roof(int threads, int vector_bits = 0);

// One step. Figures are of one run.
struct StepProfile {
  std::string name;    // of the kernel
  std::string ops;     // that are fused in it
  std::string source;  // the user's line or module path
  std::string way;     // "gemm", "map", ...
  std::int64_t calls = 0;
  double seconds = 0;
  double best_seconds = 0;  // the least of any run
  double share = 0;         // of the run
  double flops = 0;         // done: Winograd needs fewer than the direct algorithm
  double bytes = 0;         // every buffer once, read and written
  // The least time that this machine needs, as the roof says: for the FLOPs, or for the bytes out of the level where
  // each was left. roof: what decides: "compute", "memory" or "cache"; empty where nothing is known of the work.
  double roof_seconds = 0;
  std::string roof;

  double flops_per_s() const { return seconds > 0 ? flops / seconds : 0; }
  double bytes_per_s() const { return seconds > 0 ? bytes / seconds : 0; }
  double roof_share() const { return seconds > 0 ? roof_seconds / seconds : 0; }
};

// A stretch of time in a trace: a step (worker -1), or what one worker did of it.
struct TraceSpan {
  int step = 0;  // in Profile::steps
  int worker = -1;
  double begin = 0, end = 0;  // seconds from the start of the run
};

struct Profile {
  std::vector<StepProfile> steps;  // longest first
  double seconds = 0;              // of a run: the steps and what is outside them
  double outside = 0;              // inputs, outputs, binding, and looking at the clock
  int runs = 0;                    // that the figures are a mean of
  Roof roof;
  std::vector<TraceSpan> trace;  // of one more run

  // A table with the longest steps, the rest as one row, and totals. `merge`: steps that do equal work become one row
  // with the source of the first.
  std::string str(int rows = 30, bool merge = false) const;
  // Throws Error{ResourceExhausted} when it cannot be written.
  void write_chrome_trace(const std::string& path) const;
};

struct ProfileOptions {
  // How many runs to time; 0: as many as fit into `seconds`, at least 6. The slower half of them is left out, so that an
  // interruption from outside does not count.
  int runs = 0;
  double seconds = 1;
};

// Profiles of what ran one after another within `seconds`, as one; what is left of those is outside the steps.
Profile combined(std::vector<Profile> parts, double seconds);

// Runs an executable on these inputs (parameters among them are set once) in a context of its own.
Profile profile(const Executable& executable, std::span<const Tensor> inputs,
                const ProfileOptions& options = {});

}  // namespace deepseek
