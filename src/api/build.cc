#include "deepseek/build.h"

#include "targets/cpu/kernel_cache.h"
#include "targets/registry.h"

namespace deepseek {

std::string build_and_machine() {
  return KernelCache::key({compiler_build(), find_target("cpu", "")->info().isa});
}

}  // namespace deepseek
