#include "runtime/executable.h"

#include <algorithm>

#include "deepseek/error.h"

namespace deepseek {
namespace {

// Contexts kept for Executable::run beyond what runs at once.
constexpr std::size_t kMaxIdle = 4;

std::string names(const std::vector<Port>& ports) {
  std::string text;
  for (const Port& p : ports) text += (text.empty() ? "" : ", ") + p.name;
  return text.empty() ? "none" : text;
}

std::string kind(const Step& step) {
  static constexpr const char* kNames[] = {"", "define ", "", "branch ", "loop ", "host "};
  return kNames[step.work.index()];
}

void explain_steps(std::string& text, const char* title, const std::vector<Step>& steps) {
  if (steps.empty()) return;
  text += title;
  for (const Step& step : steps) {
    text += "  " + kind(step) + step.info.name;
    if (!step.info.way.empty()) text += "  " + step.info.way;
    if (!(step.info.flops == Dim(0))) text += "  " + step.info.flops.str() + " FLOPs";
    if (!(step.info.bytes == Dim(0))) text += "  " + step.info.bytes.str() + " bytes";
    if (!step.info.source.empty()) text += "  (" + step.info.source + ")";
    text += "\n";
  }
}

}  // namespace

const std::vector<Port>& Executable::inputs() const { return data_->inputs; }
const std::vector<Port>& Executable::outputs() const { return data_->outputs; }

std::vector<Tensor> Executable::run(std::span<const Tensor> inputs) const {
  check(data_ != nullptr, "an executable that was compiled or loaded");
  std::vector<Tensor> results(data_->outputs.size());
  run(inputs, results);
  return results;
}

void Executable::run(std::span<const Tensor> inputs, std::span<Tensor> outputs) const {
  check(data_ != nullptr, "an executable that was compiled or loaded");
  auto& shared = *data_->shared;
  std::unique_ptr<Context> context;
  {
    const std::lock_guard lock(shared.mutex);
    if (!shared.idle.empty()) {
      context = std::move(shared.idle.back());
      shared.idle.pop_back();
    }
  }
  // Idle contexts belong to the executable, so they must not own it.
  const std::shared_ptr<const ExecutableData> unowned(std::shared_ptr<const ExecutableData>(), data_.get());
  if (!context) context = std::make_unique<Context>(Executable(unowned));
  context->run(inputs, outputs);
  const std::lock_guard lock(shared.mutex);
  if (shared.idle.size() < kMaxIdle) shared.idle.push_back(std::move(context));
}

NamedTensors Executable::run(const NamedTensors& inputs) const {
  std::vector<Tensor> ordered;
  for (const Port& p : data_->inputs) {
    const auto it = inputs.find(p.name);
    if (it == inputs.end())
      throw Error(Code::InvalidArgument, "run", "", "an array for input \"" + p.name + "\"", "none");
    ordered.push_back(it->second);
  }
  for (const auto& [name, tensor] : inputs)
    if (std::none_of(data_->inputs.begin(), data_->inputs.end(),
                     [&](const Port& p) { return p.name == name; }))
      throw Error(Code::InvalidArgument, "run", "", "inputs named " + names(data_->inputs),
                  "\"" + name + "\"");
  const std::vector<Tensor> results = run(ordered);
  NamedTensors named;
  for (std::size_t i = 0; i < results.size(); ++i) named[data_->outputs[i].name] = results[i];
  return named;
}

void Executable::note(std::vector<std::string> lines) {
  auto& notes = std::const_pointer_cast<ExecutableData>(data_)->notes;
  notes.insert(notes.begin(), lines.begin(), lines.end());
}

std::string Executable::explain() const {
  std::string text = "target " + (data_->target.empty() ? std::string("unknown") : data_->target) + "\n";
  for (const std::string& note : data_->notes) text += note + "\n";
  explain_steps(text, "prepared when parameters change:\n", data_->prepare);
  explain_steps(text, "steps:\n", data_->steps);
  return text;
}

}  // namespace deepseek
