// What the emitter has to know of a machine. Targets fill it in; the emitter itself knows no ISA by name.
#pragma once

#include <cstdint>
#include <string>

namespace deepseek::codegen {

struct Machine {
  std::string isa;                    // as in TargetInfo::isa
  std::string triple, cpu, features;  // as LLVM spells them
  int lanes = 1;                      // of a Vector loop, whatever the element type; 1: loops stay scalar
  int vector_bits = 0;                // width that vectors are kept at; 0: LLVM decides
  // The narrowest element that has masked loads and stores. Loops over narrower ones end in a scalar loop
  // instead of a masked step.
  int masked_bits = 64 + 1;
  // Multiplies of neighbours, pairs of bf16 or int16 or quads of u8 by i8, summed in lanes of 32 bits (x86).
  bool dot_bf16 = false, dot_int8 = false, dot_int16 = false;
  bool byte_pairs = false;  // pairs of u8 by i8 are summed in 16 bits, which saturate (x86)
  bool nan_minmax = false;  // minimum and maximum that give NaN for NaN are one instruction each
  bool has_ldexp = false;   // loops::Op::Ldexp is one instruction (x86's vscalefps)
  bool amx = false;         // matrix registers of x86
  bool gpu = false;         // Block and Thread loops are hardware indices, Shared is on-chip memory
};

}  // namespace deepseek::codegen
