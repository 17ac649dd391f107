// Matrix registers (AMX) are too large for every thread to have: a process asks the system for them first.
#pragma once

namespace deepseek {

// Asks once per process. False where the machine or the system has none. Thread-safe.
bool may_use_amx();

}  // namespace deepseek
