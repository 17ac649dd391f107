// Relocations of ELF objects, for the machines that kernels are compiled for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace deepseek {

// Writes what a relocation says. `section`: the bytes from its place to the end of its section, which will run at the
// address `here`; `target`: the address of its symbol plus the addend. `machine` and `type` as ELF numbers them
// (EM_X86_64, R_X86_64_64). Throws Error{DataLoss} for a kind that our objects do not have and for a distance that it
// cannot bridge.
void relocate(unsigned machine, std::uint32_t type, std::span<std::byte> section, std::uint64_t here,
              std::uint64_t target);

}  // namespace deepseek
