#include "api/samples.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "ops/graph_builder.h"

namespace deepseek {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr int kRounds = 5;
constexpr double kSecondsPerRound = 0.05;

std::string range_name(std::size_t i, const char* end) { return "operand " + std::to_string(i) + " " + end; }

// The largest difference, relative to the largest element.
double difference(const Tensor& y, const Tensor& reference) {
  if (y.dims() != reference.dims()) return kNever;
  if (y.dtype() == DType::String) return 0;
  if (is_complex(y.dtype()))
    return std::ranges::equal(y.as<std::byte>(), reference.as<std::byte>()) ? 0 : kNever;
  double most = 0, largest = 0;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const double a = y.at(i), b = reference.at(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) {
      if (std::isfinite(b)) largest = std::max(largest, std::abs(b));
      continue;
    }
    if (!std::isfinite(a) || !std::isfinite(b)) return kNever;
    most = std::max(most, std::abs(a - b));
    largest = std::max(largest, std::abs(b));
  }
  return most == 0 ? 0 : most / largest;
}

double seconds_of(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The least seconds of each candidate's runs; they take turns.
std::vector<double> times_of(std::span<const Candidate> candidates, const NamedTensors& sample) {
  std::vector<double> best(candidates.size(), kNever);
  for (int round = 0; round < kRounds; ++round)
    for (std::size_t i = 0; i < candidates.size(); ++i)
      for (double spent = 0; spent < kSecondsPerRound;) {
        const double once = seconds_of([&] { candidates[i].executable.run(sample); });
        best[i] = std::min(best[i], once);
        spent += once;
      }
  return best;
}

std::string formatted(const char* format, double number) {
  char text[40];
  std::snprintf(text, sizeof text, format, number);
  return text;
}

}  // namespace

std::vector<Range> measured_ranges(const Graph& graph, const PassOptions& passes, const Compile& in_fp32,
                                   Samples samples) {
  Graph probe = run_pipeline(graph, passes, "byte_products");
  const std::vector<Value> operands = quantised_operands(probe);
  GraphBuilder g(probe);
  for (std::size_t i = 0; i < operands.size(); ++i) {
    std::vector<std::int64_t> axes(static_cast<std::size_t>(operands[i].rank()));
    std::iota(axes.begin(), axes.end(), 0);
    probe.output(range_name(i, "low"), g.reduce("min", operands[i], axes, false));
    probe.output(range_name(i, "high"), g.max(operands[i], axes, false));
  }
  const Executable executable = in_fp32(probe);
  std::vector<Range> ranges(operands.size());
  for (const NamedTensors& sample : samples) {
    const NamedTensors results = executable.run(sample);
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      const double low = results.at(range_name(i, "low")).at(0),
                   high = results.at(range_name(i, "high")).at(0);
      if (!std::isfinite(low) || !std::isfinite(high))
        throw Error(Code::InvalidArgument, std::string(operands[i].node->op_name()), operands[i].node->source,
                    "finite numbers from the samples", formatted("%g", std::isfinite(low) ? high : low));
      ranges[i] = {std::min(ranges[i].low, low), std::max(ranges[i].high, high)};
    }
  }
  return ranges;
}

Executable fastest_within(std::span<const Candidate> candidates, Samples samples, double tolerance) {
  std::vector<double> errors(candidates.size(), 0);
  for (const NamedTensors& sample : samples) {
    const NamedTensors reference = candidates[0].executable.run(sample);
    for (std::size_t i = 1; i < candidates.size(); ++i)
      for (const auto& [name, y] : candidates[i].executable.run(sample))
        errors[i] = std::max(errors[i], difference(y, reference.at(name)));
  }
  const std::vector<double> seconds = times_of(candidates, samples[0]);
  std::size_t chosen = 0;
  std::string line = "precision auto:";
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const bool within = errors[i] <= tolerance;
    if (within && seconds[i] < seconds[chosen]) chosen = i;
    line += (i == 0 ? " " : ", ") + candidates[i].precision + formatted(" %.3g ms", seconds[i] * 1e3);
    if (i > 0) line += formatted(" (error %.2g", errors[i]) + (within ? ")" : ", too much)");
  }
  Executable result = candidates[chosen].executable;
  result.note({line + formatted("; tolerance %g", tolerance) + ": " + candidates[chosen].precision});
  return result;
}

}  // namespace deepseek
