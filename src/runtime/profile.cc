#include "deepseek/profile.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <ranges>
#include <unordered_map>

#include "runtime/recorder.h"

namespace deepseek {
namespace {

constexpr int kLeastRuns = 6;
// Before a way's precision: "gemm in bf16".
constexpr std::string_view kIn = " in ";
constexpr int kTraceRuns = 3;  // the fastest of these is kept

// How long ago, in bytes touched since, each page of memory was touched last: an address that comes back soon is still
// in a cache, whichever value lives there.
class Reuse {
 public:
  // Calls f(distance, bytes) for pieces of [begin, begin + bytes), and counts them as touched now. Distances of what
  // was never touched are infinite.
  template <class F>
  void touch(const std::byte* begin, double bytes, F f) {
    const auto first = reinterpret_cast<std::uintptr_t>(begin) / kPage;
    const auto last =
        (reinterpret_cast<std::uintptr_t>(begin) + static_cast<std::uintptr_t>(std::max(bytes, 1.0)) - 1) /
        kPage;
    const double piece = bytes / static_cast<double>(last - first + 1);
    for (std::uintptr_t page = first; page <= last; ++page) {
      const auto [it, fresh] = touched_.try_emplace(page, now_);
      f(fresh ? std::numeric_limits<double>::infinity() : now_ - it->second, piece);
      it->second = now_;
      now_ += piece;
    }
  }

 private:
  static constexpr std::uintptr_t kPage = 4096;
  std::unordered_map<std::uintptr_t, double> touched_;
  double now_ = 0;
};

int vector_bits_of(const std::string& target) {
  if (target.find("avx512") != std::string::npos || target.find("amx") != std::string::npos) return 512;
  return target.find("avx2") != std::string::npos ? 256 : 0;
}

// Longest first; the trace follows.
void sort_steps(Profile& p) {
  std::vector<std::size_t> order(p.steps.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(p.steps[b].seconds, a) < std::pair(p.steps[a].seconds, b);
  });
  std::vector<StepProfile> sorted;
  std::vector<int> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[order[i]] = static_cast<int>(i);
    sorted.push_back(std::move(p.steps[order[i]]));
  }
  p.steps = std::move(sorted);
  for (TraceSpan& s : p.trace) s.step = place[static_cast<std::size_t>(s.step)];
}

}  // namespace

// Records runs one after another.
class Profiler : public Recorder {
 public:
  Profiler(const Executable& executable, std::span<const Tensor> inputs)
      : executable_(executable), context_(executable), inputs_(inputs.begin(), inputs.end()) {
    const std::vector<Port>& ports = executable.inputs();
    for (std::size_t i = 0; i < std::min(inputs_.size(), ports.size()); ++i)
      if (ports[i].role == Role::Parameter) {
        context_.set_parameter(static_cast<int>(i), inputs_[i], 1);
        inputs_[i] = {};
      }
    const ExecutableData& data = executable.data();
    roof_ = measured_roof(data.threads, vector_bits_of(data.target));
    context_.state_->recorder = this;
  }

  Profile run(const ProfileOptions& options) {
    once();  // binds and prepares
    reuse_ = std::make_unique<Reuse>();
    once();
    for (Row& r : rows_) r.roof = {};
    once();  // distances reach back into the run before
    reuse_.reset();
    std::vector<std::vector<double>> times;
    std::vector<double> walls;
    double total = 0;
    while (options.runs > 0 ? static_cast<int>(walls.size()) < options.runs
                            : static_cast<int>(walls.size()) < kLeastRuns || total < options.seconds) {
      walls.push_back(once());
      total += walls.back();
      times.emplace_back();
      for (const Row& r : rows_) times.back().push_back(r.seconds);
    }
    Profile p = mean_of(walls, times);
    take_trace(p);
    return p;
  }

  void step(const Context::State& state, const Step& step, const BoundStep& bound, std::int64_t begin_ns,
            std::int64_t end_ns) override {
    const auto [it, fresh] = numbers_.try_emplace(&step, rows_.size());
    if (fresh) rows_.emplace_back().step = &step;
    Row& row = rows_[it->second];
    const double seconds = static_cast<double>(end_ns - begin_ns) * 1e-9;
    // Steps of a branch or a loop have been counted: what is left is its own.
    double inner = 0;
    while (!nested_.empty() && nested_.back().first >= begin_ns) {
      inner += nested_.back().second;
      nested_.pop_back();
    }
    nested_.emplace_back(begin_ns, seconds);
    ++row.calls;
    row.seconds += seconds - inner;
    row.flops += bound.flops;
    if (reuse_) weigh(row, state, step, bound);
    if (wants_spans) spans_.push_back({static_cast<int>(it->second), -1, since(begin_ns), since(end_ns)});
  }

  void span(int worker, std::int64_t begin_ns, std::int64_t end_ns) override {
    const std::lock_guard lock(mutex_);
    spans_.push_back({static_cast<int>(rows_.size()), worker, since(begin_ns), since(end_ns)});
  }

 private:
  struct RoofTimes {
    double compute = 0, memory = 0, cache = 0, bytes = 0;
  };
  struct Row {
    const Step* step = nullptr;
    std::int64_t calls = 0;
    double seconds = 0, flops = 0;
    RoofTimes roof;  // of the run that was weighed
  };

  double since(std::int64_t ns) const { return static_cast<double>(ns - began_) * 1e-9; }

  // One run; its wall time.
  double once() {
    for (Row& r : rows_) r.calls = 0, r.seconds = 0, r.flops = 0;
    nested_.clear();
    spans_.clear();
    std::vector<Tensor> outputs(executable_.outputs().size());
    began_ = now_ns();
    context_.run(inputs_, outputs);
    return since(now_ns());
  }

  // The bytes that a step reads and writes, by where they were left, and the time that this takes at best.
  void weigh(Row& row, const Context::State& state, const Step& step, const BoundStep& bound) {
    struct Touch {
      const std::byte* at;
      double bytes;
      bool written;
    };
    std::vector<Touch> touches;
    const auto add = [&](ValueId v, const std::byte* at) {
      const ValueInfo& info = state.data.values[static_cast<std::size_t>(v)];
      const double size = static_cast<double>(bytes(info.type.dtype, numel(state.dims(v))));
      const auto same = [&](const Touch& t) { return t.at == at && t.bytes == size; };
      if (size > 0 && std::none_of(touches.begin(), touches.end(), same))
        touches.push_back({at, size, writes(state, step, v)});
    };
    if (const auto* kernel = std::get_if<KernelStep>(&step.work)) {
      for (std::size_t a = 0; a < kernel->args.size(); ++a)
        if (kernel->args[a] != kWorkspace)
          add(kernel->args[a], static_cast<const std::byte*>(bound.buffers[a]));
    } else if (const auto* copy = std::get_if<CopyStep>(&step.work)) {
      add(copy->from, state.address(copy->from));
      add(copy->to, state.address(copy->to));
    }
    shorten(touches, bound.bytes);
    if (const double rate = rate_of(state, step); rate > 0) row.roof.compute += bound.flops / rate;
    for (const Touch& t : touches) {
      row.roof.bytes += t.bytes;
      reuse_->touch(t.at, t.bytes, [&](double distance, double piece) {
        const Roof::Level& level = roof_.level(distance);
        double& time = &level == &roof_.levels.back() ? row.roof.memory : row.roof.cache;
        time += piece / (t.written ? level.write : level.read);
      });
    }
  }

  // Of the units that multiply in the step's precision; 0 where their rate was not measured (matrix registers).
  double rate_of(const Context::State& state, const Step& step) const {
    const std::string& way = step.info.way;
    const auto* kernel = std::get_if<KernelStep>(&step.work);
    if (!kernel || !way.starts_with("gemm")) return roof_.flops_per_s;
    const auto is_bf16 = [&](ValueId v) {
      return v != kWorkspace && state.data.values[static_cast<std::size_t>(v)].type.dtype == DType::BF16;
    };
    std::string_view precision = name(DType::F32);
    if (const std::size_t at = way.find(kIn); at != std::string::npos)
      precision = std::string_view(way).substr(at + kIn.size());
    else if (std::any_of(kernel->args.begin(), kernel->args.end(), is_bf16))
      precision = name(DType::BF16);
    precision = precision.substr(0, precision.find(' '));
    if (precision == name(DType::F32)) return roof_.flops_per_s;
    const std::string& target = state.data.target;
    if (target.find("amx") != std::string::npos) return 0;
    if (precision == name(DType::U8)) return roof_.int8_flops_per_s;
    if (precision != name(DType::BF16)) return 0;
    return target.find("bf16") != std::string::npos ? roof_.bf16_flops_per_s : roof_.flops_per_s;
  }

  static bool writes(const Context::State& state, const Step& step, ValueId v) {
    const ValueId r = root(state.data.values, v);
    const ValueInfo& info = state.data.values[static_cast<std::size_t>(r)];
    if (info.place == Place::Output) return true;
    const auto index = static_cast<int>(&step - state.data.steps.data());
    return info.place == Place::Temp && state.data.temps[static_cast<std::size_t>(r)].first == index;
  }

  // Where the compiler knows that only part of a buffer is touched (rows of a table), it is the largest one read.
  template <class Touches>
  static void shorten(Touches& touches, double most) {
    double sum = 0;
    auto* largest = static_cast<typename Touches::value_type*>(nullptr);
    for (auto& t : touches) {
      sum += t.bytes;
      if (!t.written && (!largest || t.bytes > largest->bytes)) largest = &t;
    }
    if (most > 0 && sum > most && largest) largest->bytes = std::max(1.0, largest->bytes - (sum - most));
  }

  StepProfile profile_of(const Row& row) const {
    const StepInfo& info = row.step->info;
    StepProfile s{info.name, info.op, info.source, info.way};
    static constexpr const char* kKinds[] = {"", "define", "copy", "branch", "loop", "host"};
    if (s.way.empty()) s.way = kKinds[row.step->work.index()];
    s.calls = row.calls;
    s.flops = row.flops;
    s.bytes = row.roof.bytes;
    const double moving = row.roof.memory + row.roof.cache;
    s.roof_seconds = std::max(row.roof.compute, moving);
    if (s.roof_seconds > 0)
      s.roof = row.roof.compute >= moving          ? "compute"
               : row.roof.memory >= row.roof.cache ? "memory"
                                                   : "cache";
    return s;
  }

  // Of the faster half of the runs.
  Profile mean_of(const std::vector<double>& walls, const std::vector<std::vector<double>>& times) {
    std::vector<std::size_t> order(walls.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return walls[a] < walls[b]; });
    order.resize((order.size() + 1) / 2);
    Profile p;
    p.runs = static_cast<int>(order.size());
    p.roof = roof_;
    for (const Row& r : rows_) p.steps.push_back(profile_of(r));
    double inside = 0;
    for (const std::size_t run : order) {
      p.seconds += walls[run] / p.runs;
      for (std::size_t i = 0; i < times[run].size(); ++i) p.steps[i].seconds += times[run][i] / p.runs;
    }
    for (std::size_t i = 0; i < p.steps.size(); ++i) {
      p.steps[i].best_seconds = times[0][i];
      for (const std::vector<double>& run : times)
        p.steps[i].best_seconds = std::min(p.steps[i].best_seconds, run[i]);
    }
    for (StepProfile& s : p.steps) {
      inside += s.seconds;
      s.share = s.seconds / p.seconds;
    }
    p.outside = p.seconds - inside;
    return p;
  }

  // Adds the trace, then sorts the steps.
  void take_trace(Profile& p) {
    wants_spans = true;
    double best = std::numeric_limits<double>::infinity();
    for (int r = 0; r < kTraceRuns; ++r) {
      const double wall = once();
      if (wall >= best) continue;
      best = wall;
      p.trace = spans_;
    }
    wants_spans = false;
    // What workers did was recorded before the step that it belongs to.
    int step = 0;
    for (TraceSpan& s : std::views::reverse(p.trace)) {
      if (s.worker < 0) step = s.step;
      s.step = step;
    }
    sort_steps(p);
  }

  Executable executable_;
  Context context_;
  std::vector<Tensor> inputs_;
  Roof roof_;
  std::vector<Row> rows_;  // in the order in which the steps ran first
  std::unordered_map<const Step*, std::size_t> numbers_;
  std::vector<std::pair<std::int64_t, double>>
      nested_;                    // begin and seconds of steps that no other contains so far
  std::unique_ptr<Reuse> reuse_;  // while distances are taken
  std::int64_t began_ = 0;
  std::mutex mutex_;
  std::vector<TraceSpan> spans_;
};

Profile combined(std::vector<Profile> parts, double seconds) {
  Profile all;
  all.seconds = all.outside = seconds;
  double begin = 0;
  for (Profile& p : parts) {
    const int first = static_cast<int>(all.steps.size());
    for (TraceSpan& t : p.trace)
      all.trace.push_back({t.step + first, t.worker, t.begin + begin, t.end + begin});
    begin += p.seconds;
    for (StepProfile& s : p.steps) {
      s.share = s.seconds / seconds;
      all.outside -= s.seconds;
      all.steps.push_back(std::move(s));
    }
    all.runs = p.runs;
    all.roof = std::move(p.roof);
  }
  sort_steps(all);
  return all;
}

Profile profile(const Executable& executable, std::span<const Tensor> inputs, const ProfileOptions& options) {
  check(static_cast<bool>(executable), "an executable that was compiled or loaded");
  if (options.runs < 0)
    throw Error(Code::InvalidArgument, "profile", "", "a positive number of runs",
                std::to_string(options.runs));
  return Profiler(executable, inputs).run(options);
}

}  // namespace deepseek
