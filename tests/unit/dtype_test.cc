#include "deepseek/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "deepseek/error.h"
#include "loops/convert.h"

namespace deepseek {
namespace {

TEST(DType, NamesParseBack) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto t = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(name(t)), t);
  }
  EXPECT_EQ(parse_dtype("float"), std::nullopt);
}

TEST(DType, SubByteTypesShareBytes) {
  EXPECT_EQ(bytes(DType::I4, 3), 2);
  EXPECT_EQ(bytes(DType::U2, 5), 2);
  EXPECT_EQ(bytes(DType::F64, 3), 24);
  EXPECT_EQ(bytes(DType::Bool, 3), 3);
}

TEST(DType, PromotesLikeNumPy) {
  EXPECT_EQ(promote(DType::I8, DType::U8), DType::I16);
  EXPECT_EQ(promote(DType::I64, DType::U64), DType::F64);
  EXPECT_EQ(promote(DType::I64, DType::F16), DType::F16);
  EXPECT_EQ(promote(DType::BF16, DType::F16), DType::F32);
  EXPECT_EQ(promote(DType::Bool, DType::I8), DType::I8);
  EXPECT_EQ(promote(DType::F32, DType::C64), DType::C64);
  EXPECT_EQ(promote(DType::F64, DType::C64), DType::C128);
  EXPECT_THROW(promote(DType::String, DType::F32), Error);
}

TEST(DType, ComputeTypes) {
  EXPECT_EQ(compute_type(DType::BF16), DType::F32);
  EXPECT_EQ(compute_type(DType::I4), DType::I32);
  EXPECT_EQ(compute_type(DType::F64), DType::F64);
}

TEST(Error, SaysWhatAndWhere) {
  const Error e(Code::InvalidArgument, "", "", "rank 2", "rank 3");
  EXPECT_STREQ(e.what(), "expected rank 2, got rank 3");
  EXPECT_STREQ(e.with_context("matmul", "model.py:3").what(),
               "model.py:3: matmul: expected rank 2, got rank 3");
  EXPECT_THROW(check(false, "order"), Error);
  EXPECT_NO_THROW(check(true, "order"));
}

TEST(Convert, EveryNarrowFloatDecodesAndEncodesBack) {
  for (const DType t : {DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::F8E4M3FNUZ,
                        DType::F8E5M2FNUZ, DType::F8E8M0, DType::F4E2M1}) {
    for (std::uint32_t b = 0; b < (1u << bits(t)); ++b) {
      const float x = loops::decode_narrow(t, b);
      if (std::isnan(x))
        EXPECT_TRUE(std::isnan(loops::decode_narrow(t, loops::encode_narrow(t, x))));
      else
        EXPECT_EQ(loops::encode_narrow(t, x), b) << name(t);
    }
  }
}

TEST(Convert, RoundsToNearestEven) {
  EXPECT_EQ(loops::round_to(DType::BF16, 1 + 0x1p-8), 1.0);
  EXPECT_EQ(loops::round_to(DType::BF16, 1 + 3 * 0x1p-8), 1 + 0x1p-6);
  EXPECT_EQ(loops::round_to(DType::F16, 65519.0), 65504.0);
  EXPECT_EQ(loops::round_to(DType::F16, 65520.0), std::numeric_limits<double>::infinity());
  EXPECT_EQ(loops::round_to(DType::F16, 0x1p-25), 0.0);
  EXPECT_EQ(loops::round_to(DType::F16, 3 * 0x1p-25), 0x1p-23);
  EXPECT_EQ(loops::round_to(DType::F8E4M3, 464.0), 448.0);
  EXPECT_TRUE(std::isnan(loops::round_to(DType::F8E4M3, 465.0)));
  EXPECT_EQ(loops::round_to(DType::F8E5M2, 1e6), std::numeric_limits<double>::infinity());
  EXPECT_EQ(loops::round_to(DType::F4E2M1, -1e6), -6.0);
  EXPECT_EQ(loops::round_to(DType::F8E4M3FNUZ, 247.0), 240.0);
  EXPECT_TRUE(std::isnan(loops::round_to(DType::F8E4M3FNUZ, 248.0)));
  EXPECT_TRUE(std::isnan(loops::round_to(DType::F8E5M2FNUZ, -1e9)));
  EXPECT_EQ(loops::encode_narrow(DType::F8E5M2FNUZ, -0.0F), 0U);
  EXPECT_EQ(loops::encode_narrow(DType::F8E4M3FNUZ, -1e-9F), 0U);
}

TEST(Convert, PowersOfTwo) {
  EXPECT_EQ(loops::round_to(DType::F8E8M0, 1.4999), 1.0);
  EXPECT_EQ(loops::round_to(DType::F8E8M0, 1.5), 2.0);
  EXPECT_EQ(loops::round_to(DType::F8E8M0, 0x1.8p-127), 0x1p-126);
  EXPECT_EQ(loops::round_to(DType::F8E8M0, 0x1p-140), 0x1p-127);
  for (const double x : {0.0, -1.0, 0x1.8p127, std::numeric_limits<double>::infinity()})
    EXPECT_TRUE(std::isnan(loops::round_to(DType::F8E8M0, x))) << x;
}

TEST(Convert, PackedElementsDoNotTouchTheirNeighbours) {
  std::byte data[2] = {std::byte{0xff}, std::byte{0xff}};
  loops::write_packed(data, 1, 4, 0x3);
  EXPECT_EQ(data[0], std::byte{0x3f});
  EXPECT_EQ(loops::read_packed(data, 1, 4), 3U);
  loops::write_packed(data, 5, 2, 0);
  EXPECT_EQ(data[1], std::byte{0xf3});
  EXPECT_EQ(loops::sign_extend(0xf, 4), -1);
}

}  // namespace
}  // namespace deepseek
