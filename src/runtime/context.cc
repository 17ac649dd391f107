#include "runtime/context.h"

#include <algorithm>
#include <cstring>

#include "runtime/prepare.h"
#include "runtime/recorder.h"

namespace deepseek {
namespace {

// Plans kept per segment: more sizes than a server's buckets, few enough to forget a generator's.
constexpr std::size_t kMaxBindings = 64;

// A copy is divided among threads in pieces of this size.
constexpr std::size_t kCopyBytes = std::size_t{256} << 10;

std::string type_of(const Tensor& t) { return std::string(name(t.dtype())) + str(t.dims()); }

std::string type_of(const Type& t) { return std::string(name(t.dtype)) + str(t.shape); }

Error bad_input(const Port& port, const std::string& because, const std::string& got) {
  return Error(
      Code::InvalidArgument, "run", port.source,
      "input \"" + port.name + "\" of " + type_of(port.type) + (because.empty() ? "" : " where " + because),
      got);
}

void check_memory(const Port& port, const Dims& wanted, const Tensor& out) {
  if (out.dtype() == port.type.dtype && out.dims() == wanted) return;
  throw Error(
      Code::InvalidArgument, "run", "",
      "memory for output \"" + port.name + "\" of " + std::string(name(port.type.dtype)) + str(wanted),
      type_of(out));
}

}  // namespace

std::size_t KeyHash::operator()(const std::vector<std::int64_t>& key) const {
  std::uint64_t h = 1469598103934665603u;  // FNV-1a's offset basis and prime
  for (const std::int64_t x : key) h = (h ^ static_cast<std::uint64_t>(x)) * 1099511628211u;
  return h;
}

Context::State::State(std::shared_ptr<const ExecutableData> executable, std::shared_ptr<Executor> pool)
    : owner(std::move(executable)), data(*owner), executor(std::move(pool)) {
  if (!executor) executor = thread_pool(data.threads);
  parameters.resize(data.inputs.size());
  segments.resize(data.segments.size());
  held.resize(static_cast<std::size_t>(data.held_count));
  inputs.resize(data.inputs.size());
}

void Context::State::take_inputs(std::span<const Tensor> given) {
  if (given.size() != data.inputs.size())
    throw Error(Code::InvalidArgument, "run", "", std::to_string(data.inputs.size()) + " inputs",
                std::to_string(given.size()));
  key.clear();
  for (std::size_t i = 0; i < given.size(); ++i) {
    const Port& port = data.inputs[i];
    const Tensor& t = given[i].defined() ? given[i] : parameters[i].value;
    if (!t.defined()) throw bad_input(port, "", "nothing");
    if (t.dtype() != port.type.dtype || t.dims().size() != port.type.shape.size())
      throw bad_input(port, "", type_of(t));
    key.insert(key.end(), t.dims().begin(), t.dims().end());
    inputs[i] = &t;
  }
}

void Context::State::prepare(std::span<const Tensor> given) {
  if (data.prepare.empty()) return;
  bool fresh = false, same = prepared != nullptr;
  std::size_t at = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (data.inputs[i].role != Role::Parameter) continue;
    fresh = fresh || given[i].defined();
    same = same && prepared->key[at++] ==
                       std::pair<const void*, std::uint64_t>(inputs[i]->data(), parameters[i].version);
  }
  if (same && !fresh) return;
  std::vector<Tensor> tensors;
  std::vector<std::uint64_t> versions;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    tensors.push_back(*inputs[i]);
    versions.push_back(parameters[i].version);
  }
  prepared = prepared_for(data, tensors, versions, fresh, *executor);
  ++epoch;
}

DimEnv Context::State::env_for(int segment) const {
  if (segment > 0) {
    DimEnv env = segments[static_cast<std::size_t>(segment) - 1].active->env;
    for (const auto& [symbol, value] : defined) env[symbol] = value;
    return env;
  }
  DimEnv env;
  apply_bind_rules(
      data.input_rules,
      [&](int i, int axis) {
        return inputs[static_cast<std::size_t>(i)]->dims()[static_cast<std::size_t>(axis)];
      },
      env,
      [&](int i, const std::string& because) {
        return bad_input(data.inputs[static_cast<std::size_t>(i)], because,
                         type_of(*inputs[static_cast<std::size_t>(i)]));
      });
  return env;
}

void Context::State::activate(int index) {
  Memory& m = segments[static_cast<std::size_t>(index)];
  if (!m.active || m.active_key != key) {
    auto it = m.bindings.find(key);
    if (it == m.bindings.end()) {
      DimEnv env = env_for(index);
      for (const auto& [a, b, op, source] : data.equalities) {
        std::vector<std::string> symbols;
        a.symbols(symbols);
        b.symbols(symbols);
        const auto is_new = [&](const std::string& s) { return env.contains(s); };
        if (!std::all_of(symbols.begin(), symbols.end(), is_new) || a.eval(env) == b.eval(env)) continue;
        throw Error(Code::InvalidArgument, op, source, "equal dims " + a.str() + " and " + b.str(),
                    std::to_string(a.eval(env)) + " and " + std::to_string(b.eval(env)));
      }
      auto made = std::make_unique<Binding>(bind_segment(data, index, std::move(env)));
      if (m.bindings.size() >= kMaxBindings) {
        const auto oldest =
            std::min_element(m.bindings.begin(), m.bindings.end(),
                             [](const auto& x, const auto& y) { return x.second->used < y.second->used; });
        m.bindings.erase(oldest);
      }
      it = m.bindings.emplace(key, std::move(made)).first;
    }
    // Temporaries of this segment that later ones read have moved.
    m.active = it->second.get();
    m.active_key = key;
    if (data.segments.size() > 1) ++epoch;
  }
  Binding& b = *m.active;
  b.used = runs;
  working->reserve(static_cast<std::size_t>(index), b.arena_bytes, b.scratch_bytes, executor->threads());
  if (stamp != working->stamp()) ++epoch;
  stamp = working->stamp();
  if (b.epoch != epoch) fill_addresses(b, index);
}

void Context::State::fill_addresses(Binding& b, int index) {
  const Segment& segment = data.segments[static_cast<std::size_t>(index)];
  std::byte* arena = working->arena(static_cast<std::size_t>(index));
  for (int i = segment.begin; i < segment.end; ++i) {
    const auto* kernel = std::get_if<KernelStep>(&data.steps[static_cast<std::size_t>(i)].work);
    if (!kernel) continue;
    BoundStep& bound = b.steps[static_cast<std::size_t>(i - segment.begin)];
    bound.buffers.assign(kernel->args.size(), nullptr);
    bound.patches.clear();
    std::size_t workspace = 0;
    for (std::size_t a = 0; a < kernel->args.size(); ++a) {
      const ValueId v = kernel->args[a];
      if (v == kWorkspace) {
        bound.buffers[a] = b.address(arena, bound.first_workspace + workspace++);
        continue;
      }
      std::int64_t offset = 0;
      ValueId r = v;
      for (; data.values[static_cast<std::size_t>(r)].place == Place::Alias;
           r = data.values[static_cast<std::size_t>(r)].index) {
        const ValueInfo& alias = data.values[static_cast<std::size_t>(r)];
        offset += bytes(alias.type.dtype, alias.offset.eval(b.env));
      }
      const Place place = data.values[static_cast<std::size_t>(r)].place;
      if (place == Place::Input || place == Place::Output || place == Place::Held)
        bound.patches.push_back({static_cast<int>(a), r, offset});
      else
        bound.buffers[a] = address(r) + offset;
    }
  }
  b.epoch = epoch;
}

std::byte* Context::State::address(ValueId v) const {
  const ValueInfo& info = data.values[static_cast<std::size_t>(v)];
  const auto index = static_cast<std::size_t>(info.index);
  switch (info.place) {
    case Place::Input:
      return static_cast<std::byte*>(inputs[index]->data());
    case Place::Output:
      return static_cast<std::byte*>(outputs[index].data());
    case Place::Constant:
      return static_cast<std::byte*>(data.constants[index].data());
    case Place::Prepared:
      return static_cast<std::byte*>(prepared->values[index].data());
    case Place::Held:
      return static_cast<std::byte*>(held[index].data());
    case Place::Alias:
      return address(info.index) + bytes(info.type.dtype, info.offset.eval(env()));
    case Place::Temp:
      break;
  }
  const TempLife& life = data.temps[static_cast<std::size_t>(v)];
  const Memory& m = segments[static_cast<std::size_t>(life.segment)];
  return m.active->address(working->arena(static_cast<std::size_t>(life.segment)),
                           static_cast<std::size_t>(life.position));
}

const DimEnv& Context::State::env() const {
  // The latest segment that is active in this run knows the most.
  const Memory* latest = &segments[0];
  for (const Memory& m : segments)
    if (m.active && m.active->used == runs) latest = &m;
  return latest->active->env;
}

Dims Context::State::dims(ValueId v) const {
  const ValueInfo& info = data.values[static_cast<std::size_t>(v)];
  if (info.place == Place::Held) return held[static_cast<std::size_t>(info.index)].dims();
  return eval(info.type.shape, env());
}

Tensor Context::State::view(ValueId v) const {
  return Tensor::wrap(data.values[static_cast<std::size_t>(v)].type.dtype, dims(v), address(v), nullptr);
}

void Context::State::take_output(int output) {
  Tensor& to = outputs[static_cast<std::size_t>(output)];
  handover->take(output, to);
  const Port& port = data.outputs[static_cast<std::size_t>(output)];
  check_memory(port, eval(port.type.shape, env()), to);
}

void Context::State::take_outputs(const Binding& b) {
  if (handover) return;  // the steps that write them do
  for (const auto& [k, wanted] : b.outputs) {
    Tensor& out = outputs[static_cast<std::size_t>(k)];
    const Port& port = data.outputs[static_cast<std::size_t>(k)];
    if (!out.defined())
      out = Tensor(port.type.dtype, wanted);
    else if (out.dtype() != port.type.dtype || out.dims() != wanted)
      throw Error(
          Code::InvalidArgument, "run", "",
          "memory for output \"" + port.name + "\" of " + std::string(name(port.type.dtype)) + str(wanted),
          type_of(out));
  }
}

void Context::State::copy(const CopyStep& step) {
  const Type& type = data.values[static_cast<std::size_t>(step.from)].type;
  const auto size = static_cast<std::size_t>(bytes(type.dtype, numel(dims(step.from))));
  const std::byte* from = address(step.from);
  std::byte* to = address(step.to);
  executor->parallel_for(static_cast<std::int64_t>((size + kCopyBytes - 1) / kCopyBytes), 1,
                         [&](std::int64_t begin, std::int64_t end, int /*worker*/) {
                           const auto first = static_cast<std::size_t>(begin) * kCopyBytes;
                           const auto last = std::min(size, static_cast<std::size_t>(end) * kCopyBytes);
                           std::memcpy(to + first, from + first, last - first);
                         });
}

void Context::State::run_step(int index, BoundStep& bound) {
  const Step& step = data.steps[static_cast<std::size_t>(index)];
  if (const auto* kernel = std::get_if<KernelStep>(&step.work)) {
    for (const Patch& p : bound.patches)
      bound.buffers[static_cast<std::size_t>(p.arg)] = address(p.value) + p.offset;
    const std::int32_t status = launch(*kernel->kernel, bound.shape, bound.dims.data(), bound.buffers.data(),
                                       *executor, working->scratch(), bound.work_ns, recorder);
    if (status != 0) throw_status(step.info, kernel->messages, status);
  } else if (const auto* copying = std::get_if<CopyStep>(&step.work)) {
    copy(*copying);
  } else if (const auto* defining = std::get_if<DefineStep>(&step.work)) {
    define(step, *defining);
  } else if (const auto* branching = std::get_if<BranchStep>(&step.work)) {
    branch(index, step, *branching);
  } else if (const auto* looping = std::get_if<LoopStep>(&step.work)) {
    loop(index, step, *looping);
  } else if (const auto* hosted = std::get_if<HostStep>(&step.work)) {
    host(index, step, *hosted);
  }
}

void Context::State::run_segment(int index) {
  const Segment& segment = data.segments[static_cast<std::size_t>(index)];
  activate(index);
  Binding& b = *segments[static_cast<std::size_t>(index)].active;
  take_outputs(b);
  defined.clear();
  for (int i = segment.begin; i < segment.end; ++i) {
    const Step& step = data.steps[static_cast<std::size_t>(i)];
    const StepInfo& info = step.info;
    const StepPorts& ports = data.ports[static_cast<std::size_t>(i)];
    BoundStep& bound = b.steps[static_cast<std::size_t>(i - segment.begin)];
    const bool timed = trace || recorder;
    const std::int64_t begin = timed ? now_ns() : 0;
    if (handover)
      for (const int k : ports.first_of_outputs) take_output(k);
    try {
      run_step(i, bound);
    } catch (const Error& e) {
      throw e.with_context(info.op, info.source);
    }
    if (handover)
      for (const int k : ports.last_of_inputs) handover->release(k);
    if (!timed) continue;
    const std::int64_t end = now_ns();
    if (trace)
      trace(trace_user, {info.name.c_str(), info.source.c_str(), begin, end, bound.flops, bound.bytes});
    if (recorder) recorder->step(*this, step, bound, begin, end);
  }
}

void Context::State::give_held(std::span<Tensor> results) {
  for (std::size_t k = 0; k < results.size(); ++k) {
    const ValueInfo& info = data.values[static_cast<std::size_t>(data.output_values[k])];
    if (info.place != Place::Held) continue;
    const Tensor& made = held[static_cast<std::size_t>(info.index)];
    if (handover) handover->take(static_cast<int>(k), results[k]);
    if (!results[k].defined()) {
      results[k] = made;
      continue;
    }
    check_memory(data.outputs[k], made.dims(), results[k]);
    if (made.bytes() > 0) std::memcpy(results[k].data(), made.data(), made.bytes());
  }
}

void Context::State::run(std::span<const Tensor> given, std::span<Tensor> results,
                         const Handover* hand_over) {
  if (results.size() != data.outputs.size())
    throw Error(Code::InvalidArgument, "run", "", std::to_string(data.outputs.size()) + " outputs",
                std::to_string(results.size()));
  const Lease lease(stamp);
  working = &*lease;
  ++runs;
  take_inputs(given);
  outputs = results;
  handover = hand_over;
  prepare(given);
  for (int s = 0; s < static_cast<int>(data.segments.size()); ++s) run_segment(s);
  give_held(results);
  for (Tensor& t : held) t = {};
}

Context::Context(Executable executable, std::shared_ptr<Executor> executor) {
  check(static_cast<bool>(executable), "a context of an executable");
  state_ = std::make_unique<State>(executable.share(), std::move(executor));
}
Context::~Context() = default;
Context::Context(Context&&) noexcept = default;
Context& Context::operator=(Context&&) noexcept = default;

void Context::set_parameter(int input, Tensor value, std::uint64_t version) {
  check(input >= 0 && static_cast<std::size_t>(input) < state_->parameters.size(), "a number of an input");
  const Port& port = state_->data.inputs[static_cast<std::size_t>(input)];
  if (port.role != Role::Parameter) throw bad_input(port, "it is a parameter", "an argument");
  state_->parameters[static_cast<std::size_t>(input)] = {std::move(value), version};
}

void Context::run(std::span<const Tensor> inputs, std::span<Tensor> outputs) { state_->run(inputs, outputs); }

void Context::run(std::span<const Tensor> inputs, std::span<Tensor> outputs, const Handover& handover) {
  state_->run(inputs, outputs, &handover);
}

void Context::set_trace(TraceFn trace, void* user) {
  state_->trace = trace;
  state_->trace_user = user;
}

std::size_t Context::arena_bytes() const {
  std::int64_t sum = 0;
  for (const State::Memory& m : state_->segments)
    if (m.active) sum += m.active->arena_bytes;
  return static_cast<std::size_t>(sum);
}

void Context::warm() const {
  const Lease working(state_->stamp);
  for (std::size_t i = 0; i < state_->segments.size(); ++i) {
    const Binding* active = state_->segments[i].active;
    if (active && working->stamp() == state_->stamp) read_lines(working->arena(i), active->arena_bytes);
  }
  working->scratch().warm();
}

}  // namespace deepseek
