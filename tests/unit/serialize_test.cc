// Saved executables and the loader of object code, with code from the CPU target.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "deepseek/compile.h"
#include "deepseek/executable.h"
#include "loops/interpreter.h"
#include "loops/ir.h"
#include "runtime/builder.h"
#include "runtime/kernel_loader.h"
#include "targets/cpu/isa.h"
#include "targets/llvm/object.h"

namespace deepseek {
namespace {

using namespace loops;

// y[i] = exp(x[i]) * 2 + i, checked to be below a limit; its code needs constants from memory.
Program program() {
  const Expr n = symbol("N");
  const Buffer x = make_buffer("x", DType::F32, Space::Global, n),
               y = make_buffer("y", DType::F32, Space::Global, n);
  const Var i = loop_var("i", n);
  const Expr value = make(Op::Exp, {load(x, var(i))}) * 2.0 + cast(DType::F32, var(i));
  const Stmt body = block({stmt(Store{y, var(i), value, {}}), stmt(Assert{load(x, var(i)) < Expr(50.0), 1})});
  Program p{"kernel", {{x, Access::Read}, {y, Access::Write}}, {"N"}, {"values below 50"}, {}};
  p.body = stmt(For{i, n, LoopKind::Parallel, body});
  return p;
}

KernelImage image() {
  const CpuIsa isa = host_cpu_isa();
  const std::string object = codegen::compile_object(program(), isa.machine);
  const auto* begin = reinterpret_cast<const std::byte*>(object.data());
  return {"elf",
          "kernel",
          1,
          0,
          isa.machine.triple,
          "avx2,fma",
          std::make_shared<const std::vector<std::byte>>(begin, begin + object.size())};
}

const Dim N = Dim::symbol("N"), M = Dim::symbol("M");

Executable executable(const std::shared_ptr<const Kernel>& kernel) {
  ExecutableBuilder inner;
  const ValueId ix = inner.input("x", {DType::F32, {N}}), iy = inner.temp({DType::F32, {N}});
  inner.kernel(deepseek::Phase::Run, {"inner", "exp", "inner.py:1", N, 8 * N},
               {kernel, {N}, {ix, iy}, {"values below 50"}});
  inner.output("y", iy);
  ExecutableBuilder b;
  const ValueId x = b.input("x", {DType::F32, {2, N}}), w = b.input("w", {DType::F32, {4}}, Role::Parameter);
  const ValueId c = b.input("c", {DType::Bool, {}});
  std::vector<float> raw = {1, 2, 3, 4};
  const ValueId k = b.constant(Tensor::of<float>(DType::F32, {4}, raw));
  const ValueId pw = b.temp({DType::F32, {4}}), pk = b.temp({DType::F32, {4}}),
                y = b.temp({DType::F32, {N * 2}});
  b.kernel(deepseek::Phase::Prepare, {"pack_w", "pack", "", 0, 0},
           {kernel, {4}, {w, pw}, {"values below 50"}});
  b.kernel(deepseek::Phase::Prepare, {"pack_k", "pack", "", 0, 0},
           {kernel, {4}, {k, pk}, {"values below 50"}});
  b.kernel(deepseek::Phase::Run, {"main", "exp", "model.py:3", 2 * N, 16 * N},
           {kernel, {2 * N}, {b.alias(x, {DType::F32, {2 * N}}), y}, {"values below 50"}});
  const Executable branch = inner.finish();
  const ValueId z = b.branch({"if", "if", "", 0, 0}, c, branch, branch, {y}, {{DType::F32, {M}}})[0];
  b.output("y", y);
  b.output("z", z);
  b.output("w", pw);
  b.output("k", pk);
  b.equal({M, 2 * N, "mul", "model.py:9"});
  b.threads(2);
  b.target("cpu");
  b.note("a note");
  return b.finish();
}

NamedTensors inputs() {
  Tensor x(DType::F32, {2, 5}), w(DType::F32, {4});
  for (int i = 0; i < 10; ++i) x.set(i, 0.1 * i - 0.5);
  for (int i = 0; i < 4; ++i) w.set(i, i);
  return {{"x", x}, {"w", w}, {"c", Tensor::zeros(DType::Bool, {})}};
}

class Serialize : public testing::Test {
 protected:
  std::string path_ = testing::TempDir() + "deepseek_serialize_test_" + std::to_string(getpid()) + ".dsx";
  void TearDown() override { std::filesystem::remove(path_); }
};

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write(const std::string& path, const std::string& data) {
  std::ofstream(path, std::ios::binary).write(data.data(), static_cast<std::streamsize>(data.size()));
}

Code code_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  return Code::Ok;
}

TEST(ElfLoader, RunsWhatTheInterpreterRuns) {
  const auto kernel = load_kernel(image()), reference = interpret(program());
  for (const std::int64_t n : {1, 7, 64, 1001}) {
    std::vector<float> x(static_cast<std::size_t>(n)), y(x), want(x);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    const std::int64_t dims[] = {n};
    const KernelShape shape = kernel->shape(dims);
    EXPECT_EQ(shape.grid, reference->shape(dims).grid);
    std::int32_t status = 0;
    alignas(64) std::byte scratch[4096];
    ASSERT_LE(shape.scratch_bytes[0], 4096);
    void* got[] = {x.data(), y.data()};
    void* wanted[] = {x.data(), want.data()};
    kernel->run(0, got, dims, 0, shape.grid[0], scratch, &status);
    EXPECT_EQ(status, 0);
    reference->run(0, wanted, dims, 0, shape.grid[0], scratch, &status);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], want[i], 1e-5 * std::abs(want[i])) << i;
  }
}

TEST(ElfLoader, DamageIsAnError) {
  const KernelImage good = image();
  const std::vector<std::byte>& object = *good.code;
  EXPECT_EQ(code_of([&] { load_elf({}); }), Code::DataLoss);
  for (const std::size_t size : {std::size_t{1}, std::size_t{63}, object.size() / 2, object.size() - 1})
    EXPECT_EQ(code_of([&] { load_elf({object.data(), size}); }), Code::DataLoss) << size;
  std::mt19937 rng(5);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::byte> bad = object;
    // Headers, section table and symbols are where damage could lead astray.
    for (int k = 0; k < 3; ++k) bad[rng() % bad.size()] = static_cast<std::byte>(rng());
    if (code_of([&] { load_elf(bad); }) != Code::Ok) ++refused;
  }
  EXPECT_GT(refused, 0);
  KernelImage other = good;
  other.name = "nothing";
  EXPECT_EQ(code_of([&] { load_kernel(other); }), Code::DataLoss);
  other = good;
  other.features = "avx2,notafeature";
  EXPECT_EQ(code_of([&] { load_kernel(other); }), Code::Unsupported);
  other = good;
  other.triple = "aarch64-unknown-linux-gnu";
  EXPECT_EQ(code_of([&] { load_kernel(other); }), Code::Unsupported);
  other = good;
  other.format = "riddle";
  EXPECT_EQ(code_of([&] { load_kernel(other); }), Code::Unsupported);
}

TEST_F(Serialize, WhatIsLoadedRunsAsWhatWasSaved) {
  const Executable saved = executable(load_kernel(image()));
  saved.save(path_);
  const Executable loaded = Executable::load(path_);
  EXPECT_EQ(loaded.explain(), saved.explain());
  ASSERT_EQ(loaded.inputs().size(), 3u);
  EXPECT_EQ(loaded.inputs()[0].type.shape, (Shape{2, N}));
  EXPECT_EQ(loaded.inputs()[1].role, Role::Parameter);
  const auto want = saved.run(inputs()), got = loaded.run(inputs());
  ASSERT_EQ(got.size(), 4u);
  for (const auto& [name, tensor] : want) {
    ASSERT_EQ(got.at(name).dims(), tensor.dims());
    EXPECT_EQ(std::memcmp(got.at(name).data(), tensor.data(), tensor.bytes()), 0) << name;
  }
  EXPECT_EQ(want.at("z").dims(), (Dims{10}));
}

TEST_F(Serialize, DamageIsFound) {
  executable(load_kernel(image())).save(path_);
  const std::string good = read(path_);
  for (const std::size_t size : {std::size_t{0}, std::size_t{10}, std::size_t{64}, good.size() - 1}) {
    write(path_, good.substr(0, size));
    EXPECT_EQ(code_of([&] { Executable::load(path_); }), Code::DataLoss) << size;
  }
  std::mt19937 rng(6);
  for (int round = 0; round < 200; ++round) {
    std::string bad = good;
    const std::size_t at = rng() % (bad.size() - 64) + 64;
    bad[at] = static_cast<char>(bad[at] ^ (1 << rng() % 8));
    write(path_, bad);
    ASSERT_EQ(code_of([&] { Executable::load(path_); }), Code::DataLoss) << at;
  }
  std::string old = good;
  old[8] = 99;  // the format's version
  write(path_, old);
  EXPECT_EQ(code_of([&] { Executable::load(path_); }), Code::DataLoss);
  EXPECT_EQ(code_of([&] { Executable::load(path_ + ".missing"); }), Code::NotFound);
}

// Nothing of it runs here: not even packing the weights, which waits for the other machine.
TEST_F(Serialize, CodeForAnotherMachineIsSavedAndRefusesToRun) {
  const std::string isa = host_has("neon") ? "avx2" : "neon";
  Graph g;
  const Value x = g.placeholder("x", DType::F32, {4, 64});
  g.output("y", g.op("matmul", {x, g.constant(Tensor::zeros(DType::F32, {64, 48}), "w")}));
  const Executable e = deepseek::compile(g, {.isa = isa});
  EXPECT_NE(e.explain().find("gemm pack"), std::string::npos) << e.explain();
  EXPECT_EQ(code_of([&] { e.run({{"x", Tensor::zeros(DType::F32, {4, 64})}}); }), Code::Unsupported);
  e.save(path_);
  EXPECT_EQ(code_of([&] { Executable::load(path_); }), Code::Unsupported);
}

TEST_F(Serialize, WhatCannotBeSavedSaysSo) {
  EXPECT_EQ(code_of([&] { executable(interpret(program())).save(path_); }), Code::Unsupported);
  ExecutableBuilder b;
  const ValueId x = b.input("x", {DType::F32, {N}});
  const auto same = [](std::span<const Tensor> in) { return std::vector<Tensor>{in[0]}; };
  b.output("y", b.host(deepseek::Phase::Run, {"host", "host", "", 0, 0}, same, {x}, {{DType::F32, {N}}})[0]);
  EXPECT_EQ(code_of([&] { b.finish().save(path_); }), Code::Unsupported);
  EXPECT_EQ(code_of([&] { executable(load_kernel(image())).save("/no/such/folder/x.dsx"); }),
            Code::ResourceExhausted);
}

}  // namespace
}  // namespace deepseek
