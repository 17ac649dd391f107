#include "support/amx_emulator.h"

#include "runtime/amx_permission.h"

#if defined(__x86_64__) && defined(__linux__)
#include <ucontext.h>

#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <optional>

namespace deepseek::testing {
namespace {

constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;

// What one thread's matrix registers hold.
struct State {
  std::array<std::uint8_t, 64> config;
  std::uint8_t data[kTiles][kRows][kRowBytes];
  bool configured() const { return config[0] == 1; }
  int rows(int tile) const { return config[static_cast<std::size_t>(48 + tile)]; }
  int bytes(int tile) const {
    const auto at = static_cast<std::size_t>(16 + 2 * tile);
    return config[at] | config[at + 1] << 8;
  }
};
thread_local State state;
std::atomic<long> carried_out = 0;

// An instruction of the form VEX.128.0F38.W0 (three bytes of prefix, opcode, ModRM).
struct Instruction {
  int prefix;  // pp: none, 66, F3, F2
  int opcode;
  int mod, reg, rm, vvvv;  // with the prefix's fourth bits
  std::uint64_t address;   // of the memory operand
  std::uint64_t index;     // of its SIB byte, unscaled by a base: the stride of a tile's rows
  int length;
};

constexpr int kNone = 0, k66 = 1, kF3 = 2, kF2 = 3;

std::uint64_t general(const ucontext_t& c, int number) {
  constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<std::uint64_t>(c.uc_mcontext.gregs[kOrder[number]]);
}

template <class T>
T read(const std::uint8_t* at) {
  T x;
  std::memcpy(&x, at, sizeof x);
  return x;
}

std::optional<Instruction> decode(const ucontext_t& c) {
  const auto* at = reinterpret_cast<const std::uint8_t*>(c.uc_mcontext.gregs[REG_RIP]);
  constexpr int kVex3 = 0xC4, kMap0F38 = 2;
  if (at[0] != kVex3 || (at[1] & 31) != kMap0F38 || (at[2] & 0x84) != 0) return std::nullopt;
  const int r = at[1] & 0x80 ? 0 : 8, x = at[1] & 0x40 ? 0 : 8, b = at[1] & 0x20 ? 0 : 8;
  Instruction i{};
  i.prefix = at[2] & 3;
  i.vvvv = ~(at[2] >> 3) & 15;
  i.opcode = at[3];
  i.mod = at[4] >> 6;
  i.reg = ((at[4] >> 3) & 7) | r;
  const int low = at[4] & 7;
  i.rm = low | b;
  i.length = 5;
  if (i.mod == 3) return i;
  if (low == 4) {
    const std::uint8_t sib = at[5];
    i.length = 6;
    const int index = ((sib >> 3) & 7) | x, base = sib & 7;
    if (index != 4) i.index = general(c, index) << (sib >> 6);
    if (base == 5 && i.mod == 0) {
      i.address = static_cast<std::uint64_t>(static_cast<std::int64_t>(read<std::int32_t>(at + 6)));
      i.length += 4;
    } else {
      i.address = general(c, base | b);
    }
  } else if (low == 5 && i.mod == 0) {  // relative to the next instruction
    i.length += 4;
    i.address = reinterpret_cast<std::uint64_t>(at) + static_cast<std::uint64_t>(i.length) +
                static_cast<std::uint64_t>(static_cast<std::int64_t>(read<std::int32_t>(at + 5)));
  } else {
    i.address = general(c, i.rm);
  }
  if (i.mod == 1) {
    i.address += static_cast<std::uint64_t>(static_cast<std::int64_t>(read<std::int8_t>(at + i.length)));
    i.length += 1;
  } else if (i.mod == 2) {
    i.address += static_cast<std::uint64_t>(static_cast<std::int64_t>(read<std::int32_t>(at + i.length)));
    i.length += 4;
  }
  return i;
}

float of_bf16(const std::uint8_t* at) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(read<std::uint16_t>(at)) << 16);
}

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; }

// c += the sum of `group` products, in each lane of 32 bits.
void add_products(std::uint8_t* c, const std::uint8_t* a, const std::uint8_t* b, const Instruction& i) {
  constexpr int kBf16 = 0x5C;
  if (i.opcode == kBf16) {
    // The odd products first, each added with one rounding; subnormals count as zero.
    auto sum = read<float>(c);
    for (const int part : {2, 0})
      sum = flushed(std::fma(flushed(of_bf16(a + part)), flushed(of_bf16(b + part)), sum));
    std::memcpy(c, &sum, sizeof sum);
    return;
  }
  const bool a_signed = i.prefix == kF2 || i.prefix == kF3, b_signed = i.prefix == kF2 || i.prefix == k66;
  auto sum = read<std::uint32_t>(c);
  for (int part = 0; part < 4; ++part) {
    const int x = a_signed ? static_cast<std::int8_t>(a[part]) : a[part];
    const int y = b_signed ? static_cast<std::int8_t>(b[part]) : b[part];
    sum += static_cast<std::uint32_t>(x * y);
  }
  std::memcpy(c, &sum, sizeof sum);
}

bool multiply(const Instruction& i) {
  const int c = i.reg, a = i.rm, b = i.vvvv;
  if (c >= kTiles || a >= kTiles || b >= kTiles || c == a || c == b || a == b) return false;
  if (state.bytes(a) / 4 != state.rows(b) || state.rows(a) != state.rows(c) ||
      state.bytes(b) != state.bytes(c))
    return false;
  for (int m = 0; m < state.rows(c); ++m)
    for (int k = 0; k < state.rows(b); ++k)
      for (int n = 0; n < state.bytes(c) / 4; ++n)
        add_products(&state.data[c][m][4 * n], &state.data[a][m][4 * k], &state.data[b][k][4 * n], i);
  return true;
}

void configure(const void* from) {
  std::memcpy(state.config.data(), from, state.config.size());
  std::memset(state.data, 0, sizeof state.data);
}

// False: not an instruction of the matrix registers, or one that they refuse.
bool carry_out(const Instruction& i) {
  constexpr int kConfigure = 0x49, kMove = 0x4B, kBf16 = 0x5C, kBytes = 0x5E;
  if (i.opcode == kConfigure && i.mod != 3 && i.prefix == kNone) {
    configure(reinterpret_cast<const void*>(i.address));
    return state.configured();
  }
  if (!state.configured()) return false;
  if (i.opcode == kConfigure && i.mod == 3 && i.prefix == kNone) {
    constexpr std::array<std::uint8_t, 64> kReleased{};
    configure(kReleased.data());
    return true;
  }
  if (i.opcode == kConfigure && i.prefix == kF2) {
    std::memset(state.data[i.reg], 0, sizeof state.data[i.reg]);
    return true;
  }
  if (i.opcode == kMove && i.mod != 3) {
    const auto count = static_cast<std::size_t>(state.bytes(i.reg));
    if (i.prefix != kF3) std::memset(state.data[i.reg], 0, sizeof state.data[i.reg]);
    for (int row = 0; row < state.rows(i.reg); ++row) {
      auto* memory = reinterpret_cast<std::uint8_t*>(i.address + static_cast<std::uint64_t>(row) * i.index);
      if (i.prefix == kF3)
        std::memcpy(memory, state.data[i.reg][row], count);
      else
        std::memcpy(state.data[i.reg][row], memory, count);
    }
    return true;
  }
  if ((i.opcode == kBf16 && i.prefix == kF3) || i.opcode == kBytes) return i.mod == 3 && multiply(i);
  return false;
}

void on_illegal_instruction(int, siginfo_t*, void* context) {
  auto& c = *static_cast<ucontext_t*>(context);
  const std::optional<Instruction> i = decode(c);
  if (i && carry_out(*i)) {
    c.uc_mcontext.gregs[REG_RIP] += i->length;
    ++carried_out;
  } else {
    signal(SIGILL, SIG_DFL);  // raised again, it ends the process
  }
}

}  // namespace

void emulate_amx() {
  if (may_use_amx()) return;
  struct sigaction action = {};
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, nullptr);
}

long emulated_amx_instructions() { return carried_out; }

}  // namespace deepseek::testing
#else
namespace deepseek::testing {
void emulate_amx() {}
long emulated_amx_instructions() { return 0; }
}  // namespace deepseek::testing
#endif
