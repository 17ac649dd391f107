// A run with bound dims and memory of the caller allocates nothing.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "unit/test_kernels.h"

// Sanitizers count allocations themselves and bring their own operators.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace {
std::atomic<bool> counting = false;
std::atomic<int> allocations = 0;
}  // namespace

// For the whole test program.
void* operator new(std::size_t size) {
  if (counting) ++allocations;
  if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace deepseek {
namespace {

using namespace test_kernels;

TEST(Executable, AllocatesNothingAtBoundDims) {
  Context c(chain(5));
  const Tensor x = vec(std::vector<float>(64, 1)), z = vec(std::vector<float>(3, 1));
  Tensor y(DType::F32, {64}), w(DType::F32, {3});
  const auto run = [&] {
    c.run({&x, 1}, {&y, 1});
    c.run({&z, 1}, {&w, 1});
  };
  run();
  allocations = 0;
  counting = true;
  for (int i = 0; i < 10; ++i) run();
  counting = false;
  EXPECT_EQ(allocations, 0);
  EXPECT_EQ(y.at(63), 94);
  EXPECT_EQ(w.at(2), 94);
}

}  // namespace
}  // namespace deepseek
#endif
