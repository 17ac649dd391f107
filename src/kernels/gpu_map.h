// Maps a program written for threads and lanes onto a GPU's grid.
#pragma once

#include "loops/ir.h"

namespace deepseek::kernels {

// Parallel loops become Block loops. One whose body has Thread loops already keeps them; any other is divided among
// blocks of threads, one iteration per thread, a Vector loop directly inside it joining in so that neighbouring
// threads take neighbouring elements; further Vector loops become Serial.
loops::Program map_to_gpu(const loops::Program& p);

}  // namespace deepseek::kernels
