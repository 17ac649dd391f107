#include "targets/cpu/cpu_target.h"

#include <llvm/ADT/StringRef.h>
#include <llvm/TargetParser/Host.h>

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "deepseek/error.h"
#include "deepseek/give_back.h"
#include "runtime/in_parallel.h"
#include "targets/cpu/isa.h"
#include "targets/cpu/jit.h"
#include "targets/cpu/kernel_cache.h"
#include "targets/llvm/object.h"

namespace deepseek {
namespace {

using loops::Program;

// Name of every compiled program, so that equal ones share code whatever they were called; while stages are dumped,
// programs keep their own.
constexpr const char* kName = "kernel";

// An object and its functions in this process. Kernels of equal programs share it.
struct CompiledCode {
  KernelImage image;
  std::shared_ptr<const LoadedCode> loaded;  // null: code for another machine
};

class CpuKernel final : public Kernel {
 public:
  CpuKernel(std::shared_ptr<const CompiledCode> compiled, std::size_t workspaces)
      : compiled_(std::move(compiled)), code_(compiled_->loaded.get()), workspaces_(workspaces) {}

  KernelShape shape(std::span<const std::int64_t> dims) const override {
    const std::size_t phases = code_->phases.size();
    std::vector<std::int64_t> out(2 * phases + workspaces_);
    code_->extents(dims.data(), out.data());
    const auto at = [&](std::size_t i) { return out.begin() + static_cast<std::ptrdiff_t>(i); };
    return {{at(0), at(phases)}, {at(phases), at(2 * phases)}, {at(2 * phases), out.end()}};
  }

  void run(int phase, void* const* buffers, const std::int64_t* dims, std::int64_t begin, std::int64_t end,
           std::byte* scratch, std::int32_t* status) const override {
    code_->phases[static_cast<std::size_t>(phase)](buffers, dims, begin, end, scratch, status);
  }

  std::optional<KernelImage> image() const override {
    KernelImage image = compiled_->image;
    image.workspaces = static_cast<int>(workspaces_);
    return image;
  }

 private:
  std::shared_ptr<const CompiledCode> compiled_;
  const LoadedCode* code_;
  std::size_t workspaces_;
};

// Code for another machine: it can be saved, and says so when it is run.
class ForeignKernel final : public Kernel {
 public:
  explicit ForeignKernel(KernelImage image) : image_(std::move(image)) {}

  KernelShape shape(std::span<const std::int64_t> /*dims*/) const override { refuse(); }
  void run(int /*phase*/, void* const* /*buffers*/, const std::int64_t* /*dims*/, std::int64_t /*begin*/,
           std::int64_t /*end*/, std::byte* /*scratch*/, std::int32_t* /*status*/) const override {
    refuse();
  }
  bool runs_here() const override { return false; }
  std::optional<KernelImage> image() const override { return image_; }

 private:
  [[noreturn]] void refuse() const {
    throw Error(Code::Unsupported, "run", "",
                "a machine with " + image_.features + " (" + image_.triple +
                    "): save() the executable and run it there",
                "this one");
  }
  KernelImage image_;
};

class CpuTarget final : public Target {
 public:
  CpuTarget(CpuIsa isa, bool runs_here) : isa_(std::move(isa)) { isa_.info.runs_here = runs_here; }

  const TargetInfo& info() const override { return isa_.info; }

  std::vector<std::shared_ptr<const Kernel>> compile(std::span<const Program> programs) override {
    struct Job {
      Program program;
      std::string key;
      std::shared_ptr<const CompiledCode> code;
    };
    std::vector<Job> jobs;
    std::unordered_map<std::string, std::size_t> by_key;
    std::vector<std::size_t> job_of(programs.size());
    std::vector<Job> all(programs.size());
    std::unordered_map<const void*, std::size_t> by_body;  // of programs that differ in their names at most
    std::vector<std::size_t> first(programs.size());
    for (std::size_t i = 0; i < programs.size(); ++i)
      first[i] = codegen::dumping() ? i : by_body.emplace(programs[i].body.get(), i).first->second;
    const auto prepare = [&](std::size_t i) {
      if (first[i] != i) return;
      all[i].program = programs[i];
      if (!codegen::dumping()) all[i].program.name = kName;
      all[i].key = key_of(all[i].program);
    };
    in_parallel(all.size(), prepare, true);
    for (std::size_t i = 0; i < programs.size(); ++i) {
      if (first[i] != i) {
        job_of[i] = job_of[first[i]];
        continue;
      }
      const auto [it, is_new] = by_key.emplace(all[i].key, jobs.size());
      if (is_new) jobs.push_back(std::move(all[i]));
      job_of[i] = it->second;
    }
    std::atomic<bool> generated{false};
    in_parallel(jobs.size(),
                [&](std::size_t i) { jobs[i].code = code(jobs[i].program, jobs[i].key, generated); });
    if (generated) give_back_heap();  // of small pieces, which the C library would keep
    std::vector<std::shared_ptr<const Kernel>> kernels;
    for (const std::size_t job : job_of) {
      std::size_t workspaces = 0;
      for (const loops::Param& param : jobs[job].program.params)
        workspaces += param.access == loops::Access::Workspace;
      kernels.push_back(make_kernel(jobs[job].code, workspaces));
    }
    return kernels;
  }

  std::optional<std::string> recall(const std::string& key) const override {
    return disk_ ? disk_->find(fact_key(key)) : std::nullopt;
  }
  void remember(const std::string& key, const std::string& text) override {
    if (disk_) disk_->store(fact_key(key), text);
  }

 private:
  std::shared_ptr<const Kernel> make_kernel(const std::shared_ptr<const CompiledCode>& code,
                                            std::size_t workspaces) const {
    if (code->loaded) return std::make_shared<CpuKernel>(code, workspaces);
    KernelImage image = code->image;
    image.workspaces = static_cast<int>(workspaces);
    return std::make_shared<ForeignKernel>(std::move(image));
  }

  // What holds for one kind of processor does not for another: the folder may be shared.
  std::string fact_key(const std::string& key) const {
    return KernelCache::key({"fact", key, isa_.info.isa, llvm::sys::getHostCPUName().str(),
                             std::to_string(isa_.info.l2_bytes), std::to_string(isa_.info.kept_bytes),
                             compiler_build()});
  }

  std::string key_of(const Program& p) const {
    return KernelCache::key({loops::print(p), isa_.info.isa, isa_.machine.triple, compiler_build()});
  }

  std::shared_ptr<const CompiledCode> code(const Program& p, const std::string& key,
                                           std::atomic<bool>& generated) {
    {
      const std::lock_guard lock(mutex_);
      if (auto known = compiled_[key].lock()) return known;
    }
    std::shared_ptr<const CompiledCode> result;
    if (disk_) result = load_cached(p, key);
    if (!result) {
      const std::string object = codegen::compile_object(p, isa_.machine);
      generated = true;
      if (disk_) disk_->store(key, object);
      result = load(p, object);
    }
    const std::lock_guard lock(mutex_);
    compiled_[key] = result;
    return result;
  }

  // Null when the cache has no entry, or one that cannot be loaded.
  std::shared_ptr<const CompiledCode> load_cached(const Program& p, const std::string& key) const {
    const auto object = disk_->find(key);
    if (!object) return nullptr;
    try {
      return load(p, *object);
    } catch (const Error&) {
      return nullptr;
    }
  }

  std::shared_ptr<const CompiledCode> load(const Program& p, const std::string& object) const {
    auto result = std::make_shared<CompiledCode>();
    const int phases = static_cast<int>(loops::phases(p).size());
    const auto* bytes = reinterpret_cast<const std::byte*>(object.data());
    result->image = {"elf",
                     p.name,
                     phases,
                     0,
                     isa_.machine.triple,
                     isa_.features,
                     std::make_shared<const std::vector<std::byte>>(bytes, bytes + object.size())};
    if (isa_.info.runs_here) result->loaded = load_object(object, p.name, phases);
    return result;
  }

  std::unique_ptr<KernelCache> disk_ = KernelCache::from_environment();
  std::mutex mutex_;
  std::unordered_map<std::string, std::weak_ptr<const CompiledCode>> compiled_;  // by key
  CpuIsa isa_;
};

}  // namespace

std::shared_ptr<Target> cpu_target() {
  static const auto target = std::make_shared<CpuTarget>(host_cpu_isa(), true);
  return target;
}

std::shared_ptr<Target> cpu_target(std::string_view isa) {
  return std::make_shared<CpuTarget>(cpu_isa(isa), host_has(isa));
}

std::shared_ptr<Target> emulated_cpu_target(std::string_view isa) {
  return std::make_shared<CpuTarget>(cpu_isa(isa), true);
}

}  // namespace deepseek
