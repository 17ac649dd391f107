#include "targets/llvm/object.h"

#include <llvm/Analysis/CGSCCPassManager.h>
#include <llvm/Analysis/LoopAnalysisManager.h>
#include <llvm/Analysis/TargetLibraryInfo.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Object/ObjectFile.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/CommandLine.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/TargetParser/Triple.h>
#include <llvm/Transforms/InstCombine/InstCombine.h>
#include <llvm/Transforms/Scalar/DCE.h>
#include <llvm/Transforms/Scalar/EarlyCSE.h>
#include <llvm/Transforms/Scalar/LICM.h>
#include <llvm/Transforms/Scalar/LoopPassManager.h>
#include <llvm/Transforms/Scalar/SROA.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "deepseek/error.h"
#include "loops/math.h"
#include "targets/llvm/lone_stores.h"
#include "targets/llvm/program.h"

namespace deepseek::codegen {
namespace {

void initialize_llvm() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    // It regroups a tile's integer sums for shorter chains, which takes registers that the tile fills.
    const auto& options = llvm::cl::getRegisteredOptions();
    if (const auto it = options.find("x86-machine-combiner"); it != options.end())
      it->second->addOccurrence(0, "", "false");
  });
}

std::unique_ptr<llvm::TargetMachine> make_target_machine(const Machine& machine) {
  initialize_llvm();
  const llvm::Triple triple(machine.triple);
  std::string error;
#if LLVM_VERSION_MAJOR >= 22
  const llvm::Target* target = llvm::TargetRegistry::lookupTarget(triple, error);
#else
  const llvm::Target* target = llvm::TargetRegistry::lookupTarget(machine.triple, error);
#endif
  if (!target) throw Error(Code::Internal, "codegen", "", "an LLVM target for " + machine.triple, error);
  llvm::TargetOptions options;
  const auto level = llvm::CodeGenOptLevel::Default;
#if LLVM_VERSION_MAJOR >= 21
  const llvm::Triple& name = triple;
#else
  const std::string& name = machine.triple;
#endif
  return std::unique_ptr<llvm::TargetMachine>(
      target->createTargetMachine(name, machine.cpu, machine.features, options, llvm::Reloc::PIC_,
                                  machine.gpu ? std::nullopt : std::optional(llvm::CodeModel::Small), level));
}

// Making one takes a third of a millisecond: each thread keeps its own.
llvm::TargetMachine& target_machine(const Machine& machine) {
  thread_local std::map<std::string, std::unique_ptr<llvm::TargetMachine>> machines;
  auto& slot = machines[machine.triple + "/" + machine.cpu + "/" + machine.features];
  if (!slot) slot = make_target_machine(machine);
  return *slot;
}

void optimize(llvm::Module& module, llvm::TargetMachine& target) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager cgscc;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&target);
  // No name means anything to the optimiser: it neither finds library calls nor makes them.
  llvm::TargetLibraryInfoImpl library{llvm::Triple(module.getTargetTriple())};
  library.disableAllFunctions();
  functions.registerPass([&] { return llvm::TargetLibraryAnalysis(library); });
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(cgscc);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, cgscc, modules);
  llvm::FunctionPassManager passes;
  passes.addPass(llvm::SROAPass(llvm::SROAOptions::ModifyCFG));
  passes.addPass(llvm::EarlyCSEPass(true));
  passes.addPass(llvm::createFunctionToLoopPassAdaptor(llvm::LICMPass(llvm::LICMOptions()), true));
  for (llvm::Function& f : module)
    if (!f.isDeclaration()) {
      passes.run(f, functions);
      expand_lone_stores(f);
    }
}

std::string generate(llvm::Module& module, llvm::TargetMachine& target, bool assembly) {
  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream out(bytes);
  llvm::legacy::PassManager passes;
  llvm::TargetLibraryInfoImpl library{llvm::Triple(module.getTargetTriple())};
  library.disableAllFunctions();
  passes.add(new llvm::TargetLibraryInfoWrapperPass(library));
  const auto kind = assembly ? llvm::CodeGenFileType::AssemblyFile : llvm::CodeGenFileType::ObjectFile;
  check(!target.addPassesToEmitFile(passes, out, nullptr, kind), "codegen: a target that emits code");
  passes.run(module);
  return {bytes.begin(), bytes.end()};
}

std::string print_module(const llvm::Module& module) {
  std::string text;
  llvm::raw_string_ostream out(text);
  module.print(out, nullptr);
  return text;
}

void dump(const loops::Program& p, const char* suffix, const std::string& text) {
  const char* folder = std::getenv("DEEPSEEK_DUMP");
  if (!folder || !*folder) return;
  std::filesystem::create_directories(folder);
  // Programs reach the compiler without their names: the text tells them apart.
  const std::string name = p.name + "_" + std::to_string(std::hash<std::string>{}(loops::print(p)));
  std::ofstream(std::filesystem::path(folder) / (name + suffix), std::ios::binary) << text;
}

std::unique_ptr<llvm::Module> build(llvm::LLVMContext& context, const loops::Program& p,
                                    const Machine& machine, llvm::TargetMachine& target) {
  auto module = std::make_unique<llvm::Module>(p.name, context);
#if LLVM_VERSION_MAJOR >= 21
  module->setTargetTriple(llvm::Triple(machine.triple));
#else
  module->setTargetTriple(machine.triple);
#endif
  module->setDataLayout(target.createDataLayout());
  emit_program(*module, machine, loops::expand_math(p, machine.has_ldexp));
  std::string problem;
  llvm::raw_string_ostream out(problem);
  if (dumping()) {
    dump(p, ".loops", loops::print(p));
    dump(p, ".raw.ll", print_module(*module));
  }
#ifdef NDEBUG
  const bool verify = dumping();
#else
  const bool verify = true;
#endif
  if (verify && llvm::verifyModule(*module, &out))
    throw Error(Code::Internal, p.name, "", "valid LLVM IR", problem);
  optimize(*module, target);
  if (dumping()) dump(p, ".ll", print_module(*module));
  return module;
}

}  // namespace

bool dumping() {
  const char* folder = std::getenv("DEEPSEEK_DUMP");
  return folder && *folder;
}

std::string compile_object(const loops::Program& p, const Machine& machine) {
  llvm::TargetMachine& target = target_machine(machine);
  if (dumping()) dump(p, ".s", compile_assembly(p, machine));
  llvm::LLVMContext context;
  const auto module = build(context, p, machine, target);
  std::string object = generate(*module, target, false);
  const auto imports = imported_symbols(object);
  if (!imports.empty())
    throw Error(Code::Internal, p.name, "", "an object that imports no symbol", imports.front());
  return object;
}

std::string compile_assembly(const loops::Program& p, const Machine& machine) {
  llvm::TargetMachine& target = target_machine(machine);
  llvm::LLVMContext context;
  const auto module = build(context, p, machine, target);
  return generate(*module, target, true);
}

std::vector<std::string> imported_symbols(const std::string& object) {
  auto file = llvm::object::ObjectFile::createObjectFile(llvm::MemoryBufferRef(object, "object"));
  if (!file) throw Error(Code::Internal, "codegen", "", "an object file", llvm::toString(file.takeError()));
  std::vector<std::string> names;
  for (const llvm::object::SymbolRef& symbol : (*file)->symbols()) {
    const auto flags = llvm::cantFail(symbol.getFlags());
    const std::string name = llvm::cantFail(symbol.getName()).str();
    if ((flags & llvm::object::SymbolRef::SF_Undefined) != 0 && !name.empty()) names.push_back(name);
  }
  return names;
}

}  // namespace deepseek::codegen
