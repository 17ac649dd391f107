// A masked store of one lane, known when compiling, as a store of that element.
#pragma once

#include <llvm/IR/Function.h>

namespace deepseek::codegen {

// LLVM's code for x86-64-v4 would store such a lane of a truncated vector in its width before truncation, and so write
// beyond the element (seen in LLVM 22.1.8: combineMaskedStore).
void expand_lone_stores(llvm::Function& f);

}  // namespace deepseek::codegen
