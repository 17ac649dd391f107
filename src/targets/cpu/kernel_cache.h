// Object code kept on disk between runs, so that what was compiled once loads in microseconds.
//
// Entries are files named by a digest of what they were compiled from: loop program, instruction set, compiler
// build. The folder is private (mode 0700, owner checked), because loading code means trusting it. Processes
// may share it: entries appear by rename. An entry that is missing, truncated or damaged counts as absent;
// a folder that cannot be used turns the cache off. Nothing here throws for the state of the disk.
//
// DEEPSEEK_CACHE=off turns it off; DEEPSEEK_CACHE_DIR, else XDG_CACHE_HOME/deepseek, else ~/.cache/deepseek holds it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace deepseek {

class KernelCache {
 public:
  static constexpr std::int64_t kDefaultBytes = 256 << 20;

  // Uses (and makes, if need be) `folder`. Null when it cannot be made private.
  static std::unique_ptr<KernelCache> open(const std::string& folder, std::int64_t max_bytes = kDefaultBytes);
  // As the environment says; null when off or not usable.
  static std::unique_ptr<KernelCache> from_environment();
  ~KernelCache();
  KernelCache(const KernelCache&) = delete;
  KernelCache& operator=(const KernelCache&) = delete;

  // A digest of the parts, as hexadecimal text. Parts are told apart: ("ab", "c") is not ("a", "bc").
  static std::string key(std::initializer_list<std::string_view> parts);

  std::optional<std::string> find(const std::string& key) const;
  void store(const std::string& key, std::string_view object);
  // Removes the entries used longest ago until three quarters of the limit are kept.
  void trim();

 private:
  KernelCache(int folder, std::int64_t max_bytes) : folder_(folder), max_bytes_(max_bytes) {}

  int folder_;  // descriptor
  std::int64_t max_bytes_;
  std::atomic<std::int64_t> stored_{0};  // bytes since the last trim
};

// Identifies the build of the compiler in this process: its build id, or its file's size and time.
const std::string& compiler_build();

}  // namespace deepseek
