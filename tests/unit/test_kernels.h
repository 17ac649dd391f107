// Kernels written as C++ functions, for tests of the runtime.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "deepseek/executable.h"
#include "runtime/builder.h"

namespace deepseek::test_kernels {

using Dim64 = std::int64_t;

// A one-phase kernel: f(buffers, dims, i) for each i of the grid, which is dims[0] * width.
class TestKernel : public Kernel {
 public:
  using Body = std::function<std::int32_t(void* const*, const Dim64*, Dim64)>;
  TestKernel(Body body, Dim64 width = 1, std::vector<Dim64> workspaces = {})
      : body_(std::move(body)), width_(width), workspaces_(std::move(workspaces)) {}
  KernelShape shape(std::span<const Dim64> dims) const override {
    return {{dims.empty() ? width_ : dims[0] * width_}, {256}, workspaces_};
  }
  void run(int, void* const* buffers, const Dim64* dims, Dim64 begin, Dim64 end, std::byte* scratch,
           std::int32_t* status) const override {
    std::memset(scratch, 0x5a, 256);
    for (Dim64 i = begin; i < end; ++i)
      if (const std::int32_t code = body_(buffers, dims, i); code != 0 && *status == 0) *status = code;
  }

 private:
  Body body_;
  Dim64 width_;
  std::vector<Dim64> workspaces_;
};

inline float* f32(void* const* buffers, int i) { return static_cast<float*>(buffers[i]); }

inline std::shared_ptr<const Kernel> unary(std::function<float(float)> f) {
  return std::make_shared<TestKernel>([f](void* const* b, const Dim64*, Dim64 i) {
    f32(b, 1)[i] = f(f32(b, 0)[i]);
    return 0;
  });
}

inline std::shared_ptr<const Kernel> add() {
  return std::make_shared<TestKernel>([](void* const* b, const Dim64*, Dim64 i) {
    f32(b, 2)[i] = f32(b, 0)[i] + f32(b, 1)[i];
    return 0;
  });
}

inline const Dim N = Dim::symbol("N"), M = Dim::symbol("M");
inline const Type kVector = {DType::F32, {N}};

inline Tensor vec(std::vector<float> values) {
  return Tensor::of<float>(DType::F32, {static_cast<Dim64>(values.size())}, values);
}
inline std::vector<float> list(const Tensor& t) {
  const auto s = t.as<float>();
  return {s.begin(), s.end()};
}
inline StepInfo info(std::string name) { return {name, name, "model.py:7", 0, 0}; }

// y = (x + 1) * 2 by a chain of `length` pairs of steps.
inline Executable chain(int length) {
  ExecutableBuilder b;
  ValueId v = b.input("x", kVector);
  for (int i = 0; i < length; ++i) {
    const ValueId more = b.temp(kVector), twice = b.temp(kVector);
    b.kernel(Phase::Run, info("inc"), {unary([](float x) { return x + 1; }), {N}, {v, more}, {}});
    b.kernel(Phase::Run, info("double"), {unary([](float x) { return x * 2; }), {N}, {more, twice}, {}});
    v = twice;
  }
  b.output("y", v);
  b.threads(2);
  return b.finish();
}

}  // namespace deepseek::test_kernels
