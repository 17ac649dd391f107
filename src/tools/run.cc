// deepseek-run MODEL.dsx [NAME=FILE.npy]... [--out FOLDER] [--repeat N] [--profile]: runs a saved executable. It needs
// libdeepseek_runtime alone, so it is what to put on a board. Without NAME=FILE it says what the model takes and gives.
// --out writes FOLDER/NAME.npy per result; --repeat times N runs; --profile shows where the time of a run goes.
// deepseek-run --serve: takes such argument lists from standard input, one per line, separated by tabs, and answers
// each with a line, "ok" or "error: ...".
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "deepseek/executable.h"
#include "deepseek/profile.h"
#include "tools/npy.h"

namespace {

using deepseek::Code;
using deepseek::Context;
using deepseek::Error;
using deepseek::Executable;
using deepseek::Port;
using deepseek::Tensor;

struct Job {
  std::string model, out;
  std::map<std::string, std::string, std::less<>> files;  // by the input's name
  int repeat = 0;
  bool profile = false;
};

[[noreturn]] void bad_argument(const std::string& expected, const std::string& got) {
  throw Error(Code::InvalidArgument, "", "", expected, got);
}

Job read_arguments(std::span<const std::string> args) {
  Job job;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const auto value = [&] {
      if (++i == args.size()) bad_argument("a value after " + arg, "nothing");
      return args[i];
    };
    if (arg == "--out")
      job.out = value();
    else if (arg == "--repeat")
      job.repeat = static_cast<int>(std::strtol(value().c_str(), nullptr, 10));
    else if (arg == "--profile")
      job.profile = true;
    else if (job.model.empty() && !arg.starts_with("--"))
      job.model = arg;
    else if (const std::size_t at = arg.rfind('='); at != std::string::npos && !arg.starts_with("--"))
      job.files[arg.substr(0, at)] = arg.substr(at + 1);
    else
      bad_argument("MODEL.dsx, NAME=FILE.npy, --out, --repeat or --profile", arg);
  }
  if (job.model.empty()) bad_argument("a saved executable: MODEL.dsx", "nothing");
  return job;
}

void describe(const Executable& e) {
  const auto list = [](const char* title, const std::vector<Port>& ports) {
    std::printf("%s\n", title);
    for (const Port& p : ports)
      std::printf("  %s: %s\n", p.name.c_str(),
                  (std::string(deepseek::name(p.type.dtype)) + deepseek::str(p.type.shape)).c_str());
  };
  list("inputs", e.inputs());
  list("outputs", e.outputs());
}

void time_runs(Context& context, std::span<const Tensor> inputs, std::vector<Tensor>& outputs, int count) {
  std::vector<double> ms;
  for (int i = 0; i < count; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    context.run(inputs, outputs);
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(ms.begin(), ms.end());
  std::printf("%d runs: best %.3f ms, median %.3f ms\n", count, ms.front(), ms[ms.size() / 2]);
}

void run(const Job& job) {
  const Executable e = Executable::load(job.model);
  const std::vector<Port>& ports = e.inputs();
  if (job.files.empty() && !ports.empty()) return describe(e);
  Context context(e);
  std::vector<Tensor> all(ports.size()), inputs(ports.size()), outputs(e.outputs().size());
  std::size_t used = 0;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const auto it = job.files.find(ports[i].name);
    if (it == job.files.end()) bad_argument("a file for input \"" + ports[i].name + "\"", "none");
    ++used;
    all[i] = deepseek::read_npy(it->second, ports[i].type.dtype);
    if (ports[i].role == deepseek::Role::Parameter)
      context.set_parameter(static_cast<int>(i), all[i], 1);
    else
      inputs[i] = all[i];
  }
  if (used != job.files.size()) bad_argument("inputs that the model has", "one more");
  context.run(inputs, outputs);
  if (job.repeat > 0) time_runs(context, inputs, outputs, job.repeat);
  if (job.profile) std::printf("%s", deepseek::profile(e, all).str().c_str());
  for (std::size_t i = 0; i < outputs.size() && !job.out.empty(); ++i) {
    std::string name = e.outputs()[i].name;
    std::replace(name.begin(), name.end(), '/', '_');
    deepseek::write_npy(job.out + "/" + name + ".npy", outputs[i]);
  }
}

void serve() {
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> args;
    std::istringstream words(line);
    for (std::string word; std::getline(words, word, '\t');) args.push_back(word);
    std::string answer = "ok";
    try {
      run(read_arguments(args));
    } catch (const std::exception& e) {
      answer = std::string("error: ") + e.what();
      std::replace(answer.begin(), answer.end(), '\n', ' ');
    }
    std::cout << answer << '\n' << std::flush;
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 1 && args[0] == "--serve")
    serve();
  else
    run(read_arguments(args));
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "deepseek-run: %s\n", e.what());
  return 1;
}
