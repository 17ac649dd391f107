// The reference target: programs run in the loop language's interpreter.
#pragma once

#include "loops/interpreter.h"
#include "targets/target.h"

namespace deepseek {

struct InterpreterTargetOptions {
  // Says that it wants Block and Thread loops and has a tile in each thread's registers.
  bool gpu_mapped = false;
  loops::InterpreterOptions interpreter;
};

class InterpreterTarget : public Target {
 public:
  explicit InterpreterTarget(InterpreterTargetOptions options = {});
  const TargetInfo& info() const override { return info_; }
  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> programs) override;

 private:
  InterpreterTargetOptions options_;
  TargetInfo info_;
};

}  // namespace deepseek
