// What an executable knows before any dims are bound: segments, lifetimes, how symbols get their values.
#include <algorithm>
#include <set>

#include "runtime/executable.h"

namespace deepseek {
namespace {

using Known = std::set<std::string, std::less<>>;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

void append(std::vector<ValueId>& out, const std::vector<ValueId>& more) {
  for (const ValueId v : more)
    if (v != kWorkspace) out.push_back(v);
}

bool all_known(const Dim& d, const Known& known) {
  std::vector<std::string> symbols;
  d.symbols(symbols);
  return std::all_of(symbols.begin(), symbols.end(), [&](const std::string& s) { return known.contains(s); });
}

void require_known(const Dim& d, const Known& known, const StepInfo& info) {
  std::vector<std::string> symbols;
  d.symbols(symbols);
  for (const std::string& s : symbols)
    if (!known.contains(s))
      throw Error(Code::InvalidArgument, info.op, info.source, "a symbolic dim that an input's shape defines",
                  s);
}

// The symbols that a step defines, as rules (of Held outputs) and names.
void define_symbols(ExecutableData& data, int index, Known& known) {
  const Step& step = data.steps[static_cast<std::size_t>(index)];
  std::vector<std::string>& symbols = data.step_symbols[index];
  if (const auto* define = std::get_if<DefineStep>(&step.work)) {
    symbols = define->symbols;
    known.insert(symbols.begin(), symbols.end());
  }
  const auto outputs = held_outputs(step);
  if (!outputs.empty()) {
    std::vector<Shape> shapes;
    for (const ValueId v : outputs) shapes.push_back(data.values[static_cast<std::size_t>(v)].type.shape);
    data.step_rules[index] = make_bind_rules(shapes, known);
    for (const BindRule& rule : data.step_rules[index])
      if (!rule.symbol.empty()) symbols.push_back(rule.symbol);
    for (const Shape& s : shapes)
      for (const Dim& d : s) require_known(d, known, step.info);
  }
  if (symbols.empty()) data.step_symbols.erase(index);
}

std::vector<StepPorts> ports_of_steps(const ExecutableData& data) {
  std::vector<StepPorts> ports(data.steps.size());
  std::vector<int> first(data.outputs.size(), -1), last(data.inputs.size(), -1);
  for (int i = 0; i < static_cast<int>(data.steps.size()); ++i)
    for (const ValueId v : values_of(data.steps[static_cast<std::size_t>(i)])) {
      const ValueInfo& info = data.values[static_cast<std::size_t>(root(data.values, v))];
      const auto index = static_cast<std::size_t>(info.index);
      if (info.place == Place::Input && data.inputs[index].role != Role::Parameter) last[index] = i;
      if (info.place == Place::Output && first[index] < 0) first[index] = i;
    }
  for (std::size_t k = 0; k < first.size(); ++k)
    if (first[k] >= 0)
      ports[static_cast<std::size_t>(first[k])].first_of_outputs.push_back(static_cast<int>(k));
  for (std::size_t k = 0; k < last.size(); ++k)
    if (last[k] >= 0) ports[static_cast<std::size_t>(last[k])].last_of_inputs.push_back(static_cast<int>(k));
  return ports;
}

}  // namespace

ValueId root(const std::vector<ValueInfo>& values, ValueId v) {
  while (values[static_cast<std::size_t>(v)].place == Place::Alias)
    v = values[static_cast<std::size_t>(v)].index;
  return v;
}

std::vector<ValueId> values_of(const Step& step) {
  std::vector<ValueId> out;
  std::visit(Overloaded{[&](const KernelStep& s) { append(out, s.args); },
                        [&](const DefineStep& s) { out.push_back(s.values); },
                        [&](const CopyStep& s) { append(out, {s.from, s.to}); },
                        [&](const BranchStep& s) {
                          out.push_back(s.condition);
                          append(out, s.inputs);
                          append(out, s.outputs);
                        },
                        [&](const LoopStep& s) {
                          append(out, s.initial);
                          append(out, s.captured);
                          append(out, s.outputs);
                        },
                        [&](const HostStep& s) {
                          append(out, s.inputs);
                          append(out, s.outputs);
                        }},
             step.work);
  return out;
}

std::span<const ValueId> held_outputs(const Step& step) {
  if (const auto* s = std::get_if<BranchStep>(&step.work)) return s->outputs;
  if (const auto* s = std::get_if<LoopStep>(&step.work)) return s->outputs;
  if (const auto* s = std::get_if<HostStep>(&step.work)) return s->outputs;
  return {};
}

void link(ExecutableData& data) {
  Known known;
  std::vector<Shape> shapes;
  for (const Port& p : data.inputs) shapes.push_back(p.type.shape);
  data.input_rules = make_bind_rules(shapes, known);
  data.step_rules.clear();
  data.step_symbols.clear();
  data.segments.assign(1, {});
  data.temps.assign(data.values.size(), {0, 0, -1, -1});
  const auto outputs_known_in = [&](int segment) {
    for (std::size_t k = 0; k < data.outputs.size(); ++k) {
      const Shape& shape = data.outputs[k].type.shape;
      const bool held = data.values[static_cast<std::size_t>(data.output_values[k])].place == Place::Held;
      const bool seen = std::any_of(data.segments.begin(), data.segments.end(), [&](const Segment& s) {
        return std::find(s.new_outputs.begin(), s.new_outputs.end(), static_cast<int>(k)) !=
               s.new_outputs.end();
      });
      if (!held && !seen &&
          std::all_of(shape.begin(), shape.end(), [&](const Dim& d) { return all_known(d, known); }))
        data.segments[static_cast<std::size_t>(segment)].new_outputs.push_back(static_cast<int>(k));
    }
  };
  outputs_known_in(0);

  for (int i = 0; i < static_cast<int>(data.steps.size()); ++i) {
    const Step& step = data.steps[static_cast<std::size_t>(i)];
    const int segment = static_cast<int>(data.segments.size()) - 1;
    if (const auto* kernel = std::get_if<KernelStep>(&step.work))
      for (const Dim& d : kernel->dims) require_known(d, known, step.info);
    for (const ValueId v : values_of(step)) {
      const ValueId r = root(data.values, v);
      if (data.values[static_cast<std::size_t>(r)].place != Place::Temp) continue;
      TempLife& life = data.temps[static_cast<std::size_t>(r)];
      life.last = i;
      if (life.first >= 0) continue;
      for (const Dim& d : data.values[static_cast<std::size_t>(r)].type.shape)
        require_known(d, known, step.info);
      auto& temps = data.segments.back().temps;
      life = {segment, static_cast<int>(temps.size()), i, i};
      temps.push_back(r);
    }
    define_symbols(data, i, known);
    data.segments.back().end = i + 1;
    if (data.step_symbols.contains(i)) {
      data.segments.push_back({i + 1, i + 1, {}, {}});
      outputs_known_in(segment + 1);
    }
  }
  for (const Port& p : data.inputs)
    for (const Dim& d : p.type.shape) require_known(d, known, {"", "input " + p.name, "", 0, 0});
  for (const Port& p : data.outputs)
    for (const Dim& d : p.type.shape) require_known(d, known, {"", "output " + p.name, "", 0, 0});
  data.ports = ports_of_steps(data);
}

}  // namespace deepseek
