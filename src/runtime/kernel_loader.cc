#include "runtime/kernel_loader.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "deepseek/error.h"
#include "runtime/amx_permission.h"

namespace deepseek {
namespace {

// More than any program of ours has.
constexpr int kMaxCount = 1 << 12;

class ObjectKernel final : public Kernel {
 public:
  ObjectKernel(KernelImage image, std::shared_ptr<const ObjectCode> code)
      : image_(std::move(image)), code_(std::move(code)) {
    extents_ = reinterpret_cast<ExtentsFn>(code_->find(image_.name + "_extents"));
    for (int i = 0; i < image_.phases; ++i)
      phases_.push_back(reinterpret_cast<PhaseFn>(code_->find(image_.name + "_phase" + std::to_string(i))));
  }

  KernelShape shape(std::span<const std::int64_t> dims) const override {
    const auto phases = static_cast<std::ptrdiff_t>(phases_.size());
    std::vector<std::int64_t> out(2 * phases_.size() + static_cast<std::size_t>(image_.workspaces));
    extents_(dims.data(), out.data());
    return {{out.begin(), out.begin() + phases},
            {out.begin() + phases, out.begin() + 2 * phases},
            {out.begin() + 2 * phases, out.end()}};
  }
  void run(int phase, void* const* buffers, const std::int64_t* dims, std::int64_t begin, std::int64_t end,
           std::byte* scratch, std::int32_t* status) const override {
    phases_[static_cast<std::size_t>(phase)](buffers, dims, begin, end, scratch, status);
  }
  std::optional<KernelImage> image() const override { return image_; }

 private:
  KernelImage image_;
  std::shared_ptr<const ObjectCode> code_;
  ExtentsFn extents_;
  std::vector<PhaseFn> phases_;
};

std::shared_ptr<const Kernel> load_object_kernel(const KernelImage& image) {
  const std::string here = host_triple(), arch = here.substr(0, here.find('-'));
  if (image.triple.substr(0, image.triple.find('-')) != arch)
    throw Error(Code::Unsupported, "load", "", "code for " + here, "code for " + image.triple);
  if (!host_has_features(image.features))
    throw Error(Code::Unsupported, "load", "", "a machine with " + image.features,
                "one that lacks some of it");
  if (!image.code || image.phases < 0 || image.phases > kMaxCount || image.workspaces < 0 ||
      image.workspaces > kMaxCount)
    throw Error(Code::DataLoss, "load", "", "a kernel", "impossible counts");
  // Kernels of one object share the loaded code.
  static std::mutex mutex;
  static std::map<const void*, std::weak_ptr<const ObjectCode>> loaded;
  std::shared_ptr<const ObjectCode> code;
  {
    const std::lock_guard lock(mutex);
    std::erase_if(loaded, [](const auto& entry) { return entry.second.expired(); });
    code = loaded[image.code.get()].lock();
    if (!code) loaded[image.code.get()] = code = load_elf(*image.code);
  }
  return std::make_shared<ObjectKernel>(image, std::move(code));
}

struct Loaders {
  std::mutex mutex;
  std::map<std::string, KernelLoader> by_format{{"elf", load_object_kernel}};
};
Loaders& loaders() {
  static Loaders all;
  return all;
}

// A feature's name as LLVM and as the kernel write it, made equal: "avx512_vnni", "avx512vnni"; "sse4_2", "sse4.2".
std::string plain(std::string feature) {
  std::erase_if(feature, [](char c) { return c == '_' || c == '-' || c == '.'; });
  if (feature == "abm") return "lzcnt";
  if (feature == "bmi1") return "bmi";
  return feature;
}

#if defined(__aarch64__)
std::set<std::string> read_features() {
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMD) == 0) return {};
  return {"neon"};
}
#else
std::set<std::string> read_features() {
  std::set<std::string> found;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) found.insert(plain(word));
    break;
  }
  return found;
}
#endif

}  // namespace

bool host_has_features(const std::string& features) {
  static const std::set<std::string> host = read_features();
  std::istringstream list(features);
  for (std::string f; std::getline(list, f, ',');)
    if (!f.empty() && (!host.contains(plain(f)) || (plain(f) == "amxtile" && !may_use_amx()))) return false;
  return true;
}

std::string host_triple() {
#if defined(__x86_64__)
  return "x86_64-unknown-linux-gnu";
#elif defined(__aarch64__)
  return "aarch64-unknown-linux-gnu";
#else
  return "unknown-unknown-linux-gnu";
#endif
}

bool register_kernel_loader(std::string format, KernelLoader loader) {
  const std::lock_guard lock(loaders().mutex);
  loaders().by_format[std::move(format)] = std::move(loader);
  return true;
}

std::shared_ptr<const Kernel> load_kernel(const KernelImage& image) {
  KernelLoader loader;
  {
    const std::lock_guard lock(loaders().mutex);
    const auto it = loaders().by_format.find(image.format);
    if (it == loaders().by_format.end())
      throw Error(Code::Unsupported, "load", "", "a kernel format that this library knows",
                  "'" + image.format + "'");
    loader = it->second;
  }
  return loader(image);
}

}  // namespace deepseek
