// What a run costs beyond its kernels, and that a million runs leave nothing behind.
//
//   bench_overhead [runs]     prints lines "name value unit"; exit status 1 when a gate is missed
//
// Kernels here work on 16 elements, which takes them a few nanoseconds: the whole time counts as overhead.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>

#include "deepseek/compile.h"

namespace {

using namespace deepseek;

constexpr double kMostUs = 5;          // a run beyond its kernels
constexpr long kMostGrowth = 1 << 20;  // bytes, over all runs
constexpr int kBatch = 1000, kSamples = 200;

// `steps` kernels, each of which needs the one before.
Executable chain(int steps, int threads) {
  Graph g;
  Value v = g.placeholder("x", DType::F32, {Dim::symbol("N"), Dim(16)});
  for (int i = 0; i < steps; ++i) v = g.op("softmax", {v});
  g.output("y", v);
  return compile(g, {.threads = threads});
}

std::int64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

// The fastest of many batches, in microseconds a call.
template <class F>
double microseconds(F call) {
  std::int64_t best = std::numeric_limits<std::int64_t>::max();
  for (int s = 0; s < kSamples; ++s) {
    const std::int64_t begin = now_ns();
    for (int i = 0; i < kBatch; ++i) call();
    best = std::min(best, now_ns() - begin);
  }
  return static_cast<double>(best) * 1e-3 / kBatch;
}

long resident_bytes() {
  long pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

bool report(const std::string& name, double value, const char* unit, double most) {
  const bool good = value <= most;
  std::printf("%-44s %10.3f %s%s\n", name.c_str(), value, unit, good ? "" : "   too much");
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  const long runs = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 1'000'000;
  const Tensor x = Tensor::zeros(DType::F32, {1, 16});
  bool good = true;
  for (const int steps : {1, 8}) {
    const Executable e = chain(steps, 2);
    const std::string kind = std::to_string(steps) + (steps == 1 ? " step" : " steps");
    Context context(e);
    Tensor y(DType::F32, {1, 16});
    good &= report("context, memory given, " + kind, microseconds([&] { context.run({&x, 1}, {&y, 1}); }),
                   "us", kMostUs);
    good &=
        report("executable, memory allocated, " + kind, microseconds([&] { e.run({&x, 1}); }), "us", kMostUs);
    good &= report("executable, by name, " + kind, microseconds([&] { e.run({{"x", x}}); }), "us", kMostUs);
  }
  const Executable e = chain(2, 2);
  Context context(e);
  const auto run_all = [&](long count) {
    for (long i = 0; i < count; ++i) {
      Tensor y;
      if (i % 2 == 0)
        context.run({&x, 1}, {&y, 1});
      else
        e.run({&x, 1});
      // Sizes come and go: plans are kept for some of them only.
      if (i % 1000 == 0) e.run(std::vector<Tensor>{Tensor::zeros(DType::F32, {i / 1000 % 300 + 1, 16})});
    }
  };
  run_all(runs / 2);
  const long before = resident_bytes();
  run_all(runs);
  good &= report("growth over " + std::to_string(runs) + " runs",
                 static_cast<double>(resident_bytes() - before) / 1024, "KiB", kMostGrowth / 1024.0);
  return good ? 0 : 1;
}
