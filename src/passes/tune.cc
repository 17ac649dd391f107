#include "passes/tune.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "passes/piece.h"
#include "runtime/in_parallel.h"
#include "runtime/launch.h"

namespace deepseek {

namespace {

using kernels::LoweringContext;
using kernels::Way;
using Clock = std::chrono::steady_clock;

// How long measuring may take, how far a price may be above the least one for a way to be measured, and how often.
struct Effort {
  double seconds, price_ratio;
  int rounds;
};
Effort effort_of(Tune tune) { return tune == Tune::Full ? Effort{60, 10, 15} : Effort{1, 1.8, 4}; }

constexpr double kWorthMeasuring = 4e6;  // multiply-adds: less takes microseconds whichever way
constexpr double kClearly = 0.97;        // of the cheapest way's time: less far off is noise

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

bool is_static(const Group& g) {
  const auto known = [](const Type& t) {
    return std::all_of(t.shape.begin(), t.shape.end(), [](const Dim& d) { return d.is_static(); });
  };
  return std::all_of(g.inputs.begin(), g.inputs.end(), [&](const Value& v) { return known(v.type()); }) &&
         std::all_of(g.members.begin(), g.members.end(),
                     [&](const Node* n) { return std::all_of(n->outputs.begin(), n->outputs.end(), known); });
}

// Reads more memory than the caches hold: weights have left them when a whole model has run since.
class CacheFlush {
 public:
  CacheFlush() {
    constexpr std::int64_t kLeast = 8 << 20, kMost = 96 << 20;
    const std::int64_t bytes =
        std::clamp<std::int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE) * 5 / 4, kLeast, kMost);
    memory_.assign(static_cast<std::size_t>(bytes), std::byte{1});
  }
  void operator()() const { read_lines(memory_.data(), static_cast<std::int64_t>(memory_.size())); }

 private:
  std::vector<std::byte> memory_;
};

Tensor noise(const Type& type) {
  Dims dims;
  for (const Dim& d : type.shape) dims.push_back(d.value());
  if (type.dtype != DType::F32) return Tensor::zeros(type.dtype, std::move(dims));
  Tensor t(type.dtype, std::move(dims));
  std::uint32_t seed = 1;
  for (float& x : t.as<float>()) {
    seed = seed * 1664525U + 1013904223U;
    x = static_cast<float>(seed >> 8U) / (1U << 24U) - 0.5F;
  }
  return t;
}

// One way of a piece, ready to be run on random data.
class Contender {
 public:
  explicit Contender(Executable executable) : executable_(std::move(executable)), context_(executable_) {
    for (std::size_t i = 0; i < executable_.inputs().size(); ++i) {
      const Port& port = executable_.inputs()[i];
      Tensor data = noise(port.type);
      if (port.role == Role::Parameter) {
        context_.set_parameter(static_cast<int>(i), std::move(data), 1);
        data = {};
      }
      inputs_.push_back(std::move(data));
    }
    outputs_.resize(executable_.outputs().size());
    context_.run(inputs_, outputs_);
  }

  double seconds(const CacheFlush& flush) {
    flush();
    context_.warm();
    for (const auto* tensors :
         {&inputs_, &outputs_})  // a model's step before has just written what this one reads
      for (const Tensor& x : *tensors)
        if (x.defined())
          read_lines(static_cast<const std::byte*>(x.data()), static_cast<std::int64_t>(x.bytes()));
    const auto begin = Clock::now();
    context_.run(inputs_, outputs_);
    return since(begin);
  }

 private:
  Executable executable_;
  Context context_;
  std::vector<Tensor> inputs_, outputs_;
};

// Groups that do equal work, and the ways that may be fastest.
struct Question {
  std::unique_ptr<Graph> piece;
  std::vector<std::size_t> groups;
  std::vector<TriedWay> ways;
  std::vector<std::optional<Executable>> executables;  // of each way, where there was time
};

std::string text_of(const std::vector<TriedWay>& ways) {
  std::ostringstream out;
  for (const TriedWay& w : ways) out << w.seconds << ' ' << w.way->name << '\n';
  return out.str();
}

// False when the text does not speak of these ways.
bool read_times(const std::string& text, std::vector<TriedWay>& ways) {
  std::istringstream in(text);
  for (TriedWay& w : ways) {
    std::string name;
    if (!(in >> w.seconds) || !std::getline(in >> std::ws, name) || name != w.way->name) return false;
  }
  return true;
}

class Tuning {
 public:
  Tuning(std::span<const Group> groups, std::vector<Choice>& choices, const LoweringContext& context,
         Target& target, const LowerOptions& options)
      : groups_(groups),
        choices_(choices),
        context_(context),
        target_(target),
        options_(options),
        effort_(effort_of(options.tune)) {}

  void run() {
    ask();
    std::vector<Asked*> open;
    for (Asked& asked : questions_) {
      const auto known = target_.recall(asked.first);
      if (known && read_times(*known, asked.second.ways))
        answer(asked.second);
      else
        open.push_back(&asked);
    }
    std::sort(open.begin(), open.end(),
              [](const Asked* a, const Asked* b) { return weight(a->second) > weight(b->second); });
    if (!open.empty()) measure(open);
  }

 private:
  using Asked = std::pair<const std::string, Question>;  // by the text that it is remembered under

  static double weight(const Question& q) {
    return q.ways.front().cost * static_cast<double>(q.groups.size());
  }

  void ask() {
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      std::vector<TriedWay> close;
      for (const TriedWay& w : choices_[i].ways)
        if (w.cost <= effort_.price_ratio * choices_[i].ways.front().cost) close.push_back(w);
      if (close.size() < 2 || close.front().cost < kWorthMeasuring || !is_static(groups_[i])) continue;
      auto piece = std::make_unique<Graph>(std::move(piece_of(groups_[i], context_.fixed).graph));
      std::string key = "ways " + std::to_string(options_.threads) + " " +
                        std::to_string(static_cast<int>(options_.precision)) + "\n" + piece->str();
      Question& q = questions_[std::move(key)];
      q.groups.push_back(i);
      if (q.piece) continue;
      q.piece = std::move(piece);
      q.ways = std::move(close);
    }
  }

  void measure(const std::vector<Asked*>& open) {
    const auto begin = Clock::now();
    std::vector<std::pair<Question*, std::size_t>> work;
    for (Asked* asked : open) {
      Question& q = asked->second;
      q.executables.resize(q.ways.size());
      for (std::size_t w = 0; w < q.ways.size(); ++w) work.emplace_back(&q, w);
    }
    in_parallel(work.size(), [&](std::size_t i) {
      const auto [q, w] = work[i];
      if (since(begin) > effort_.seconds / 2) return;
      LowerOptions options = options_;
      options.tune = Tune::Off;
      options.way = q->ways[w].way->name;
      q->executables[w] = lower(*q->piece, target_, options);
    });
    const CacheFlush flush;
    for (Asked* asked : open) {
      auto& [key, q] = *asked;
      const bool all = std::all_of(q.executables.begin(), q.executables.end(),
                                   [](const auto& e) { return e.has_value(); });
      if (!all || since(begin) > effort_.seconds) continue;
      std::vector<Contender> contenders;
      try {
        for (auto& e : q.executables) contenders.emplace_back(*std::exchange(e, std::nullopt));
      } catch (const Error&) {
        continue;  // the data fail a check (integers are divided by 0): prices decide
      }
      for (int round = 0; round < effort_.rounds && (round == 0 || since(begin) < effort_.seconds); ++round)
        for (std::size_t w = 0; w < contenders.size(); ++w) {
          const double s = contenders[w].seconds(flush);
          q.ways[w].seconds = round == 0 ? s : std::min(q.ways[w].seconds, s);
        }
      target_.remember(key, text_of(q.ways));
      answer(q);
    }
  }

  void answer(const Question& q) {
    const auto best =
        std::min_element(q.ways.begin(), q.ways.end(),
                         [](const TriedWay& a, const TriedWay& b) { return a.weighed() < b.weighed(); });
    const bool clearly = best->weighed() < kClearly * q.ways.front().weighed();
    for (const std::size_t i : q.groups) {
      if (clearly) choices_[i].way = best->way;
      for (TriedWay& w : choices_[i].ways)
        for (const TriedWay& measured : q.ways)
          if (w.way == measured.way) w.seconds = measured.seconds;
    }
  }

  std::span<const Group> groups_;
  std::vector<Choice>& choices_;
  const LoweringContext& context_;
  Target& target_;
  const LowerOptions& options_;
  Effort effort_;
  std::map<std::string, Question> questions_;
};

}  // namespace

std::string Choice::str() const {
  if (ways.size() < 2) return "";
  std::string text;
  for (const TriedWay& w : ways) {
    char figure[48];
    if (w.seconds > 0)
      std::snprintf(figure, sizeof figure, " %.3f ms", w.seconds * 1e3);
    else
      std::snprintf(figure, sizeof figure, " price %.2f", w.cost / ways.front().cost);
    text += (text.empty() ? "" : ", ") + std::string(w.way->name) + figure;
    if (w.kept_bytes > 0) {
      std::snprintf(figure, sizeof figure, " %.1f MB", w.kept_bytes / 1e6);
      text += figure;
    }
  }
  return text;
}

std::vector<Choice> choose_ways(std::span<const Group> groups, const LoweringContext& context, Target& target,
                                const LowerOptions& options) {
  std::vector<Choice> choices(groups.size());
  in_parallel(
      groups.size(),
      [&](std::size_t i) {
        if (groups[i].kind != GroupKind::Contraction && groups[i].kind != GroupKind::Cascade) return;
        Choice& c = choices[i];
        for (const auto& [way, price, cost] : kernels::priced_ways(groups[i], context)) {
          c.ways.push_back({way, cost, price.kept_bytes});
          if (!c.way || way->name == options.way) c.way = way;
        }
      },
      true);
  if (options.tune != Tune::Off && !context.target.gpu_mapped && context.target.runs_here)
    Tuning(groups, choices, context, target, options).run();
  return choices;
}

}  // namespace deepseek
