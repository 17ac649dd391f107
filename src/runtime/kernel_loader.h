// From a saved KernelImage back to a Kernel. The format "elf" is loaded here; targets register loaders for others.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/kernel.h"

namespace deepseek {

// Throws Error{DataLoss} for an image that is not what it says, Error{Unsupported} for a machine that it does not fit.
std::shared_ptr<const Kernel> load_kernel(const KernelImage& image);

using KernelLoader = std::function<std::shared_ptr<const Kernel>(const KernelImage&)>;
// Returns true, so that a static object can call it.
bool register_kernel_loader(std::string format, KernelLoader loader);

// Relocatable object code in this process's memory; the functions stay valid as long as this lives.
class ObjectCode {
 public:
  virtual ~ObjectCode() = default;
  // The address of a function that the object defines; throws Error{DataLoss} when it does not.
  virtual void* find(const std::string& symbol) const = 0;
};
// Links an ELF object that imports nothing (of this machine's kind). Every offset in it is checked: a damaged object gives
// Error{DataLoss}, never a crash while loading.
std::shared_ptr<const ObjectCode> load_elf(std::span<const std::byte> object);

// Whether this machine has every feature of a list like "avx2,fma" (LLVM's names).
bool host_has_features(const std::string& features);
// The triple of this process: "x86_64-unknown-linux-gnu".
std::string host_triple();

}  // namespace deepseek
