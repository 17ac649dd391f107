#include "loops/interpreter.h"

#include <algorithm>

#include "deepseek/error.h"
#include "loops/assemble.h"
#include "loops/scalar.h"

namespace deepseek::loops {
namespace {

class InterpretedKernel : public Kernel {
 public:
  InterpretedKernel(const Program& p, InterpreterOptions options)
      : params_(p.params), symbols_(p.symbols), options_(options) {
    for (const Phase& phase : phases(p)) codes_.push_back(assemble(p, phase, options.check));
  }

  KernelShape shape(std::span<const std::int64_t> dims) const override {
    KernelShape s;
    for (const auto& code : codes_) {
      s.grid.push_back(code.grid ? std::max<std::int64_t>(0, evaluate(code.grid, symbols_, dims)) : 1);
      s.scratch_bytes.push_back(0);
    }
    for (const Param& p : params_)
      if (p.access == Access::Workspace)
        s.workspace_bytes.push_back(bytes(p.buffer->dtype, evaluate(p.buffer->extent, symbols_, dims)));
    return s;
  }

  void run(int phase, void* const* buffers, const std::int64_t* dims, std::int64_t begin, std::int64_t end,
           std::byte* /*scratch*/, std::int32_t* status) const override {
    const auto& code = codes_.at(static_cast<std::size_t>(phase));
    Frame f = frame(code, buffers, dims, status);
    const std::int64_t n = end - begin;
    // In checking mode every other iteration first, then the rest, backwards.
    for (std::int64_t k = 0; k < n; ++k) {
      std::int64_t i = begin + k;
      if (options_.check) i = 2 * k < n ? begin + 2 * k : begin + 2 * (n - 1 - k) + 1;
      if (code.grid_variable != 0) f.registers[code.grid_variable].set(i);
      f.next = code.instructions.data();
      loops::run(f);
      if (options_.check && !f.pending.empty())
        throw Error(Code::Internal, "interpreter: copy", "", "a Wait for every copy",
                    "none for a copy to " + code.buffers[f.pending.front().to].name);
    }
  }

 private:
  std::vector<Param> params_;
  std::vector<std::string> symbols_;
  InterpreterOptions options_;
  std::vector<Assembled> codes_;

  Frame frame(const Assembled& code, void* const* buffers, const std::int64_t* dims,
              std::int32_t* status) const {
    Frame f;
    f.code = &code;
    f.registers = code.registers;
    for (std::size_t i = 0; i < symbols_.size(); ++i) f.registers[code.first_symbol + i].set(dims[i]);
    f.buffers.resize(code.buffers.size());
    f.storage.resize(code.buffers.size());
    f.storage_bytes.resize(code.buffers.size());
    f.tiles.resize(code.tiles.size());
    for (std::size_t i = 0; i < params_.size(); ++i) {
      f.buffers[i].data = static_cast<std::byte*>(buffers[i]);
      if (options_.check)
        f.buffers[i].extent = evaluate(params_[i].buffer->extent, symbols_, {dims, symbols_.size()});
    }
    f.status = status;
    f.seed = options_.seed;
    return f;
  }
};

Scalar value_of(const Expr& e, std::span<const std::string> symbols, std::span<const std::int64_t> dims) {
  switch (e.op()) {
    case Op::Const:
      return scalar_of(*e);
    case Op::Symbol: {
      const auto it = std::ranges::find(symbols, e->symbol);
      if (it == symbols.end())
        throw Error(Code::Internal, "interpreter", "", "a symbol of the program", e->symbol);
      return {dims[static_cast<std::size_t>(it - symbols.begin())], 0};
    }
    case Op::Var:
    case Op::Load:
    case Op::Reduce:
    case Op::Bitcast:
      throw Error(Code::Internal, "interpreter", "", "an expression over symbols", print(e));
    default:
      break;
  }
  std::vector<Scalar> args;
  for (const Expr& a : e->args) args.push_back(value_of(a, symbols, dims));
  if (e.op() == Op::Cast) return convert(e->args[0].type(), e.type(), args[0]);
  return evaluate(e.op(), e->args.back().type(), args);
}

}  // namespace

std::shared_ptr<const Kernel> interpret(const Program& program, InterpreterOptions options) {
  return std::make_shared<InterpretedKernel>(program, options);
}

std::int64_t evaluate(const Expr& e, std::span<const std::string> symbols,
                      std::span<const std::int64_t> dims) {
  return value_of(e, symbols, dims).i;
}

}  // namespace deepseek::loops
