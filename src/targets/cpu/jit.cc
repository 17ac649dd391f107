#include "targets/cpu/jit.h"

#include <llvm/ExecutionEngine/Orc/Core.h>
#include <llvm/ExecutionEngine/Orc/ObjectLinkingLayer.h>
#include <llvm/ExecutionEngine/Orc/SelfExecutorProcessControl.h>
#include <llvm/Support/MemoryBuffer.h>

#include <atomic>

#include "deepseek/error.h"

namespace deepseek {
namespace {

namespace orc = llvm::orc;

[[noreturn]] void bad_object(llvm::Error error) {
  throw Error(Code::DataLoss, "jit", "", "an object file of ours", llvm::toString(std::move(error)));
}

// The session that everything is linked in. It outlives each LoadedCode.
class Session {
 public:
  Session() : session_(llvm::cantFail(orc::SelfExecutorProcessControl::Create())), linker_(session_) {}
  ~Session() { llvm::cantFail(session_.endSession()); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  orc::ExecutionSession& session() { return session_; }
  orc::ObjectLinkingLayer& linker() { return linker_; }
  std::string unique_name() { return "kernel" + std::to_string(next_++); }

 private:
  orc::ExecutionSession session_;
  orc::ObjectLinkingLayer linker_;
  std::atomic<std::uint64_t> next_{0};
};

std::shared_ptr<Session> shared_session() {
  static const auto session = std::make_shared<Session>();
  return session;
}

class Linked final : public LoadedCode {
 public:
  Linked(std::shared_ptr<Session> owner, orc::JITDylib& library)
      : owner_(std::move(owner)), library_(&library) {}
  ~Linked() override { llvm::cantFail(owner_->session().removeJITDylib(*library_)); }
  Linked(const Linked&) = delete;
  Linked& operator=(const Linked&) = delete;

 private:
  std::shared_ptr<Session> owner_;
  orc::JITDylibSP library_;
};

}  // namespace

std::shared_ptr<const LoadedCode> load_object(const std::string& object, const std::string& name,
                                              int phases) {
  const auto owner = shared_session();
  orc::ExecutionSession& session = owner->session();
  orc::JITDylib& library = session.createBareJITDylib(owner->unique_name());
  auto code = std::make_shared<Linked>(owner, library);
  if (auto error = owner->linker().add(library, llvm::MemoryBuffer::getMemBufferCopy(object, name)))
    bad_object(std::move(error));
  orc::SymbolLookupSet wanted;
  const auto intern = [&](const std::string& suffix) { return session.intern(name + suffix); };
  const auto extents = intern("_extents");
  wanted.add(extents);
  std::vector<orc::SymbolStringPtr> names;
  for (int i = 0; i < phases; ++i) {
    names.push_back(intern("_phase" + std::to_string(i)));
    wanted.add(names.back());
  }
  auto found = session.lookup({{&library, orc::JITDylibLookupFlags::MatchAllSymbols}}, std::move(wanted));
  if (!found) bad_object(found.takeError());
  code->extents = (*found)[extents].getAddress().toPtr<ExtentsFn>();
  for (const auto& n : names) code->phases.push_back((*found)[n].getAddress().toPtr<PhaseFn>());
  return code;
}

}  // namespace deepseek
