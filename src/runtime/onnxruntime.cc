// ONNX Runtime's custom op deepseek:Executable, which runs the executable whose bytes its attribute `executable` holds.
// A session whose options registered this library (RegisterCustomOps is what it looks for) may have it among its nodes.
#include "deepseek/onnxruntime.h"

#include <dlfcn.h>

#include <map>
#include <memory>

#include "deepseek/executable.h"
#include "runtime/executable.h"
#include "runtime/onnxruntime_abi.h"

namespace deepseek::onnxruntime {
namespace {

struct Kernel {
  Api api;
  Executable executable;
};

// By ONNX's number of an element type.
std::optional<DType> dtype_of(int type) {
  switch (type) {
    case 1:
      return DType::F32;
    case 2:
      return DType::U8;
    case 3:
      return DType::I8;
    case 4:
      return DType::U16;
    case 5:
      return DType::I16;
    case 6:
      return DType::I32;
    case 7:
      return DType::I64;
    case 9:
      return DType::Bool;
    case 10:
      return DType::F16;
    case 11:
      return DType::F64;
    case 12:
      return DType::U32;
    case 13:
      return DType::U64;
    case 16:
      return DType::BF16;
    default:
      return std::nullopt;
  }
}

std::string described(const Port& port) {
  return "input \"" + port.name + "\" of " + std::string(name(port.type.dtype)) + str(port.type.shape);
}

// The tensor's memory; `dims` and `dtype` are its own.
Tensor wrap(const Api& api, Value* value, DType dtype, Dims dims) {
  static std::byte nothing{};  // where a tensor without elements lies
  void* data = api.data(value);
  return Tensor::wrap(dtype, std::move(dims), data ? data : &nothing, nullptr);
}

Tensor input(const Api& api, const KernelContext* context, const Port& port, std::size_t i) {
  Value* value = api.input(context, i);
  TensorInfo* info = api.info(value);
  const int type = api.element_type(info);
  Dims dims = api.dims(info);
  api.release(info);
  const auto dtype = dtype_of(type);
  if (!dtype || dims.size() != port.type.shape.size())
    throw Error(Code::InvalidArgument, "onnxruntime", port.source, described(port),
                "dims " + str(dims) + " of ONNX's element type " + std::to_string(type));
  return wrap(api, value, *dtype, std::move(dims));
}

bool all_known(const Shape& shape, const DimEnv& env) {
  std::vector<std::string> symbols;
  for (const Dim& d : shape) d.symbols(symbols);
  return std::all_of(symbols.begin(), symbols.end(), [&](const std::string& s) { return env.contains(s); });
}

// The symbols that the inputs' dims give. What contradicts them is found by the run.
DimEnv known_dims(const ExecutableData& data, const std::vector<Tensor>& inputs) {
  DimEnv env;
  apply_bind_rules(
      data.input_rules,
      [&](int i, int axis) {
        return inputs[static_cast<std::size_t>(i)].dims().at(static_cast<std::size_t>(axis));
      },
      env,
      [&](int i, const std::string& because) {
        const Port& port = data.inputs[static_cast<std::size_t>(i)];
        return Error(Code::InvalidArgument, "run", port.source,
                     described(port) + (because.empty() ? "" : " where " + because),
                     str(inputs[static_cast<std::size_t>(i)].dims()));
      });
  return env;
}

void run(const Kernel& kernel, KernelContext* context) {
  const Api& api = kernel.api;
  const std::vector<Port>& ins = kernel.executable.inputs();
  const std::vector<Port>& outs = kernel.executable.outputs();
  if (api.inputs(context) != ins.size() || api.outputs(context) != outs.size())
    throw Error(Code::InvalidArgument, "onnxruntime", "",
                std::to_string(ins.size()) + " inputs and " + std::to_string(outs.size()) + " outputs",
                std::to_string(api.inputs(context)) + " and " + std::to_string(api.outputs(context)));
  std::vector<Tensor> inputs, outputs(outs.size());
  for (std::size_t i = 0; i < ins.size(); ++i) inputs.push_back(input(api, context, ins[i], i));
  const auto memory = [&](std::size_t i, const Dims& dims) {
    return wrap(api, api.output(context, i, dims), outs[i].type.dtype, dims);
  };
  const DimEnv env = known_dims(kernel.executable.data(), inputs);
  std::vector<std::size_t> late;  // outputs whose sizes the run finds
  for (std::size_t i = 0; i < outs.size(); ++i) {
    if (all_known(outs[i].type.shape, env))
      outputs[i] = memory(i, eval(outs[i].type.shape, env));
    else
      late.push_back(i);
  }
  kernel.executable.run(inputs, outputs);
  for (const std::size_t i : late)
    if (outputs[i].bytes() != 0)
      std::memcpy(memory(i, outputs[i].dims()).data(), outputs[i].data(), outputs[i].bytes());
    else
      memory(i, outputs[i].dims());
}

// What `f` throws as a status.
template <class F>
Status* guarded(const Api& api, const F& f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    return api.status(e.what());
  }
}

constexpr CustomOp kExecutable{
    .version = kVersion,
    .create_kernel = nullptr,
    .name = [](const CustomOp*) { return "Executable"; },
    .execution_provider = [](const CustomOp*) -> const char* { return nullptr; },
    .input_type = [](const CustomOp*, std::size_t) { return 0; },
    .input_count = [](const CustomOp*) -> std::size_t { return 1; },
    .output_type = [](const CustomOp*, std::size_t) { return 0; },
    .output_count = [](const CustomOp*) -> std::size_t { return 1; },
    .compute = nullptr,
    .destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); },  // NOLINT: made below
    .input_arity = [](const CustomOp*, std::size_t) { return Arity::Variadic; },
    .output_arity = [](const CustomOp*, std::size_t) { return Arity::Variadic; },
    .input_memory = [](const CustomOp*, std::size_t) { return 0; },
    .least_inputs = [](const CustomOp*) { return 0; },
    .inputs_of_one_type = [](const CustomOp*) { return 0; },
    .least_outputs = [](const CustomOp*) { return 1; },
    .outputs_of_one_type = [](const CustomOp*) { return 0; },
    .create_kernel_v2 =
        [](const CustomOp*, const Function* table, const KernelInfo* info, void** kernel) {
          const Api api(table);
          return guarded(api, [&] {
            const std::string bytes = api.attribute(info, "executable");
            *kernel = new Kernel{api, Executable::from_bytes(std::as_bytes(std::span(bytes)))};  // NOLINT
          });
        },
    .compute_v2 =
        [](void* kernel, KernelContext* context) {
          const auto& k = *static_cast<const Kernel*>(kernel);
          return guarded(k.api, [&] { run(k, context); });
        },
};

}  // namespace
}  // namespace deepseek::onnxruntime

using namespace deepseek::onnxruntime;

extern "C" Status* RegisterCustomOps(SessionOptions* options,
                                     const ApiBase* base) {  // NOLINT: ONNX Runtime's name
  const Function* table = base->api(kVersion);
  if (!table) return nullptr;  // older than this interface: the model's nodes will be unknown to it
  const Api api(table);
  return guarded(api, [&] {
    // Sessions refer to it for as long as they live.
    static CustomOpDomain* const domain = [&] {
      CustomOpDomain* made = api.create_domain("deepseek");
      api.add_op(made, &kExecutable);
      return made;
    }();
    api.add_domain(options, domain);
  });
}

namespace deepseek {

std::string onnxruntime_library() {
  Dl_info info;
  check(dladdr(reinterpret_cast<const void*>(&RegisterCustomOps), &info) != 0, "a library of our own");
  return info.dli_fname;
}

}  // namespace deepseek
