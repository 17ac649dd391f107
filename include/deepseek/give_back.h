// What compiling or loading took and running does not need goes back to the system.
#pragma once

namespace deepseek {

// Free pages of the heap, and the pages of this library's code and constants (LLVM's above all), which are the file's:
// whoever needs them again finds them in the page cache. Takes less than a millisecond. Any thread may be compiling
// meanwhile.
void give_back_memory();

}  // namespace deepseek
