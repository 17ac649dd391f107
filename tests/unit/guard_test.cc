// Under a guard, generated code that leaves a buffer of any kind is a segmentation fault.
#include "deepseek/guard.h"

#include <gtest/gtest.h>

#include <csignal>
#include <numeric>

#include "runtime/builder.h"
#include "targets/cpu/cpu_target.h"

namespace deepseek {
namespace {

using namespace loops;

constexpr const char* kPlaces[] = {"input", "constant", "temporary", "workspace", "scratch", "output"};
constexpr std::int64_t kSize = 1003;  // of every buffer; a whole number of no vector and no page

struct Read {
  std::string place;
  std::int64_t index = 0;
};

// y[0] = the element of that place at that index, after all places have been written or read within their bounds.
Executable reading(const Read& wrong) {
  std::map<std::string, Buffer> buffers;
  std::vector<Param> params;
  for (const std::string place : kPlaces) {
    const bool scratch = place == "scratch";
    buffers[place] =
        make_buffer(place, DType::F32, scratch ? Space::Shared : Space::Global, scratch ? 1024 : kSize);
    if (scratch) continue;
    params.push_back({buffers[place], place == "workspace"                      ? loops::Access::Workspace
                                      : place == "input" || place == "constant" ? loops::Access::Read
                                                                                : loops::Access::ReadWrite});
  }
  std::vector<Stmt> body = {stmt(Alloc{buffers["scratch"]})};
  Expr sum = load(buffers["input"], kSize - 1) + load(buffers["constant"], kSize - 1);
  for (const char* place : {"temporary", "workspace", "scratch", "output"}) {
    const Var i = loop_var("i", kSize);
    body.push_back(stmt(For{i, kSize, LoopKind::Vector, stmt(Store{buffers[place], var(i), sum, {}})}));
    sum = sum + load(buffers[place], 0);
  }
  body.push_back(stmt(Store{buffers["output"], 0, load(buffers[wrong.place], wrong.index), {}}));
  Program p{"reach", params, {}, {}, block(body)};
  const std::shared_ptr<const Kernel> kernel = cpu_target()->compile({&p, 1})[0];

  const Type type{DType::F32, {kSize}};
  ExecutableBuilder b;
  const ValueId x = b.input("x", type), c = b.constant(Tensor::zeros(DType::F32, {kSize}));
  const ValueId t = b.temp(type), y = b.temp(type);
  b.kernel(deepseek::Phase::Run, {"reach", "reach", "", 0, 0}, {kernel, {}, {x, c, t, kWorkspace, y}, {}});
  b.output("y", y);
  return b.finish();
}

void run(const Read& access, Guard side) {
  set_guard(side);
  reading(access).run({{"x", Tensor::zeros(DType::F32, {kSize})}});
  set_guard(Guard::None);
}

// The same in a process that the fault ends; a sanitizer would report it and exit.
void run_to_the_end(const Read& access, Guard side) {
  std::signal(SIGSEGV, SIG_DFL);
  run(access, side);
}

TEST(GuardDeathTest, ReadsBesideABufferFault) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const std::string place : kPlaces) {
    const std::int64_t size = place == "scratch" ? 1024 : kSize;
    run({place, size - 1}, Guard::End);
    run({place, 0}, Guard::Begin);
    EXPECT_EXIT(run_to_the_end({place, size}, Guard::End), ::testing::KilledBySignal(SIGSEGV), "") << place;
    EXPECT_EXIT(run_to_the_end({place, -1}, Guard::Begin), ::testing::KilledBySignal(SIGSEGV), "") << place;
  }
}

TEST(Guard, MemoryIsExactOnItsSideAndFilled) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const std::size_t bytes : {0u, 1u, 63u, 4096u, 10000u}) {
    const auto end = guarded_memory(bytes, Guard::End), begin = guarded_memory(bytes, Guard::Begin);
    EXPECT_EQ((reinterpret_cast<std::uintptr_t>(end.get()) + bytes) % page, 0u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(begin.get()) % page, 0u);
    for (const auto& memory : {end, begin})
      for (std::size_t i = 0; i < bytes; ++i)
        ASSERT_EQ(static_cast<const unsigned char*>(memory.get())[i], 0xff) << i;
  }
}

}  // namespace
}  // namespace deepseek
