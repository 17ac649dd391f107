// The matrix registers of x86 (AMX) on machines without them: their instructions raise SIGILL, whose handler carries
// them out. Where the machine has them nothing is changed.
#pragma once

namespace deepseek::testing {

// From now on in this process. Other illegal instructions stay fatal.
void emulate_amx();
// Instructions carried out so far.
long emulated_amx_instructions();

}  // namespace deepseek::testing
