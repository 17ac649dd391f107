// What sees every step of a run while it is profiled; null otherwise.
#pragma once

#include <chrono>
#include <cstdint>

#include "runtime/binding.h"
#include "runtime/context.h"

namespace deepseek {

class Recorder {
 public:
  virtual ~Recorder() = default;
  // After each step, those of branches and loops before the step that ran them. Times: steady clock.
  virtual void step(const Context::State& state, const Step& step, const BoundStep& bound,
                    std::int64_t begin_ns, std::int64_t end_ns) = 0;
  // A worker's piece of the step in progress. Called by several threads at once.
  virtual void span(int worker, std::int64_t begin_ns, std::int64_t end_ns) = 0;
  bool wants_spans = false;
};

inline std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace deepseek
