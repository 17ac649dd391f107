// The toy accelerator as a target: what it has, and kernels that run in its simulator.
#pragma once

#include <atomic>
#include <memory>

#include "targets/target.h"

namespace deepseek::toy {

class ToyTarget : public Target {
 public:
  ToyTarget();
  const TargetInfo& info() const override { return info_; }
  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const loops::Program> programs) override;
  // That kernels of this target took, all together.
  double cycles() const { return *cycles_; }

 private:
  TargetInfo info_;
  std::shared_ptr<std::atomic<double>> cycles_ = std::make_shared<std::atomic<double>>(0);
};

}  // namespace deepseek::toy
