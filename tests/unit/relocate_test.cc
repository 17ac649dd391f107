// Relocations by hand-assembled instructions; AArch64's are checked on every machine.
#include "runtime/relocate.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>

#include "deepseek/error.h"

namespace deepseek {
namespace {

constexpr std::uint64_t kHere = 0x10000ff8;

// What becomes of an instruction of AArch64.
std::uint32_t instruction(std::uint32_t before, std::uint32_t type, std::uint64_t target) {
  std::byte bytes[4];
  std::memcpy(bytes, &before, sizeof before);
  relocate(EM_AARCH64, type, bytes, kHere, target);
  std::memcpy(&before, bytes, sizeof before);
  return before;
}

template <class T>
T data(unsigned machine, std::uint32_t type, std::uint64_t target) {
  std::byte bytes[sizeof(T)] = {};
  relocate(machine, type, bytes, kHere, target);
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

bool refused(unsigned machine, std::uint32_t type, std::uint64_t target, std::size_t room = 8) {
  std::byte bytes[8] = {};
  try {
    relocate(machine, type, {bytes, room}, kHere, target);
  } catch (const Error& e) {
    return e.code() == Code::DataLoss;
  }
  return false;
}

TEST(Relocate, AArch64Pages) {
  constexpr std::uint32_t adrp = 0x90000000;  // adrp x0, 0
  EXPECT_EQ(instruction(adrp, R_AARCH64_ADR_PREL_PG_HI21, 0x10000010), adrp);
  EXPECT_EQ(instruction(adrp, R_AARCH64_ADR_PREL_PG_HI21, 0x10002468), 0xd0000000);
  EXPECT_EQ(instruction(adrp, R_AARCH64_ADR_PREL_PG_HI21, 0x0fffd468), 0xb0ffffe0);
  EXPECT_EQ(instruction(0xb0ffffe0, R_AARCH64_ADR_PREL_PG_HI21, 0x10000010), adrp);  // fields are replaced
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_ADR_PREL_PG_HI21, kHere + (std::uint64_t{1} << 32)));
}

TEST(Relocate, AArch64OffsetsInAPage) {
  EXPECT_EQ(instruction(0x91000000, R_AARCH64_ADD_ABS_LO12_NC, 0x12345678), 0x9119e000);  // add x0, x0, 0x678
  EXPECT_EQ(instruction(0x39400001, R_AARCH64_LDST8_ABS_LO12_NC, 0x12345679),
            0x3959e401);  // ldrb w1, [x0, 0x679]
  EXPECT_EQ(instruction(0x79400001, R_AARCH64_LDST16_ABS_LO12_NC, 0x12345678), 0x794cf001);   // ldrh
  EXPECT_EQ(instruction(0xb9400001, R_AARCH64_LDST32_ABS_LO12_NC, 0x12345678), 0xb9467801);   // ldr w1
  EXPECT_EQ(instruction(0xf9400001, R_AARCH64_LDST64_ABS_LO12_NC, 0x12345678), 0xf9433c01);   // ldr x1
  EXPECT_EQ(instruction(0x3dc00001, R_AARCH64_LDST128_ABS_LO12_NC, 0x12345670), 0x3dc19c01);  // ldr q1
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_LDST128_ABS_LO12_NC, 0x12345678));
}

TEST(Relocate, AArch64Branches) {
  EXPECT_EQ(instruction(0x94000000, R_AARCH64_CALL26, kHere + 0x40), 0x94000010);
  EXPECT_EQ(instruction(0x94000000, R_AARCH64_CALL26, kHere - 4), 0x97ffffff);
  EXPECT_EQ(instruction(0x14000000, R_AARCH64_JUMP26, kHere + 8), 0x14000002);
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_CALL26, kHere + (1 << 27)));
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_CALL26, kHere + 2));
}

TEST(Relocate, Data) {
  EXPECT_EQ(data<std::uint64_t>(EM_AARCH64, R_AARCH64_ABS64, 0x123456789a), 0x123456789aU);
  EXPECT_EQ(data<std::int64_t>(EM_AARCH64, R_AARCH64_PREL64, kHere - 9), -9);
  EXPECT_EQ(data<std::int32_t>(EM_AARCH64, R_AARCH64_PREL32, kHere + 9), 9);
  EXPECT_EQ(data<std::uint64_t>(EM_X86_64, R_X86_64_64, 0x123456789a), 0x123456789aU);
  EXPECT_EQ(data<std::int64_t>(EM_X86_64, R_X86_64_PC64, kHere - 9), -9);
  EXPECT_EQ(data<std::int32_t>(EM_X86_64, R_X86_64_PLT32, kHere - 4), -4);
}

TEST(Relocate, WhatCannotBeIsRefused) {
  for (const unsigned machine : {unsigned{EM_AARCH64}, unsigned{EM_X86_64}})
    EXPECT_TRUE(refused(machine, 999, kHere));
  EXPECT_TRUE(refused(EM_X86_64, R_X86_64_PC32, kHere + (std::uint64_t{1} << 31)));
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_PREL32, kHere + (std::uint64_t{1} << 31)));
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_CALL26, kHere, 3));
  EXPECT_TRUE(refused(EM_AARCH64, R_AARCH64_ABS64, kHere, 4));
  EXPECT_TRUE(refused(EM_X86_64, R_X86_64_64, kHere, 7));
}

}  // namespace
}  // namespace deepseek
