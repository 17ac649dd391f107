#include "targets/llvm/program.h"

#include <llvm/IR/Constants.h>
#include <llvm/IR/Verifier.h>

#include "deepseek/error.h"
#include "targets/llvm/emitter.h"
#include "targets/llvm/hardware_loops.h"

namespace deepseek::codegen {
namespace {

using llvm::BasicBlock;
using llvm::Function;
using llvm::FunctionType;
using loops::as;
using loops::Expr;
using loops::Phase;
using loops::Program;
using loops::Stmt;

void set_attributes(Function& f, const Machine& machine) {
  f.addFnAttr(llvm::Attribute::NoUnwind);
  f.addFnAttr("no-builtins");
  f.addFnAttr("target-cpu", machine.cpu);
  f.addFnAttr("target-features", machine.features);
  if (machine.vector_bits == 0) return;
  f.addFnAttr("prefer-vector-width", std::to_string(machine.vector_bits));
  f.addFnAttr("min-legal-vector-width", std::to_string(machine.vector_bits));
}

constexpr unsigned kGlobalSpace = 1;  // NVPTX's address space of device memory

void set_block_dims(Function& f, const std::array<std::int64_t, 3>& dims) {
#if LLVM_VERSION_MAJOR >= 21
  std::string text;
  for (const std::int64_t d : dims) text += (text.empty() ? "" : ",") + std::to_string(d);
  f.addFnAttr("nvvm.reqntid", text);
#else
  auto& context = f.getContext();
  auto* notes = f.getParent()->getOrInsertNamedMetadata("nvvm.annotations");
  constexpr const char* kNames[] = {"reqntidx", "reqntidy", "reqntidz"};
  for (std::size_t i = 0; i < dims.size(); ++i)
    notes->addOperand(llvm::MDNode::get(
        context, {llvm::ValueAsMetadata::get(&f), llvm::MDString::get(context, kNames[i]),
                  llvm::ConstantAsMetadata::get(llvm::ConstantInt::get(
                      llvm::Type::getInt32Ty(context), static_cast<std::uint64_t>(dims[i])))}));
#endif
}

// Values of the program's symbols, read from `dims`.
void bind_symbols(Emitter& e, const Program& p, llvm::Value* dims) {
  auto& b = e.builder();
  for (std::size_t i = 0; i < p.symbols.size(); ++i)
    e.bind(p.symbols[i], b.CreateAlignedLoad(b.getInt64Ty(), b.CreateConstGEP1_64(b.getInt64Ty(), dims, i),
                                             llvm::Align(8), p.symbols[i]));
}

constexpr std::uint64_t kLineBytes = 64;  // of a cache

// An internal function (buffers..., dims, begin, end, scratch, status), its pointers known to be distinct. One that
// streams wants the streams among its buffers to begin on a cache line.
Function* emit_body(llvm::Module& module, const Machine& machine, const Program& p, const Phase& phase,
                    const std::string& name, bool streams) {
  auto& context = module.getContext();
  llvm::Type *pointer = llvm::PointerType::get(context, 0), *i64 = llvm::Type::getInt64Ty(context);
  std::vector<llvm::Type*> types(p.params.size(), pointer);
  types.insert(types.end(), {pointer, i64, i64, pointer, pointer});
  auto* f = Function::Create(FunctionType::get(llvm::Type::getVoidTy(context), types, false),
                             Function::InternalLinkage, name, module);
  set_attributes(*f, machine);
  f->addFnAttr(llvm::Attribute::NoInline);
  const auto n = static_cast<unsigned>(p.params.size());
  for (unsigned i = 0; i < f->arg_size(); ++i)
    if (f->getArg(i)->getType()->isPointerTy()) f->addParamAttr(i, llvm::Attribute::NoAlias);
  for (unsigned i = 0; i < n; ++i) {
    f->getArg(i)->setName(p.params[i].buffer->name);
    if (loops::is_only_read(p.params[i].access)) f->addParamAttr(i, llvm::Attribute::ReadOnly);
  }
  BasicBlock::Create(context, "entry", f);
  const ScratchPlan plan = plan_scratch(phase.whole(), machine);
  Frame frame;
  frame.function = f;
  frame.status = f->getArg(n + 4);
  frame.scratch = f->getArg(n + 3);
  frame.plan = &plan;
  const std::optional<AmxPlan> amx = plan_amx(phase.whole(), machine);
  if (amx) frame.amx = &*amx;
  Emitter e(machine, module, frame);
  e.configure_amx();
  bind_symbols(e, p, f->getArg(n));
  for (unsigned i = 0; i < n; ++i) {
    e.bind(p.params[i].buffer, f->getArg(i));
    if (streams && p.params[i].access == loops::Access::Stream) e.stream(p.params[i].buffer);
    if (p.params[i].access == loops::Access::Scan) e.ask_ahead(p.params[i].buffer);
  }
  for (const Stmt& s : phase.prefix) e.emit(s);
  if (phase.parallel)
    e.emit_range(phase.parallel->var, f->getArg(n + 1), f->getArg(n + 2), phase.parallel->body);
  else
    e.emit(phase.body);
  e.release_amx();
  // Stores past the caches keep no order: whoever is told that the phase is over has to see them.
  if (streams) e.builder().CreateFence(llvm::AtomicOrdering::SequentiallyConsistent);
  e.builder().CreateRetVoid();
  return f;
}

// Whether all buffers that are streams begin on a cache line; null where there are none.
llvm::Value* streams_aligned(llvm::IRBuilder<>& b, const Program& p, std::span<llvm::Value* const> buffers) {
  llvm::Value* places = nullptr;
  for (std::size_t i = 0; i < p.params.size(); ++i) {
    if (p.params[i].access != loops::Access::Stream) continue;
    llvm::Value* place = b.CreatePtrToInt(buffers[i], b.getInt64Ty());
    places = places ? b.CreateOr(places, place) : place;
  }
  return places ? b.CreateICmpEQ(b.CreateAnd(places, kLineBytes - 1), b.getInt64(0)) : nullptr;
}

void emit_phase(llvm::Module& module, const Machine& machine, const Program& p, const Phase& phase,
                const std::string& name) {
  auto& context = module.getContext();
  llvm::Type *pointer = llvm::PointerType::get(context, 0), *i64 = llvm::Type::getInt64Ty(context);
  auto* f = Function::Create(FunctionType::get(llvm::Type::getVoidTy(context),
                                               {pointer, pointer, i64, i64, pointer, pointer}, false),
                             Function::ExternalLinkage, name, module);
  set_attributes(*f, machine);
  llvm::IRBuilder<> b(BasicBlock::Create(context, "entry", f));
  std::vector<llvm::Value*> args;
  for (std::size_t i = 0; i < p.params.size(); ++i)
    args.push_back(
        b.CreateAlignedLoad(pointer, b.CreateConstGEP1_64(pointer, f->getArg(0), i), llvm::Align(8)));
  for (unsigned i = 1; i < f->arg_size(); ++i) args.push_back(f->getArg(i));
  const auto run = [&](const char* suffix, bool streams) {
    b.CreateCall(emit_body(module, machine, p, phase, name + suffix, streams), args);
    b.CreateRetVoid();
  };
  if (llvm::Value* aligned = streams_aligned(b, p, args)) {
    auto* streaming = BasicBlock::Create(context, "streaming", f);
    auto* plain = BasicBlock::Create(context, "plain", f);
    b.CreateCondBr(aligned, streaming, plain);
    b.SetInsertPoint(streaming);
    run("_stream", true);
    b.SetInsertPoint(plain);
  }
  run("_body", false);
}

// A GPU's entry point: buffers..., symbols..., status. Its loops find their place in the grid themselves.
void emit_gpu_phase(llvm::Module& module, const Machine& machine, const Program& p, const Phase& phase,
                    const std::string& name) {
  auto& context = module.getContext();
  const std::size_t buffers = p.params.size(), symbols = p.symbols.size();
  std::vector<llvm::Type*> types(buffers, llvm::PointerType::get(context, kGlobalSpace));
  types.insert(types.end(), symbols, llvm::Type::getInt64Ty(context));
  types.push_back(llvm::PointerType::get(context, kGlobalSpace));
  auto* f = Function::Create(FunctionType::get(llvm::Type::getVoidTy(context), types, false),
                             Function::ExternalLinkage, name, module);
  set_attributes(*f, machine);
  f->setCallingConv(llvm::CallingConv::PTX_Kernel);
  const auto arg = [&](std::size_t i) { return f->getArg(static_cast<unsigned>(i)); };
  for (std::size_t i = 0; i < buffers; ++i) {
    f->addParamAttr(static_cast<unsigned>(i), llvm::Attribute::NoAlias);
    if (loops::is_only_read(p.params[i].access))
      f->addParamAttr(static_cast<unsigned>(i), llvm::Attribute::ReadOnly);
  }
  BasicBlock::Create(context, "entry", f);
  const ScratchPlan plan;
  Frame frame;
  frame.function = f;
  frame.status = arg(buffers + symbols);
  frame.plan = &plan;
  frame.block_dims = block_dims(phase.body);
  set_block_dims(*f, frame.block_dims);
  Emitter e(machine, module, frame);
  for (std::size_t i = 0; i < buffers; ++i) e.bind(p.params[i].buffer, arg(i));
  for (std::size_t i = 0; i < symbols; ++i) e.bind(p.symbols[i], arg(buffers + i));
  e.emit(phase.whole());
  e.builder().CreateRetVoid();
}

void emit_extents(llvm::Module& module, const Machine& machine, const Program& p,
                  const std::vector<Phase>& phases) {
  auto& context = module.getContext();
  llvm::Type* pointer = llvm::PointerType::get(context, 0);
  auto* f = Function::Create(FunctionType::get(llvm::Type::getVoidTy(context), {pointer, pointer}, false),
                             Function::ExternalLinkage, p.name + "_extents", module);
  set_attributes(*f, machine);
  BasicBlock::Create(context, "entry", f);
  Frame frame;
  frame.function = f;
  Emitter e(machine, module, frame);
  bind_symbols(e, p, f->getArg(0));
  std::uint64_t next = 0;
  auto& b = e.builder();
  const auto put = [&](const Expr& value) {
    b.CreateAlignedStore(e.emit_scalar(value), b.CreateConstGEP1_64(b.getInt64Ty(), f->getArg(1), next++),
                         llvm::Align(8));
  };
  for (const Phase& phase : phases) {
    for (const Stmt& s : phase.prefix)
      if (as<loops::Let>(s)) e.emit(s);
    put(phase.parallel ? phase.parallel->extent : Expr(1));
  }
  for (const Phase& phase : phases) put(plan_scratch(phase.whole(), machine).bytes);
  for (const loops::Param& param : p.params)
    if (param.access == loops::Access::Workspace) {
      const DType t = param.buffer->dtype;
      put(bits(t) >= 8 ? param.buffer->extent * Expr(bits(t) / 8)
                       : loops::floordiv(param.buffer->extent + Expr(8 / bits(t) - 1), Expr(8 / bits(t))));
    }
  b.CreateRetVoid();
}

}  // namespace

void emit_program(llvm::Module& module, const Machine& machine, const Program& p) {
  const std::vector<Phase> all = loops::phases(p);
  for (std::size_t i = 0; i < all.size(); ++i)
    (machine.gpu ? emit_gpu_phase : emit_phase)(module, machine, p, all[i],
                                                p.name + "_phase" + std::to_string(i));
  if (machine.gpu) return;
  emit_extents(module, machine, p, all);
}

}  // namespace deepseek::codegen
