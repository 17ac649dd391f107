#include "targets/cpu/kernel_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <llvm/Support/BLAKE3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace deepseek {
namespace {

// An open file or folder.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

constexpr std::size_t kDigestBytes = 16;

// Before each object in its file.
struct Header {
  char magic[8];
  std::uint64_t bytes;
  std::uint8_t digest[kDigestBytes];
};
constexpr char kMagic[8] = {'d', 's', 'k', 'e', 'r', 'n', '0', '1'};
constexpr const char* kTemporary = "tmp-";

void digest(std::string_view data, std::uint8_t* out) {
  llvm::BLAKE3 hasher;
  hasher.update(llvm::StringRef(data.data(), data.size()));
  const auto result = hasher.final<kDigestBytes>();
  std::copy(result.begin(), result.end(), out);
}

Header header_of(std::string_view object) {
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.bytes = object.size();
  digest(object, h.digest);
  return h;
}

bool read_all(int fd, void* to, std::size_t bytes) {
  auto* p = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t n = read(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    bytes -= static_cast<std::size_t>(n);
  }
  return true;
}

bool write_all(int fd, const void* from, std::size_t bytes) {
  const auto* p = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t n = write(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    bytes -= static_cast<std::size_t>(n);
  }
  return true;
}

// mkdir -p; false when some part is in the way.
bool make_folders(const std::string& path) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at + 1);
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), S_IRWXU) != 0 && errno != EEXIST) return false;
  }
  return true;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

std::unique_ptr<KernelCache> KernelCache::open(const std::string& folder, std::int64_t max_bytes) {
  if (folder.empty() || !make_folders(folder)) return nullptr;
  Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info{};
  if (!fd || fstat(fd.get(), &info) != 0 || info.st_uid != geteuid()) return nullptr;
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) return nullptr;
  return std::unique_ptr<KernelCache>(new KernelCache(fd.release(), max_bytes));
}

std::unique_ptr<KernelCache> KernelCache::from_environment() {
  if (environment("DEEPSEEK_CACHE") == "off") return nullptr;
  std::string base = environment("DEEPSEEK_CACHE_DIR");
  if (base.empty()) {
    base = environment("XDG_CACHE_HOME");
    if (base.empty() && !environment("HOME").empty()) base = environment("HOME") + "/.cache";
    if (base.empty()) return nullptr;
    base += "/deepseek";
  }
  return open(base + "/kernels");
}

KernelCache::~KernelCache() { close(folder_); }

std::string KernelCache::key(std::initializer_list<std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) {
    all += std::to_string(part.size());
    all += ':';
    all += part;
  }
  std::uint8_t bytes[kDigestBytes];
  digest(all, bytes);
  std::string text;
  for (const std::uint8_t b : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[b >> 4];
    text += kDigits[b & 15];
  }
  return text;
}

std::optional<std::string> KernelCache::find(const std::string& key) const {
  const Descriptor fd(openat(folder_, key.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info{};
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid())
    return std::nullopt;
  Header header{};
  if (!read_all(fd.get(), &header, sizeof header)) return std::nullopt;
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return std::nullopt;
  if (header.bytes != static_cast<std::uint64_t>(info.st_size) - sizeof header) return std::nullopt;
  std::string object(header.bytes, '\0');
  if (!read_all(fd.get(), object.data(), object.size())) return std::nullopt;
  const Header expected = header_of(object);
  if (std::memcmp(&header, &expected, sizeof header) != 0) return std::nullopt;
  constexpr time_t kDay = time_t{24} * 60 * 60;
  if (time(nullptr) - info.st_mtime > kDay) futimens(fd.get(), nullptr);  // used lately: trim keeps it
  return object;
}

void KernelCache::store(const std::string& key, std::string_view object) {
  static std::atomic<std::uint64_t> next{0};
  const std::string temporary = kTemporary + std::to_string(getpid()) + "-" + std::to_string(next++);
  {
    const Descriptor fd(
        openat(folder_, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!fd) return;
    const Header header = header_of(object);
    if (!write_all(fd.get(), &header, sizeof header) || !write_all(fd.get(), object.data(), object.size())) {
      unlinkat(folder_, temporary.c_str(), 0);
      return;
    }
  }
  if (renameat(folder_, temporary.c_str(), folder_, key.c_str()) != 0)
    unlinkat(folder_, temporary.c_str(), 0);
  // A process looks at the whole folder once, then after each quarter of the limit that it wrote.
  const auto size = static_cast<std::int64_t>(sizeof(Header) + object.size());
  const std::int64_t before = stored_.fetch_add(size);
  if (before == 0 || before / (max_bytes_ / 4 + 1) != (before + size) / (max_bytes_ / 4 + 1)) trim();
}

void KernelCache::trim() {
  struct Entry {
    std::string name;
    std::int64_t bytes, used;
  };
  std::vector<Entry> entries;
  std::int64_t total = 0;
  const int copy = openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return;
  DIR* folder = fdopendir(copy);
  if (!folder) {
    close(copy);
    return;
  }
  const std::int64_t now = time(nullptr);
  while (const dirent* item = readdir(folder)) {
    struct stat info{};
    if (fstatat(folder_, item->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) continue;
    constexpr std::int64_t kHour = std::int64_t{60} * 60;
    const bool abandoned = std::strncmp(item->d_name, kTemporary, std::strlen(kTemporary)) == 0;
    if (abandoned && now - info.st_mtime > kHour) unlinkat(folder_, item->d_name, 0);
    if (abandoned) continue;
    entries.push_back({item->d_name, info.st_size, info.st_mtime});
    total += info.st_size;
  }
  closedir(folder);
  if (total <= max_bytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& e : entries) {
    if (total <= max_bytes_ / 4 * 3) break;
    if (unlinkat(folder_, e.name.c_str(), 0) == 0) total -= e.bytes;
  }
}

}  // namespace deepseek
