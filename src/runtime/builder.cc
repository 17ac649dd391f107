#include "runtime/builder.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "runtime/executable.h"
#include "runtime/mapped_file.h"
#include "runtime/plan.h"
#include "runtime/prepare.h"

namespace deepseek {
namespace {

// Bytes of a constant from which reading it from its file when it is touched beats a copy.
constexpr std::size_t kWorthMapping = std::size_t{1} << 20;

std::size_t at(ValueId v) { return static_cast<std::size_t>(v); }

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

// Kernels for another machine cannot run now: it prepares once, at its first run.
bool runs_here(const Step& step) {
  const auto* kernel = std::get_if<KernelStep>(&step.work);
  return !kernel || kernel->kernel->runs_here();
}

Dim storage_bits(const Type& t) { return numel(t.shape) * Dim(bits(t.dtype)); }

}  // namespace

struct ExecutableBuilder::State {
  ExecutableData data;
  std::vector<std::pair<std::string, ValueId>> outputs;
  std::vector<std::weak_ptr<void>> owners;  // of the constants as they came

  ValueId add(ValueInfo info) {
    data.values.push_back(std::move(info));
    return static_cast<ValueId>(data.values.size()) - 1;
  }
  ValueInfo& info(ValueId v) {
    check(v >= 0 && at(v) < data.values.size(), "a value of this builder");
    return data.values[at(v)];
  }
  ValueId root_of(ValueId v) const { return root(data.values, v); }
  std::vector<ValueId> add_held(const std::vector<Type>& types) {
    std::vector<ValueId> out;
    for (const Type& t : types) out.push_back(add({t, Place::Held, data.held_count++, 0}));
    return out;
  }
  void append(Phase phase, StepInfo step_info, decltype(Step::work) work) {
    Step step{std::move(step_info), std::move(work)};
    for (const ValueId v : values_of(step)) info(v);
    (phase == Phase::Prepare ? data.prepare : data.steps).push_back(std::move(step));
  }

  void fold_constants();
  void place_together(const std::vector<ValueId>& ids, KnownValues& known);
  void drop_unused_constants();
  std::set<int> used_constants() const;
  void move_out_of_dropped_memory(const std::set<int>& used);
  void place_outputs();
  void place_output(std::string name, ValueId v, std::set<ValueId>& claimed);
};

// Prepare steps that need no parameter run now; what they wrote becomes constants.
void ExecutableBuilder::State::fold_constants() {
  std::set<ValueId> written, derived;  // by prepare steps; of those, what is not known yet
  for (const Step& step : data.prepare)
    for (const ValueId v : values_of(step)) {
      const Place place = info(root_of(v)).place;
      const bool argument =
          place == Place::Input && data.inputs[at(info(root_of(v)).index)].role != Role::Parameter;
      check(!argument, "a prepare step reads parameters and constants only");
      if (place == Place::Temp || place == Place::Held) written.insert(root_of(v));
    }
  const auto must_wait = [&](const Step& step) {
    const auto named = values_of(step);
    return !runs_here(step) || std::any_of(named.begin(), named.end(), [&](ValueId v) {
      return info(root_of(v)).place == Place::Input || derived.contains(root_of(v));
    });
  };
  std::size_t before = 0;
  do {
    before = derived.size();
    for (const Step& step : data.prepare)
      if (must_wait(step))
        for (const ValueId v : values_of(step))
          if (written.contains(root_of(v))) derived.insert(root_of(v));
  } while (derived.size() != before);
  std::vector<Step> now, later;
  for (Step& step : data.prepare) (must_wait(step) ? later : now).push_back(std::move(step));
  data.prepare = std::move(later);

  std::set<ValueId> used;  // by steps that run later
  for (const auto* steps : {&data.prepare, &data.steps})
    for (const Step& step : *steps)
      for (const ValueId v : values_of(step)) used.insert(root_of(v));
  for (const auto& [name, v] : outputs) used.insert(root_of(v));

  KnownValues known;
  std::map<ValueId, std::size_t> last_use;
  for (std::size_t i = 0; i < now.size(); ++i)
    for (const ValueId v : values_of(now[i])) last_use[root_of(v)] = i;
  for (const auto& [v, i] : last_use)
    if (info(v).place == Place::Constant) known[v] = data.constants[at(info(v).index)];
  // What is kept lies together: fewer pages than by itself.
  std::vector<ValueId> kept;
  for (const ValueId v : written)
    if (used.contains(v) && !derived.contains(v) && info(v).place == Place::Temp) kept.push_back(v);
  place_together(kept, known);
  const auto executor = now.empty() ? nullptr : thread_pool(data.threads);
  for (std::size_t i = 0; i < now.size(); ++i) {
    run_prepare_steps(data.values, {&now[i], 1}, known, *executor);
    for (const ValueId v : values_of(now[i])) {
      const ValueId r = root_of(v);
      if (last_use[r] != i || used.contains(r)) continue;
      known.erase(r);  // a raw weight goes as soon as it is packed
      if (info(r).place == Place::Constant) data.constants[at(info(r).index)] = {};
    }
  }
  for (const ValueId v : written) {
    ValueInfo& value = info(v);
    if (derived.contains(v)) {
      value.place = Place::Prepared;
      value.index = used.contains(v) ? data.prepared_count++ : -1;
    } else if (const auto it = known.find(v); it != known.end()) {
      value.place = Place::Constant;
      value.index = static_cast<int>(data.constants.size());
      data.constants.push_back(std::move(it->second));
    }
  }
}

void ExecutableBuilder::State::place_together(const std::vector<ValueId>& ids, KnownValues& known) {
  std::int64_t total = 0;
  for (const ValueId v : ids)
    total += aligned(bytes(info(v).type.dtype, numel(static_dims(info(v).type.shape))));
  const auto memory = std::make_shared<Tensor>(DType::U8, Dims{total});
  auto* at = static_cast<std::byte*>(memory->data());
  for (const ValueId v : ids) {
    Tensor t = Tensor::wrap(info(v).type.dtype, static_dims(info(v).type.shape), at, memory);
    at += aligned(static_cast<std::int64_t>(t.bytes()));
    known[v] = std::move(t);
  }
}

std::set<int> ExecutableBuilder::State::used_constants() const {
  std::set<int> used;
  const auto use = [&](ValueId v) {
    if (const ValueInfo& value = data.values[at(root_of(v))]; value.place == Place::Constant)
      used.insert(value.index);
  };
  for (const auto* steps : {&data.prepare, &data.steps})
    for (const Step& step : *steps)
      for (const ValueId v : values_of(step)) use(v);
  for (const auto& [name, v] : outputs) use(v);
  return used;
}

// A bias that stays would keep the whole model in memory when it is a piece of it: constants that share their owner
// with dropped ones are copied. Large pieces of a mapped file stay there: only what is touched takes memory.
void ExecutableBuilder::State::move_out_of_dropped_memory(const std::set<int>& used) {
  std::set<std::weak_ptr<void>, std::owner_less<>> dropped;
  for (std::size_t i = 0; i < owners.size(); ++i)
    if (!used.contains(static_cast<int>(i))) dropped.insert(owners[i]);
  const auto lies_there = [&](int i) {
    const Tensor& t = data.constants[at(i)];
    return at(i) < owners.size() && dropped.contains(owners[at(i)]) &&
           (t.bytes() < kWorthMapping || !is_mapped(t));
  };
  std::int64_t total = 0;
  for (const int i : used)
    if (lies_there(i)) total += aligned(static_cast<std::int64_t>(data.constants[at(i)].bytes()));
  const auto memory = total == 0 ? nullptr : std::make_shared<Tensor>(DType::U8, Dims{total});
  auto* to = total == 0 ? nullptr : static_cast<std::byte*>(memory->data());
  for (const int i : used) {
    if (!lies_there(i)) continue;
    Tensor& t = data.constants[at(i)];
    if (t.bytes() > 0) std::memcpy(to, t.data(), t.bytes());
    const auto size = aligned(static_cast<std::int64_t>(t.bytes()));
    t = Tensor::wrap(t.dtype(), t.dims(), to, memory);
    to += size;
  }
  std::set<std::weak_ptr<void>, std::owner_less<>> kept;
  for (const int i : used)
    if (kept.insert(data.constants[at(i)].owner()).second) drop_mapped_pages(data.constants[at(i)]);
}

void ExecutableBuilder::State::drop_unused_constants() {
  const std::set<int> used = used_constants();
  move_out_of_dropped_memory(used);
  std::vector<Tensor> kept;
  std::map<int, int> moved;
  for (const int i : used) {
    moved[i] = static_cast<int>(kept.size());
    kept.push_back(std::move(data.constants[at(i)]));
  }
  data.constants = std::move(kept);
  for (ValueInfo& value : data.values)
    if (value.place == Place::Constant) value.index = used.contains(value.index) ? moved[value.index] : -1;
}

void ExecutableBuilder::State::place_output(std::string name, ValueId v, std::set<ValueId>& claimed) {
  const int index = static_cast<int>(data.outputs.size());
  const ValueId r = root_of(v);
  data.outputs.push_back({std::move(name), info(v).type, Role::Argument});
  bool whole = storage_bits(info(v).type) == storage_bits(info(r).type);
  for (ValueId a = v; a != r; a = info(a).index) whole = whole && info(a).offset == Dim(0);
  const bool written = std::any_of(data.steps.begin(), data.steps.end(), [&](const Step& step) {
    const auto named = values_of(step);
    return std::any_of(named.begin(), named.end(), [&](ValueId n) { return root_of(n) == r; });
  });
  if (whole && info(r).place == Place::Temp && written && claimed.insert(r).second) {
    info(r).place = Place::Output;
    info(r).index = index;
    data.output_values.push_back(r);
  } else if (info(v).place == Place::Held && claimed.insert(v).second) {
    data.output_values.push_back(v);
  } else {
    const Type type = info(v).type;
    const ValueId copy = add({type, Place::Output, index, 0});
    const Dim bytes = Dim(2) * numel(type.shape) * Dim(bits(type.dtype));
    append(Phase::Run, {"copy_" + data.outputs.back().name, "copy", "", 0, floordiv(bytes, 8)},
           CopyStep{v, copy});
    data.output_values.push_back(copy);
  }
}

void ExecutableBuilder::State::place_outputs() {
  std::set<ValueId> claimed;
  for (auto& [name, v] : outputs) place_output(name, v, claimed);
}

ExecutableBuilder::ExecutableBuilder() : state_(std::make_unique<State>()) {}
ExecutableBuilder::~ExecutableBuilder() = default;

ValueId ExecutableBuilder::input(std::string name, Type type, Role role, std::string source) {
  check(role != Role::Constant, "an input is an argument or a parameter");
  const ValueId v = state_->add({type, Place::Input, static_cast<int>(state_->data.inputs.size()), 0});
  state_->data.inputs.push_back({std::move(name), std::move(type), role, std::move(source)});
  state_->data.input_values.push_back(v);
  return v;
}

ValueId ExecutableBuilder::constant(Tensor data) {
  check(data.defined(), "a constant with data");
  const int index = static_cast<int>(state_->data.constants.size());
  const ValueId v = state_->add({{data.dtype(), to_shape(data.dims())}, Place::Constant, index, 0});
  state_->owners.push_back(data.owner());
  state_->data.constants.push_back(std::move(data));
  return v;
}

ValueId ExecutableBuilder::temp(Type type) { return state_->add({std::move(type), Place::Temp, 0, 0}); }

ValueId ExecutableBuilder::alias(ValueId of, Type type, Dim offset) {
  state_->info(of);
  return state_->add({std::move(type), Place::Alias, of, std::move(offset)});
}

const Type& ExecutableBuilder::type(ValueId v) const { return state_->info(v).type; }

void ExecutableBuilder::kernel(Phase phase, StepInfo info, KernelStep step) {
  check(step.kernel != nullptr, "a kernel step with a kernel");
  state_->append(phase, std::move(info), std::move(step));
}

void ExecutableBuilder::copy(Phase phase, StepInfo info, ValueId from, ValueId to) {
  check(type(from).dtype == type(to).dtype, "a copy between values of one dtype");
  state_->append(phase, std::move(info), CopyStep{from, to});
}

void ExecutableBuilder::define(StepInfo info, ValueId values, std::vector<std::string> symbols) {
  const DType t = type(values).dtype;
  check(t == DType::I64 || t == DType::I32, "symbols from an I32 or I64 value");
  state_->append(Phase::Run, std::move(info), DefineStep{values, std::move(symbols)});
}

std::vector<ValueId> ExecutableBuilder::branch(StepInfo info, ValueId condition, Executable then,
                                               Executable otherwise, std::vector<ValueId> inputs,
                                               std::vector<Type> outputs) {
  for (const Executable* e : {&then, &otherwise})
    check(e->inputs().size() == inputs.size() && e->outputs().size() == outputs.size(),
          "branches with the step's inputs and outputs");
  const auto out = state_->add_held(outputs);
  state_->append(Phase::Run, std::move(info),
                 BranchStep{condition, then.share(), otherwise.share(), std::move(inputs), out});
  return out;
}

std::vector<ValueId> ExecutableBuilder::loop(StepInfo info, Executable condition, Executable body,
                                             std::vector<ValueId> initial, std::vector<ValueId> captured,
                                             std::vector<int> parts, std::vector<Type> outputs) {
  const std::size_t inputs = initial.size() + captured.size();
  check(condition.inputs().size() == inputs && condition.outputs().size() == 1,
        "a condition of the state and what is captured");
  check(body.inputs().size() == inputs && body.outputs().size() == initial.size() + parts.size() &&
            outputs.size() == initial.size(),
        "a body from the state and what is captured to the state and where its parts are stored");
  const auto out = state_->add_held(outputs);
  state_->append(Phase::Run, std::move(info),
                 LoopStep{condition.share(), body.share(), std::move(initial), std::move(captured),
                          std::move(parts), out});
  return out;
}

std::vector<ValueId> ExecutableBuilder::host(Phase phase, StepInfo info,
                                             std::function<std::vector<Tensor>(std::span<const Tensor>)> run,
                                             std::vector<ValueId> inputs, std::vector<Type> outputs) {
  const auto out = state_->add_held(outputs);
  state_->append(phase, std::move(info), HostStep{std::move(run), std::move(inputs), out});
  return out;
}

void ExecutableBuilder::output(std::string name, ValueId value) {
  state_->info(value);
  state_->outputs.emplace_back(std::move(name), value);
}

void ExecutableBuilder::equal(EqualDims dims) { state_->data.equalities.push_back(std::move(dims)); }
void ExecutableBuilder::threads(int count) { state_->data.threads = count; }
void ExecutableBuilder::target(std::string name) { state_->data.target = std::move(name); }
void ExecutableBuilder::note(std::string line) { state_->data.notes.push_back(std::move(line)); }

Executable ExecutableBuilder::finish() {
  check(state_ != nullptr, "an executable is finished once");
  const std::unique_ptr<State> state = std::move(state_);
  state->fold_constants();
  state->drop_unused_constants();
  state->place_outputs();
  link(state->data);
  return Executable(std::make_shared<const ExecutableData>(std::move(state->data)));
}

}  // namespace deepseek
