#include "support/compare_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "loops/convert.h"

namespace deepseek::testing {

using loops::Access;
using loops::decode_narrow;
using loops::encode_narrow;
using loops::Program;

// Bytes of n elements: ordinary values, and a share of those that make trouble.
std::vector<std::byte> draw_elements(Random& r, DType t, std::int64_t n) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(deepseek::bytes(t, n)));
  const auto width = static_cast<std::size_t>(bits(t) / 8);
  if (width == 0) {
    for (std::byte& b : bytes) b = static_cast<std::byte>(r());
    return bytes;
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    std::uint64_t raw = r();
    if (t == DType::Bool) raw &= 1;
    if (is_integer(t) && r() % 2 == 0)
      raw = static_cast<std::uint64_t>(static_cast<std::int64_t>(raw % 21) - 10);
    if (is_float(t) && r() % 4 != 0) {
      const double usual = static_cast<double>(static_cast<std::int64_t>(r() % 2001) - 1000) / 64;
      raw = t == DType::F64   ? std::bit_cast<std::uint64_t>(usual)
            : t == DType::F32 ? std::bit_cast<std::uint32_t>(static_cast<float>(usual))
                              : encode_narrow(t, static_cast<float>(usual));
    }
    std::memcpy(bytes.data() + i * width, &raw, width);
  }
  return bytes;
}

namespace {

double element(DType t, const std::byte* p) {
  std::uint64_t raw = 0;
  std::memcpy(&raw, p, static_cast<std::size_t>(bits(t) / 8));
  if (t == DType::F64) return std::bit_cast<double>(raw);
  if (t == DType::F32) return std::bit_cast<float>(static_cast<std::uint32_t>(raw));
  return decode_narrow(t, static_cast<std::uint32_t>(raw));
}

}  // namespace

void expect_same(const Program& p, const KernelRun& got, const KernelRun& want, const std::string& what,
                 double tolerance) {
  EXPECT_EQ(got.status, want.status);
  for (std::size_t i = 0; i < p.params.size(); ++i) {
    if (p.params[i].access == Access::Read || p.params[i].access == Access::Workspace) continue;
    const DType t = bits(p.params[i].buffer->dtype) < 8 ? DType::U8 : p.params[i].buffer->dtype;
    const auto width = static_cast<std::size_t>(bits(t) / 8);
    const auto *a = got.buffers[i].as<std::byte>(), *b = want.buffers[i].as<std::byte>();
    for (std::size_t k = 0; k < got.buffers[i].size() / width; ++k, a += width, b += width) {
      if (std::memcmp(a, b, width) == 0) continue;
      if (is_float(t)) {
        const double x = element(t, a), y = element(t, b);
        if (x == y || (std::isnan(x) && std::isnan(y))) continue;
        if (std::fabs(x - y) <= tolerance * std::max(1.0, std::fabs(y))) continue;
        ASSERT_EQ(x, y) << what << " " << p.params[i].buffer->name << "[" << k << "]\n" << print(p);
      }
      std::uint64_t x = 0, y = 0;
      std::memcpy(&x, a, width);
      std::memcpy(&y, b, width);
      ASSERT_EQ(x, y) << what << " " << p.params[i].buffer->name << "[" << k << "]\n" << print(p);
    }
  }
}

}  // namespace deepseek::testing
