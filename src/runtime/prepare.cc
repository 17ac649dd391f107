#include "runtime/prepare.h"

#include <cstring>

#include "runtime/launch.h"

namespace deepseek {
namespace {

// The tensor of a value, made when it is first named.
Tensor tensor_of(const std::vector<ValueInfo>& values, ValueId v, KnownValues& known) {
  const ValueInfo& info = values[static_cast<std::size_t>(v)];
  if (info.place == Place::Alias) {
    const Tensor base = tensor_of(values, info.index, known);
    auto* data = static_cast<std::byte*>(base.data()) + bytes(info.type.dtype, info.offset.value());
    return Tensor::wrap(info.type.dtype, static_dims(info.type.shape), data, std::make_shared<Tensor>(base));
  }
  if (const auto it = known.find(v); it != known.end()) return it->second;
  check(info.place != Place::Input, "a prepare step reads parameters and constants only");
  return known.emplace(v, Tensor(info.type.dtype, static_dims(info.type.shape))).first->second;
}

void run_step(const std::vector<ValueInfo>& values, const Step& step, KnownValues& known,
              Executor& executor) {
  if (const auto* copy = std::get_if<CopyStep>(&step.work)) {
    const Tensor from = tensor_of(values, copy->from, known), to = tensor_of(values, copy->to, known);
    check(from.bytes() == to.bytes(), "a copy between values of one size");
    std::memcpy(to.data(), from.data(), from.bytes());
  } else if (const auto* host = std::get_if<HostStep>(&step.work)) {
    std::vector<Tensor> inputs;
    for (const ValueId v : host->inputs) inputs.push_back(tensor_of(values, v, known));
    std::vector<Tensor> outputs = host->run(inputs);
    check(outputs.size() == host->outputs.size(), "a host step gives as many tensors as it has outputs");
    for (std::size_t i = 0; i < outputs.size(); ++i) known[host->outputs[i]] = std::move(outputs[i]);
  } else {
    const auto* kernel = std::get_if<KernelStep>(&step.work);
    check(kernel != nullptr, "a prepare step is a kernel, a copy or a host step");
    const Dims dims = eval(kernel->dims, {});
    const KernelShape shape = kernel->kernel->shape(dims);
    std::vector<Tensor> held;
    std::vector<void*> buffers;
    std::size_t workspace = 0;
    for (const ValueId v : kernel->args) {
      held.push_back(v == kWorkspace ? Tensor(DType::U8, {shape.workspace_bytes.at(workspace++)})
                                     : tensor_of(values, v, known));
      buffers.push_back(held.back().data());
    }
    Scratch scratch;
    scratch.reserve(most_scratch(shape), executor.threads());
    const double work =
        work_ns(static_cast<double>(step.info.flops.eval({})), static_cast<double>(step.info.bytes.eval({})));
    const std::int32_t status =
        launch(*kernel->kernel, shape, dims.data(), buffers.data(), executor, scratch, work);
    if (status != 0) throw_status(step.info, kernel->messages, status);
  }
}

}  // namespace

void run_prepare_steps(const std::vector<ValueInfo>& values, std::span<const Step> steps, KnownValues& known,
                       Executor& executor) {
  for (const Step& step : steps) {
    try {
      run_step(values, step, known, executor);
    } catch (const Error& e) {
      throw e.with_context(step.info.op, step.info.source);
    }
  }
}

std::shared_ptr<const Prepared> prepared_for(const ExecutableData& data, std::span<const Tensor> inputs,
                                             std::span<const std::uint64_t> versions, bool fresh,
                                             Executor& executor) {
  const auto is_current = [&](const Prepared& p) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < data.inputs.size(); ++i)
      if (data.inputs[i].role == Role::Parameter &&
          p.key[at++] != std::pair<const void*, std::uint64_t>(inputs[i].data(), versions[i]))
        return false;
    return true;
  };
  if (!fresh) {
    const std::lock_guard lock(data.shared->mutex);
    if (data.shared->prepared && is_current(*data.shared->prepared)) return data.shared->prepared;
  }
  auto made = std::make_shared<Prepared>();
  KnownValues known;
  for (std::size_t i = 0; i < data.inputs.size(); ++i) {
    if (data.inputs[i].role != Role::Parameter) continue;
    known[data.input_values[i]] = inputs[i];
    // What was made from arrays without a version is never taken for current.
    made->key.emplace_back(fresh ? nullptr : inputs[i].data(), versions[i]);
    made->parameters.push_back(inputs[i]);
  }
  for (std::size_t v = 0; v < data.values.size(); ++v)
    if (data.values[v].place == Place::Constant && data.values[v].index >= 0)
      known[static_cast<ValueId>(v)] = data.constants[static_cast<std::size_t>(data.values[v].index)];
  run_prepare_steps(data.values, data.prepare, known, executor);
  made->values.resize(static_cast<std::size_t>(data.prepared_count));
  for (std::size_t v = 0; v < data.values.size(); ++v)
    if (data.values[v].place == Place::Prepared && data.values[v].index >= 0)
      made->values[static_cast<std::size_t>(data.values[v].index)] = known.at(static_cast<ValueId>(v));
  if (!fresh) {
    const std::lock_guard lock(data.shared->mutex);
    data.shared->prepared = made;
  }
  return made;
}

}  // namespace deepseek
