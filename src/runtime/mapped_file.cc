#include "runtime/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "deepseek/error.h"

namespace deepseek {
namespace {

using Bytes = std::span<const std::byte>;

// The deleter of every mapping, by which its owners are known.
struct Unmap {
  void* data;
  std::size_t size;
  void operator()(const Bytes* bytes) const {
    if (data) munmap(data, size);
    delete bytes;
  }
};

}  // namespace

std::shared_ptr<const Bytes> map_file(const std::filesystem::path& path, const std::string& source) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    throw Error(Code::NotFound, "onnx", source, "a readable file",
                "'" + path.string() + "': " + std::strerror(errno));
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(Code::InvalidArgument, "onnx", source, "a regular file", "'" + path.string() + "'");
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  void* data = size == 0 ? nullptr : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  if (data == MAP_FAILED)
    throw Error(Code::ResourceExhausted, "onnx", source, "to map '" + path.string() + "'",
                std::strerror(errno));
  return {new Bytes(static_cast<const std::byte*>(data), size), Unmap{data, size}};
}

bool is_mapped(const Tensor& t) { return std::get_deleter<Unmap>(t.owner().lock()) != nullptr; }

void drop_mapped_pages(const Tensor& t) {
  const auto owner = t.owner().lock();
  if (const auto* mapping = std::get_deleter<Unmap>(owner); mapping && mapping->data)
    madvise(mapping->data, mapping->size, MADV_DONTNEED);
}

}  // namespace deepseek
