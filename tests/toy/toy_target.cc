#include "toy/toy_target.h"

#include <algorithm>

#include "deepseek/error.h"
#include "loops/interpreter.h"
#include "toy/compiler.h"

namespace deepseek::toy {
namespace {

constexpr std::int64_t kAlignment = 64;

class ToyKernel : public Kernel {
 public:
  ToyKernel(loops::Program p, std::shared_ptr<std::atomic<double>> cycles)
      : program_(std::move(p)), cycles_(std::move(cycles)) {
    for (const loops::Phase& phase : loops::phases(program_)) {
      grids_.push_back(phase.grid());
      codes_.push_back(toy::compile(program_, phase));
    }
  }

  KernelShape shape(std::span<const std::int64_t> dims) const override {
    KernelShape s;
    for (std::size_t i = 0; i < codes_.size(); ++i) {
      s.grid.push_back(std::max<std::int64_t>(0, at(grids_[i], dims)));
      std::int64_t size = 0;
      for (const loops::Buffer& b : codes_[i].scratchpad) size += size_of(*b, dims);
      if (size > kScratchpadBytes)
        throw Error(Code::ResourceExhausted, "toy", program_.name,
                    std::to_string(kScratchpadBytes) + " bytes or less", std::to_string(size));
      s.scratch_bytes.push_back(size);
    }
    for (const loops::Param& p : program_.params)
      if (p.access == loops::Access::Workspace) s.workspace_bytes.push_back(size_of(*p.buffer, dims));
    return s;
  }

  void run(int phase, void* const* buffers, const std::int64_t* dims, std::int64_t begin, std::int64_t end,
           std::byte* scratch, std::int32_t* status) const override {
    const Routine& code = codes_.at(static_cast<std::size_t>(phase));
    const std::span sizes(dims, program_.symbols.size());
    std::vector<Memory> memory;
    for (std::size_t i = 0; i < program_.params.size(); ++i) {
      const auto& b = *program_.params[i].buffer;
      memory.push_back({b.dtype, static_cast<std::byte*>(buffers[i]), at(b.extent, sizes), false});
    }
    for (const loops::Buffer& b : code.scratchpad) {
      memory.push_back({b->dtype, scratch, at(b->extent, sizes), true});
      scratch += size_of(*b, sizes);
    }
    std::vector<loops::Scalar> registers = code.registers;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      registers[static_cast<std::size_t>(code.first_symbol) + i] = {sizes[i], 0};
    for (std::int64_t i = begin; i < end; ++i) {
      registers[static_cast<std::size_t>(code.iteration)] = {i, 0};
      *cycles_ += simulate(code.instructions, registers, code.tiles, memory, status);
    }
  }

 private:
  loops::Program program_;
  std::shared_ptr<std::atomic<double>> cycles_;
  std::vector<loops::Expr> grids_;
  std::vector<Routine> codes_;

  std::int64_t at(const loops::Expr& e, std::span<const std::int64_t> dims) const {
    return loops::evaluate(e, program_.symbols, dims);
  }
  std::int64_t size_of(const loops::BufferNode& b, std::span<const std::int64_t> dims) const {
    return (bytes(b.dtype, at(b.extent, dims)) + kAlignment - 1) / kAlignment * kAlignment;
  }
};

}  // namespace

ToyTarget::ToyTarget() {
  info_.name = info_.isa = "toy";
  info_.vector_bytes = kTile * 4;
  info_.l1_bytes = info_.l2_bytes = kScratchpadBytes / 4;
  info_.tiles = {{DType::F32, DType::F32, kTile, kTile, kTile, false, loops::Space::Shared}};
}

std::vector<std::shared_ptr<const Kernel>> ToyTarget::compile(std::span<const loops::Program> programs) {
  std::vector<std::shared_ptr<const Kernel>> kernels;
  for (const loops::Program& p : programs) kernels.push_back(std::make_shared<ToyKernel>(p, cycles_));
  return kernels;
}

}  // namespace deepseek::toy
