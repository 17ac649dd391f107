// Independent pieces of the compiler's own work on all cores.
#pragma once

#include <cstddef>
#include <functional>

namespace deepseek {

// Runs f(0) ... f(n-1), each once, on as many threads as there are cores; the first exception is thrown again. A few
// pieces stay on this thread alone when each is `light`: starting a thread takes longer.
void in_parallel(std::size_t n, const std::function<void(std::size_t)>& f, bool light = false);

}  // namespace deepseek
