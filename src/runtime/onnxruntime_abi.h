// What we need of ONNX Runtime's C interface, so that neither its headers nor its library are needed to build.
//
// ONNX Runtime gives a table of functions which only grows at its end: a place in it keeps its meaning. We give it
// OrtCustomOp, whose `version` says how many of its members are there. Statuses are null for success.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "deepseek/error.h"
#include "deepseek/shape.h"

namespace deepseek::onnxruntime {

// ONNX Runtime's own objects.
struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;

inline constexpr std::uint32_t kVersion = 16;  // the first with kernels that return statuses

using Function = void (*)();
struct ApiBase {
  const Function* (*api)(std::uint32_t version);  // null for a version that it lacks
  const char* (*version)();
};

enum class Arity : int { Required, Optional, Variadic };

struct CustomOp {
  std::uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Function* api, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*execution_provider)(const CustomOp*);  // null: the CPU
  int (*input_type)(const CustomOp*, std::size_t);     // 0: any
  std::size_t (*input_count)(const CustomOp*);
  int (*output_type)(const CustomOp*, std::size_t);
  std::size_t (*output_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy_kernel)(void* kernel);
  Arity (*input_arity)(const CustomOp*, std::size_t);
  Arity (*output_arity)(const CustomOp*, std::size_t);
  int (*input_memory)(const CustomOp*, std::size_t);  // 0: the provider's
  int (*least_inputs)(const CustomOp*);               // of variadic ones
  int (*inputs_of_one_type)(const CustomOp*);
  int (*least_outputs)(const CustomOp*);
  int (*outputs_of_one_type)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Function* api, const KernelInfo*, void** kernel);
  Status* (*compute_v2)(void* kernel, KernelContext*);
};

// The table's functions that we call, with their places. What fails throws Error{Internal} with ONNX Runtime's message.
class Api {
 public:
  explicit Api(const Function* table) : table_(table) {}

  Status* status(const char* message) const {
    constexpr int kFail = 1;
    return at<Status*(int, const char*)>(0)(kFail, message);
  }
  CustomOpDomain* create_domain(const char* name) const {
    CustomOpDomain* made = nullptr;
    need(at<Status*(const char*, CustomOpDomain**)>(26)(name, &made));
    return made;
  }
  void add_op(CustomOpDomain* domain, const CustomOp* op) const {
    need(at<Status*(CustomOpDomain*, const CustomOp*)>(27)(domain, op));
  }
  void add_domain(SessionOptions* options, CustomOpDomain* domain) const {
    need(at<Status*(SessionOptions*, CustomOpDomain*)>(28)(options, domain));
  }
  void* data(Value* tensor) const {
    void* data = nullptr;
    need(at<Status*(Value*, void**)>(51)(tensor, &data));
    return data;
  }
  int element_type(const TensorInfo* info) const {
    int type = 0;
    need(at<Status*(const TensorInfo*, int*)>(60)(info, &type));
    return type;
  }
  Dims dims(const TensorInfo* info) const {
    std::size_t rank = 0;
    need(at<Status*(const TensorInfo*, std::size_t*)>(61)(info, &rank));
    Dims dims(rank);
    need(at<Status*(const TensorInfo*, std::int64_t*, std::size_t)>(62)(info, dims.data(), rank));
    return dims;
  }
  TensorInfo* info(const Value* tensor) const {
    TensorInfo* info = nullptr;
    need(at<Status*(const Value*, TensorInfo**)>(65)(tensor, &info));
    return info;
  }
  std::string attribute(const KernelInfo* info, const char* name) const {
    const auto read = at<Status*(const KernelInfo*, const char*, char*, std::size_t*)>(87);
    std::size_t size = 0;  // with a zero at the end
    need(read(info, name, nullptr, &size));
    std::string value(size, '\0');
    need(read(info, name, value.data(), &size));
    value.resize(size - 1);
    return value;
  }
  std::size_t inputs(const KernelContext* context) const { return count(88, context); }
  std::size_t outputs(const KernelContext* context) const { return count(89, context); }
  Value* input(const KernelContext* context, std::size_t i) const {
    const Value* value = nullptr;
    need(at<Status*(const KernelContext*, std::size_t, const Value**)>(90)(context, i, &value));
    return const_cast<Value*>(value);  // NOLINT: data() is one function for what is read and written
  }
  Value* output(KernelContext* context, std::size_t i, const Dims& dims) const {
    Value* value = nullptr;
    need(at<Status*(KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**)>(91)(
        context, i, dims.data(), dims.size(), &value));
    return value;
  }
  void release(TensorInfo* info) const { at<void(TensorInfo*)>(99)(info); }

 private:
  const Function* table_;

  template <class F>
  F* at(int place) const {
    return reinterpret_cast<F*>(table_[place]);  // NOLINT
  }
  std::size_t count(int place, const KernelContext* context) const {
    std::size_t n = 0;
    need(at<Status*(const KernelContext*, std::size_t*)>(place)(context, &n));
    return n;
  }
  void need(Status* status) const {
    if (!status) return;
    const std::string message = at<const char*(const Status*)>(2)(status);
    at<void(Status*)>(93)(status);
    throw Error(Code::Internal, "onnxruntime", "", "success", message);
  }
};

}  // namespace deepseek::onnxruntime
