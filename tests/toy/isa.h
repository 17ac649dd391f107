// The toy accelerator's instruction set. One core has registers, a scratchpad, a unit that computes on one scalar or on
// sixteen lanes at once, a copy engine that works beside it, and a multiplier of 16 x 16 tiles that is fed from the
// scratchpad. There is nothing else: no threads, no other types than these four.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "loops/scalar.h"

namespace deepseek::toy {

constexpr std::int64_t kTile = 16;
constexpr std::int64_t kScratchpadBytes = 1 << 20;
constexpr bool has_type(DType t) {
  return t == DType::F32 || t == DType::I32 || t == DType::I64 || t == DType::Bool;
}

enum class Opcode : std::uint8_t {
  Compute,     // r[to] = alu(r[in0], r[in1], r[in2]) on arguments of `type`
  Convert,     // r[to] = r[in0], of `type`, as `into`
  Load,        // r[to] = r[in1] ? memory[r[in0]] : r[in2]
  Store,       // memory[r[in0]] = r[in1] where r[in2]
  Jump,        // over `immediate` instructions
  JumpUnless,  // the same where not r[in0]
  Check,       // status = immediate where not r[in0]
  CopyStart,  // memory[r[in0] ...], rows r[in1] apart <- other[r[in2] ...], rows r[in3] apart; r[in4] x r[in5]
  CopyWait,   // for copy `immediate`
  TileFill,   // tile[to] = r[in0] everywhere
  TileLoad,   // tile[to][i][j] = memory[r[in0] + i*r[in1] + j*r[in2]] where i < r[in3], j < r[in4], else 0
  TileMultiply,  // tile[to] += tile[in0] * tile[in1]
  TileGet,       // r[to] = tile[in0][r[in1]][r[in2]]
  TileSet,       // tile[to][r[in0]][r[in1]] = r[in2]
};

struct Instruction {
  Opcode opcode;
  int to = 0;
  std::array<int, 6> in = {};
  std::int64_t immediate = 0;
  int memory = 0, other = 0;
  loops::Op alu = loops::Op::Add;
  DType type = DType::I64, into = DType::I64;
  int lanes = 1;  // how many iterations do this at once
};

// A stretch of memory that instructions name by its position in a list.
struct Memory {
  DType type;
  std::byte* data;
  std::int64_t extent;  // in elements
  bool scratchpad;
};

// Runs instructions to their end and gives the cycles that they took. Until its CopyWait a copy's destination holds
// garbage. Throws Error{Internal} for what the hardware would trap: an access outside its memory, a copy never waited
// for.
double simulate(std::span<const Instruction> code, std::vector<loops::Scalar> registers, int tiles,
                std::span<const Memory> memory, std::int32_t* status);

}  // namespace deepseek::toy
