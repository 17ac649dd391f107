// Steps that run other executables or the host, and steps that define symbols.
#include <algorithm>
#include <cstring>

#include "runtime/context.h"

namespace deepseek {
namespace {

Tensor copy_of(const Tensor& t) {
  Tensor r(t.dtype(), t.dims());
  if (r.bytes() > 0) std::memcpy(r.data(), t.data(), r.bytes());
  return r;
}

// Stores a part of a state, whose first element comes to `place`.
void store_part(Tensor& state, const Tensor& part, const Tensor& place, const StepInfo& info) {
  const Dims &whole = state.dims(), &box = part.dims();
  bool fits = whole.size() == box.size() && state.dtype() == part.dtype();
  for (std::size_t i = 0; fits && i < box.size(); ++i) fits = box[i] <= whole[i];
  if (!fits)
    throw Error(Code::InvalidArgument, info.op, info.source,
                "a part of " + std::string(name(state.dtype())) + str(whole),
                std::string(name(part.dtype())) + str(box));
  if (part.bytes() == 0) return;
  const std::vector<std::int64_t> start = place.to_int64();
  // From some axis on the part has all of the state: what that holds is moved at once.
  std::size_t axis = box.size();
  while (axis > 0 && box[axis - 1] == whole[axis - 1]) --axis;
  if (axis > 0) --axis;
  std::int64_t first = 0, runs = 1, run = bits(part.dtype()) / 8;
  for (std::size_t i = 0; i < box.size(); ++i) {
    first = first * whole[i] + std::clamp<std::int64_t>(start[i], 0, whole[i] - box[i]);
    (i < axis ? runs : run) *= box[i];
  }
  auto* to = static_cast<std::byte*>(state.data()) + first * bits(part.dtype()) / 8;
  const auto* from = static_cast<const std::byte*>(part.data());
  std::int64_t inner = bits(part.dtype()) / 8;  // bytes of the state behind one index of `axis - 1`
  for (std::size_t i = axis; i < box.size(); ++i) inner *= whole[i];
  for (std::int64_t r = 0; r < runs; ++r) {
    std::int64_t rest = r, stride = inner, offset = 0;
    for (std::size_t i = axis; i-- > 0; rest /= box[i], stride *= whole[i]) offset += rest % box[i] * stride;
    std::memcpy(to + offset, from + r * run, static_cast<std::size_t>(run));
  }
}

}  // namespace

Context& Context::State::child(int step, int which, const std::shared_ptr<const ExecutableData>& executable) {
  auto& made = children[{step, which}];
  if (!made) made = std::make_unique<Context>(Executable(executable), executor);
  made->state_->recorder = recorder;
  return *made;
}

bool Context::State::truth(const Tensor& t, const StepInfo& info) const {
  if (t.numel() != 1)
    throw Error(Code::InvalidArgument, info.op, info.source, "a condition of one element", str(t.dims()));
  return t.at(0) != 0;
}

void Context::State::hold(int index, const Step& step, std::span<const ValueId> ids,
                          std::vector<Tensor> made) {
  check(made.size() == ids.size(), "a step gives as many tensors as it has outputs");
  const auto mismatch = [&](std::size_t i, const std::string& because) {
    const Type& type = data.values[static_cast<std::size_t>(ids[i])].type;
    return Error(Code::InvalidArgument, step.info.op, step.info.source,
                 "result " + std::to_string(i) + " of " + std::string(name(type.dtype)) + str(type.shape) +
                     (because.empty() ? "" : " where " + because),
                 std::string(name(made[i].dtype())) + str(made[i].dims()));
  };
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Type& type = data.values[static_cast<std::size_t>(ids[i])].type;
    if (made[i].dtype() != type.dtype || made[i].dims().size() != type.shape.size()) throw mismatch(i, "");
  }
  DimEnv known = env();
  for (const auto& [symbol, value] : defined) known[symbol] = value;
  apply_bind_rules(
      data.step_rules.at(index),
      [&](int i, int axis) {
        return made[static_cast<std::size_t>(i)].dims()[static_cast<std::size_t>(axis)];
      },
      known,
      [&](int i, const std::string& because) { return mismatch(static_cast<std::size_t>(i), because); });
  if (const auto it = data.step_symbols.find(index); it != data.step_symbols.end())
    for (const std::string& symbol : it->second) {
      const std::int64_t value = known.find(symbol)->second;
      defined.emplace_back(symbol, value);
      key.push_back(value);
    }
  for (std::size_t i = 0; i < ids.size(); ++i)
    held[static_cast<std::size_t>(data.values[static_cast<std::size_t>(ids[i])].index)] = std::move(made[i]);
}

void Context::State::define(const Step& step, const DefineStep& work) {
  const std::vector<std::int64_t> values = view(work.values).to_int64();
  if (values.size() != work.symbols.size())
    throw Error(Code::InvalidArgument, step.info.op, step.info.source,
                std::to_string(work.symbols.size()) + " elements", std::to_string(values.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    defined.emplace_back(work.symbols[i], values[i]);
    key.push_back(values[i]);
  }
}

void Context::State::branch(int index, const Step& step, const BranchStep& work) {
  const bool taken = truth(view(work.condition), step.info);
  std::vector<Tensor> arguments;
  for (const ValueId v : work.inputs) arguments.push_back(view(v));
  std::vector<Tensor> results(work.outputs.size());
  child(index, taken ? 0 : 1, taken ? work.then : work.otherwise).run(arguments, results);
  hold(index, step, work.outputs, std::move(results));
}

void Context::State::loop(int index, const Step& step, const LoopStep& work) {
  const std::size_t states = work.initial.size();
  std::vector<Tensor> arguments;
  for (const ValueId v : work.initial) arguments.push_back(view(v));
  for (const ValueId v : work.captured) arguments.push_back(view(v));
  Context& condition = child(index, 0, work.condition);
  Context& body = child(index, 1, work.body);
  bool iterated = false;  // from then on the state is no longer the caller's memory
  for (;;) {
    Tensor go_on[1];
    condition.run(arguments, go_on);
    if (!truth(go_on[0], step.info)) break;
    std::vector<Tensor> results(states + work.parts.size());
    body.run(arguments, results);
    for (std::size_t i = 0; i < work.parts.size(); ++i) {
      const auto state = static_cast<std::size_t>(work.parts[i]);
      Tensor whole = iterated ? std::move(arguments[state]) : copy_of(arguments[state]);
      store_part(whole, results[state], results[states + i], step.info);
      results[state] = std::move(whole);
    }
    for (std::size_t i = 0; i < states; ++i) arguments[i] = std::move(results[i]);
    iterated = true;
  }
  std::vector<Tensor> made;
  for (std::size_t i = 0; i < states; ++i)
    made.push_back(iterated ? std::move(arguments[i]) : copy_of(arguments[i]));
  hold(index, step, work.outputs, std::move(made));
}

void Context::State::host(int index, const Step& step, const HostStep& work) {
  std::vector<Tensor> arguments;
  for (const ValueId v : work.inputs) arguments.push_back(view(v));
  std::vector<Tensor> made = work.run(arguments);
  // A result that is a view of an argument would not outlive this run's memory.
  for (Tensor& t : made)
    for (const Tensor& argument : arguments) {
      const auto *begin = static_cast<std::byte*>(argument.data()), *data = static_cast<std::byte*>(t.data());
      if (t.bytes() > 0 && data >= begin && data < begin + argument.bytes()) {
        t = copy_of(t);
        break;
      }
    }
  hold(index, step, work.outputs, std::move(made));
}

}  // namespace deepseek
