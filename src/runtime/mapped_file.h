// Files as memory: their pages are read when they are touched, and can be given back as long as nobody writes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "deepseek/tensor.h"

namespace deepseek {

// A file's bytes, mapped read-only; `source` is what errors say needs it. Throws Error{NotFound, InvalidArgument,
// ResourceExhausted}.
std::shared_ptr<const std::span<const std::byte>> map_file(const std::filesystem::path& path,
                                                           const std::string& source);

// Whether the tensor's memory is a piece of such a file.
bool is_mapped(const Tensor& t);

// Gives back the memory that the tensor's whole file takes; what is touched later is read again.
void drop_mapped_pages(const Tensor& t);

}  // namespace deepseek
