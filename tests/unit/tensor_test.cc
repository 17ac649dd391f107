#include "deepseek/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "loops/convert.h"
#include "runtime/narrow_float.h"

namespace deepseek {
namespace {

TEST(Tensor, SharesMemoryAndAligns) {
  Tensor a = Tensor::zeros(DType::F32, {2, 3});
  Tensor b = a;
  b.set(5, 2.5);
  EXPECT_EQ(a.at(5), 2.5);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0u);
  EXPECT_EQ(a.reshaped({6}).data(), a.data());
  EXPECT_THROW(a.reshaped({7}), Error);
  EXPECT_FALSE(Tensor().defined());
}

TEST(Tensor, EmptyOnesAreDefined) {
  EXPECT_TRUE(Tensor(DType::F32, {0, 4}).defined());
  EXPECT_TRUE(Tensor::wrap(DType::F32, {0}, nullptr, nullptr).defined());
  EXPECT_TRUE(Tensor::of_int64({}).defined());
}

TEST(Tensor, PointsElsewhereWithItsDims) {
  std::vector<float> first(4, 1.0f), second(4, 2.0f);
  auto owner = std::make_shared<int>(0);
  Tensor t = Tensor::wrap(DType::F32, {2, 2}, first.data(), owner);
  const Tensor other = t;
  t.point_to(second.data());
  EXPECT_EQ(t.at(3), 2.0);
  EXPECT_EQ(t.dims(), (Dims{2, 2}));
  EXPECT_EQ(other.at(3), 1.0);
  EXPECT_EQ(owner.use_count(), 2);  // here and in `other`
}

TEST(Tensor, WrapKeepsItsOwner) {
  auto owner = std::make_shared<std::vector<float>>(4, 1.0f);
  std::weak_ptr<std::vector<float>> watch = owner;
  Tensor t = Tensor::wrap(DType::F32, {4}, owner->data(), owner);
  owner.reset();
  EXPECT_EQ(t.at(3), 1.0);
  EXPECT_FALSE(watch.expired());
  t = {};
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, RejectsImpossibleSizes) {
  EXPECT_THROW(Tensor(DType::F32, {-1}), Error);
  EXPECT_THROW(Tensor(DType::F32, {std::int64_t{1} << 62}), Error);
  EXPECT_THROW(Tensor(DType::F32, {std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
  EXPECT_THROW(Tensor(DType::F64, {std::int64_t{1} << 56}), Error);
}

TEST(Tensor, EveryRealTypeKeepsSmallIntegers) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    if (type == DType::String || is_complex(type)) continue;
    if (type == DType::F8E8M0) continue;  // powers of two alone: no 0
    Tensor t = Tensor::zeros(type, {5});
    t.set(1, 1);
    t.set(3, 1);
    t.set(4, 0);
    EXPECT_EQ(t.at(0), 0) << name(type);
    EXPECT_EQ(t.at(1), 1) << name(type);
    EXPECT_EQ(t.at(2), 0) << name(type);
    EXPECT_EQ(t.at(3), 1) << name(type);
    if (is_signed(type)) {
      t.set(2, -1);
      EXPECT_EQ(t.at(2), -1) << name(type);
      EXPECT_EQ(t.at(1), 1) << name(type);
    }
  }
}

TEST(Tensor, IntegersSaturate) {
  Tensor t = Tensor::zeros(DType::I8, {3});
  t.set(0, 1000);
  t.set(1, -1000);
  t.set(2, std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(t.to_int64(), (std::vector<std::int64_t>{127, -128, 0}));
  EXPECT_THROW(Tensor::zeros(DType::F32, {1}).to_int64(), Error);
  Tensor big = Tensor::zeros(DType::U64, {1});
  big.set(0, 1e30);
  EXPECT_EQ(big.as<std::uint64_t>()[0], std::numeric_limits<std::uint64_t>::max());
}

TEST(NarrowFloat, EveryCodeRoundTrips) {
  for (const DType t : {DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::F8E4M3FNUZ,
                        DType::F8E5M2FNUZ, DType::F8E8M0, DType::F4E2M1}) {
    const FloatFormat f = float_format(t);
    for (std::uint32_t code = 0; code < 1u << bits(t); ++code) {
      const double x = decode_float(code, f);
      if (std::isnan(x))
        EXPECT_TRUE(std::isnan(decode_float(encode_float(x, f), f)));
      else
        EXPECT_EQ(encode_float(x, f), code) << name(t);
    }
  }
}

TEST(NarrowFloat, RoundsToNearestEven) {
  for (const DType t : {DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::F8E4M3FNUZ,
                        DType::F8E5M2FNUZ, DType::F4E2M1}) {
    const FloatFormat f = float_format(t);
    for (std::uint32_t code = 0; code + 1 < 1u << (bits(t) - 1); ++code) {
      const double low = decode_float(code, f), high = decode_float(code + 1, f);
      if (!std::isfinite(low) || !std::isfinite(high)) continue;
      const double middle = (low + high) / 2;
      EXPECT_EQ(encode_float(middle, f), code % 2 ? code + 1 : code) << name(t) << " " << middle;
      EXPECT_EQ(encode_float(std::nextafter(middle, low), f), code) << name(t);
      EXPECT_EQ(encode_float(std::nextafter(middle, high), f), code + 1) << name(t);
    }
  }
}

TEST(NarrowFloat, IsTheLoopLanguages) {
  for (const DType t : {DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::F8E4M3FNUZ,
                        DType::F8E5M2FNUZ, DType::F8E8M0}) {
    for (int i = 0; i < 4000; ++i) {
      const float x = std::ldexp(1.0F + static_cast<float>(i % 31) / 32.0F, i % 270 - 140) *
                      static_cast<float>(i % 2 == 0 ? 1 : -1);
      EXPECT_EQ(encode_float(x, float_format(t)), loops::encode_narrow(t, x)) << name(t) << " " << x;
    }
  }
}

TEST(NarrowFloat, BeyondTheRange) {
  EXPECT_TRUE(
      std::isinf(decode_float(encode_float(65520, float_format(DType::F16)), float_format(DType::F16))));
  EXPECT_EQ(decode_float(encode_float(65519, float_format(DType::F16)), float_format(DType::F16)), 65504);
  EXPECT_TRUE(
      std::isnan(decode_float(encode_float(1e9, float_format(DType::F8E4M3)), float_format(DType::F8E4M3))));
  EXPECT_EQ(decode_float(encode_float(460, float_format(DType::F8E4M3)), float_format(DType::F8E4M3)), 448);
  EXPECT_EQ(decode_float(encode_float(-100, float_format(DType::F4E2M1)), float_format(DType::F4E2M1)), -6);
}

}  // namespace
}  // namespace deepseek
