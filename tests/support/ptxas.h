// NVIDIA's assembler, where it is installed.
#pragma once

#include <string>

namespace deepseek::testing {

// Expects ptxas to take the text for the architecture ("sm_80"). It is the one that DEEPSEEK_PTXAS names, the PATH's, or
// that of the package nvidia-cuda-nvcc in the project's .venv; without any the test counts as not run from here on.
void expect_assembles(const std::string& ptx, const std::string& architecture);

}  // namespace deepseek::testing
