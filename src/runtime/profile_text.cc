// Profiles as a table and as a trace.
#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <tuple>

#include "deepseek/error.h"
#include "deepseek/profile.h"

namespace deepseek {
namespace {

// A step that is further from its roof than this, and this much of the run, is worth naming below the table.
constexpr double kWorthNaming = 0.05;
constexpr std::size_t kOpsWidth = 44;

template <class... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 256> text{};
  const int size = std::snprintf(text.data(), text.size(), pattern, args...);
  return {text.data(), std::min(static_cast<std::size_t>(std::max(size, 0)), text.size() - 1)};
}

std::string cut(const std::string& s, std::size_t width) {
  return s.size() <= width ? s : s.substr(0, width - 3) + "...";
}

std::string row(double seconds, const std::string& best, double share, const std::string& rest) {
  return format("%11.1f %11s %6.1f%%  ", seconds * 1e6, best.c_str(), share * 100) + rest + "\n";
}

std::string figures(const StepProfile& s) {
  const std::string calls = s.calls == 1 ? "" : " x" + std::to_string(s.calls);
  const std::string roof =
      s.roof.empty() ? std::string(13, ' ') : format("%4.0f%% %-7s ", s.roof_share() * 100, s.roof.c_str());
  return format("%8.1f %8.1f  ", s.flops_per_s() * 1e-9, s.bytes_per_s() * 1e-9) + roof + " " +
         format("%-16s ", cut(s.way, 16).c_str()) + cut(s.ops.empty() ? s.name : s.ops, kOpsWidth) + calls +
         (s.source.empty() ? "" : "  (" + s.source + ")");
}

// Steps that do equal work as one.
std::vector<StepProfile> merged(const std::vector<StepProfile>& steps) {
  const auto work = [](const StepProfile& s) {
    const auto calls = static_cast<double>(std::max<std::int64_t>(1, s.calls));
    return std::tuple(s.ops, s.way, s.flops / calls, s.bytes / calls);
  };
  std::map<decltype(work(steps[0])), std::size_t> places;
  std::vector<StepProfile> rows;
  for (const StepProfile& s : steps) {
    const auto [it, fresh] = places.try_emplace(work(s), rows.size());
    if (fresh) {
      rows.push_back(s);
      continue;
    }
    StepProfile& into = rows[it->second];
    into.calls += s.calls;
    for (const auto figure : {&StepProfile::seconds, &StepProfile::best_seconds, &StepProfile::share,
                              &StepProfile::flops, &StepProfile::bytes, &StepProfile::roof_seconds})
      into.*figure += s.*figure;
  }
  std::sort(rows.begin(), rows.end(),
            [](const StepProfile& a, const StepProfile& b) { return a.seconds > b.seconds; });
  return rows;
}

std::string json(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (static_cast<unsigned char>(c) < ' ')
      out += format("\\u%04x", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + "\"";
}

}  // namespace

std::string Profile::str(int rows, bool merge) const {
  const std::vector<StepProfile> all = merge ? merged(steps) : steps;
  std::string text = format(
      "%.1f us a run (mean of %d), %d thread%s; this machine at best: %.1f GFLOP/s (%d-bit)", seconds * 1e6,
      runs, roof.threads, roof.threads == 1 ? "" : "s", roof.flops_per_s * 1e-9, roof.vector_bits);
  for (const Roof::Level& l : roof.levels)
    text += format(", %s %.0f/%.0f", l.name.c_str(), l.read * 1e-9, l.write * 1e-9);
  text += " GB/s (read/write)\n";
  text +=
      "         us     best us   share   GFLOP/s     GB/s   roof          way              ops (source)\n";
  const std::size_t shown = std::min(all.size(), static_cast<std::size_t>(std::max(rows, 0)));
  double rest = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const StepProfile& s = all[i];
    if (i < shown)
      text += row(s.seconds, format("%.1f", s.best_seconds * 1e6), s.share, figures(s));
    else
      rest += s.seconds;
  }
  if (shown < all.size())
    text += row(rest, "", rest / seconds, std::to_string(all.size() - shown) + " more rows");
  text += row(outside, "", outside / seconds, "outside steps");
  text += row(seconds, "", 1, "total");
  const auto gain = [](const StepProfile& s) { return s.seconds - s.roof_seconds; };
  const auto most = std::max_element(
      all.begin(), all.end(), [&](const StepProfile& a, const StepProfile& b) { return gain(a) < gain(b); });
  if (most != all.end() && !most->roof.empty() && gain(*most) > kWorthNaming * seconds)
    text += "most to gain: " + format("%.0f%% of the run, ", gain(*most) / seconds * 100) +
            cut(most->ops, kOpsWidth) + (most->source.empty() ? "" : " at " + most->source) +
            format(", which runs at %.0f%% of the ", most->roof_share() * 100) + most->roof + " roof\n";
  return text;
}

void Profile::write_chrome_trace(const std::string& path) const {
  std::ofstream file(path);
  file << "{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n"
       << R"({"ph": "M", "pid": 0, "tid": 0, "name": "process_name", "args": {"name": "deepseek"}},)" << "\n"
       << R"({"ph": "M", "pid": 0, "tid": 0, "name": "thread_name", "args": {"name": "steps"}})";
  int workers = 0;
  for (const TraceSpan& t : trace) workers = std::max(workers, t.worker + 1);
  for (int w = 0; w < workers; ++w)
    file << ",\n"
         << format(
                R"({"ph": "M", "pid": 0, "tid": %d, "name": "thread_name", "args": {"name": "worker %d"}})",
                w + 1, w);
  for (const TraceSpan& t : trace) {
    const StepProfile& s = steps[static_cast<std::size_t>(t.step)];
    file << ",\n"
         << format(R"({"ph": "X", "pid": 0, "tid": %d, "ts": %.3f, "dur": %.3f, "name": )", t.worker + 1,
                   t.begin * 1e6, (t.end - t.begin) * 1e6)
         << json(s.name);
    if (t.worker < 0)
      file << ", \"args\": {\"ops\": " << json(s.ops) << ", \"source\": " << json(s.source)
           << ", \"way\": " << json(s.way)
           << format(R"(, "flops": %.0f, "bytes": %.0f, "roof": "%s", "roof share": %.4f})", s.flops, s.bytes,
                     s.roof.c_str(), s.roof_share());
    file << "}";
  }
  file << "\n]}\n";
  file.close();
  if (!file)
    throw Error(Code::ResourceExhausted, "write_chrome_trace", "", "a file that can be written", path);
}

}  // namespace deepseek
