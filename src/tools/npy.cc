#include "tools/npy.h"

#include <array>
#include <bit>
#include <fstream>
#include <limits>
#include <utility>

namespace deepseek {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kAlignment = 64;  // of the data in the file

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
  throw Error(Code::DataLoss, "read", path, "a .npy file", what);
}

// How NumPy spells the type: "<f4".
std::string descr(DType t) {
  if (bits(t) == 0 || bits(t) % 8 != 0)
    throw Error(Code::Unsupported, "npy", "", "elements of whole bytes", std::string(name(t)));
  std::string text = "|V";  // order of bytes, kind
  if (t == DType::Bool)
    text = "|b";
  else if (is_integer(t))
    text = {bits(t) == 8 ? '|' : '<', is_signed(t) ? 'i' : 'u'};
  else if (is_complex(t))
    text = "<c";
  else if (t == DType::F16 || t == DType::F32 || t == DType::F64)
    text = "<f";
  return text.append(std::to_string(bits(t) / 8));
}

// What follows 'KEY': in the header.
std::string_view after(std::string_view header, const std::string& key, const std::string& path) {
  const std::size_t at = header.find("'" + key + "'");
  const std::size_t colon = at == std::string_view::npos ? at : header.find(':', at);
  if (colon == std::string_view::npos) damaged(path, "a header without " + key);
  const std::size_t begin = header.find_first_not_of(' ', colon + 1);
  if (begin == std::string_view::npos) damaged(path, "a header that ends after " + key);
  return header.substr(begin);
}

std::string quoted(std::string_view text, const std::string& path) {
  const std::size_t end = text.find('\'', 1);
  if (text.front() != '\'' || end == std::string_view::npos) damaged(path, "a dtype that is not a name");
  return std::string(text.substr(1, end - 1));
}

Dims tuple(std::string_view text, const std::string& path) {
  if (text.front() != '(') damaged(path, "a shape that is not a tuple");
  Dims dims;
  bool digit = false;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const char c = text[i];
    if (c >= '0' && c <= '9') {
      if (!digit) dims.push_back(0);
      if (dims.back() > std::numeric_limits<std::int32_t>::max()) damaged(path, "an impossible shape");
      dims.back() = dims.back() * 10 + (c - '0');
    }
    digit = c >= '0' && c <= '9';
    if (c == ')') return dims;
  }
  damaged(path, "a shape without an end");
}

}  // namespace

Tensor read_npy(const std::string& path, DType dtype) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(Code::NotFound, "read", path, "a file that can be read", "none");
  std::array<char, 8> start{};  // magic, then the version
  std::array<unsigned char, 4> length{};
  if (!file.read(start.data(), start.size()) || !std::string_view(start.data(), 8).starts_with(kMagic))
    damaged(path, "something else");
  const int width = start[6] == 1 ? 2 : 4;
  file.read(reinterpret_cast<char*>(length.data()), width);
  const std::size_t size = length[0] + (std::size_t{length[1]} << 8) + (std::size_t{length[2]} << 16);
  std::string header(size, '\0');
  if (length[3] != 0 || !file.read(header.data(), static_cast<std::streamsize>(size)))
    damaged(path, "one that is cut short");
  const std::string type = quoted(after(header, "descr", path), path), wanted = descr(dtype);
  // Who wrote raw bytes may have called them so or otherwise: their size counts.
  const bool raw = wanted[1] == 'V' && type.size() > 2 && type.substr(2) == wanted.substr(2);
  if (type != wanted && !raw)
    throw Error(Code::InvalidArgument, "read", path, std::string(name(dtype)) + " (" + wanted + ")", type);
  if (after(header, "fortran_order", path).starts_with("True"))
    throw Error(Code::InvalidArgument, "read", path, "row-major data", "fortran_order");
  Tensor t(dtype, tuple(after(header, "shape", path), path));
  if (!file.read(static_cast<char*>(t.data()), static_cast<std::streamsize>(t.bytes())))
    damaged(path, "one that is cut short");
  return t;
}

void write_npy(const std::string& path, const Tensor& tensor) {
  std::string header = "{'descr': '" + descr(tensor.dtype()) + "', 'fortran_order': False, 'shape': (";
  for (const std::int64_t d : tensor.dims()) header += std::to_string(d) + ",";
  header += "), }";
  const std::size_t before = kMagic.size() + 4;
  header.resize((before + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment - before, ' ');
  header.back() = '\n';
  const auto size = static_cast<std::uint16_t>(header.size());
  std::ofstream file(path, std::ios::binary);
  file << kMagic << '\1' << '\0' << static_cast<char>(size & 255) << static_cast<char>(size >> 8) << header;
  file.write(static_cast<const char*>(tensor.data()), static_cast<std::streamsize>(tensor.bytes()));
  file.close();
  if (!file) throw Error(Code::ResourceExhausted, "write", path, "a file that can be written", "none");
}

}  // namespace deepseek
