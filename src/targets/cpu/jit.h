// Loads object code into this process.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/kernel.h"

namespace deepseek {

// Functions of one loaded object; they stay valid as long as this lives.
class LoadedCode {
 public:
  virtual ~LoadedCode() = default;
  ExtentsFn extents = nullptr;
  std::vector<PhaseFn> phases;
};

// Links `object`, which defines NAME_extents and NAME_phase0 ... Thread-safe. Throws Error{DataLoss} when it is
// not such an object.
std::shared_ptr<const LoadedCode> load_object(const std::string& object, const std::string& name, int phases);

}  // namespace deepseek
