// The CPU as a target: loop programs become machine code through LLVM, loaded into this process.
#pragma once

#include <memory>
#include <string_view>

#include "targets/target.h"

namespace deepseek {

// For this machine's best instruction set, or the one that DEEPSEEK_CPU_ISA names. One per process.
std::shared_ptr<Target> cpu_target();
// A name of isa.h. What this machine lacks can be compiled for and saved, not run.
// Throws Error{InvalidArgument} for another name.
std::shared_ptr<Target> cpu_target(std::string_view isa);
// The same whatever this machine has, for who emulates what it lacks.
std::shared_ptr<Target> emulated_cpu_target(std::string_view isa);

}  // namespace deepseek
