// Host arrays. See include/deepseek/tensor.h.
#include "deepseek/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "deepseek/guard.h"
#include "deepseek/huge_pages.h"
#include "runtime/narrow_float.h"

namespace deepseek {
namespace {

constexpr std::size_t kAlignment = 64;
// User space of x86-64 and AArch64 with four-level page tables: more can never be had.
constexpr std::size_t kAddressSpace = std::size_t{1} << 47;

void check_dims(DType dtype, const Dims& dims) {
  for (const std::int64_t d : dims)
    if (d < 0) throw Error(Code::InvalidArgument, "tensor", "", "dims of at least 0", str(dims));
  if (dtype == DType::String)
    throw Error(Code::Unsupported, "tensor", "", "elements of a fixed size", "string");
  if (numel(dims) > std::numeric_limits<std::int64_t>::max() / 16)
    throw Error(Code::InvalidArgument, "tensor", "", "a size in bytes that fits 64 bits", str(dims));
}

[[noreturn]] void none_left(std::size_t size) {
  throw Error(Code::ResourceExhausted, "tensor", "", std::to_string(size) + " bytes of memory", "none left");
}

std::shared_ptr<void> allocate(std::size_t size) {
  if (const Guard side = guard(); side != Guard::None) {
    std::shared_ptr<void> memory = size > kAddressSpace ? nullptr : guarded_memory(size, side);
    if (!memory) none_left(size);
    return memory;
  }
  const std::size_t alignment = size >= kWantsHugePages ? kHugePage : kAlignment;
  const std::size_t rounded = std::max<std::size_t>(1, (size + kAlignment - 1) / kAlignment) * kAlignment;
  void* p = nullptr;  // std::aligned_alloc takes multiples of the alignment alone
  if (size > kAddressSpace || posix_memalign(&p, alignment, rounded) != 0) none_left(size);
  ask_for_huge_pages(p, size);
  return {p, std::free};
}

template <class T>
T element(const void* data, std::int64_t i) {
  T x;
  std::memcpy(&x, static_cast<const char*>(data) + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return x;
}

template <class T>
void store(void* data, std::int64_t i, double value) {
  T x;
  if constexpr (std::is_integral_v<T>) {
    constexpr double low = static_cast<double>(std::numeric_limits<T>::lowest());
    const double high = std::ldexp(1.0, std::numeric_limits<T>::digits);
    if (std::isnan(value))
      x = 0;
    else if (value <= low)
      x = std::numeric_limits<T>::lowest();
    else if (value >= high)
      x = std::numeric_limits<T>::max();
    else
      x = static_cast<T>(value);
  } else {
    x = static_cast<T>(value);
  }
  std::memcpy(static_cast<char*>(data) + i * static_cast<std::int64_t>(sizeof(T)), &x, sizeof(T));
}

// The bits of a sub-byte element, low bits first in each byte.
std::uint32_t packed(const void* data, std::int64_t i, int width) {
  const std::int64_t bit = i * width;
  const auto byte = element<std::uint8_t>(data, bit / 8);
  return (byte >> (bit % 8)) & ((1u << width) - 1);
}

void store_packed(void* data, std::int64_t i, int width, std::uint32_t value) {
  const std::int64_t bit = i * width;
  auto& byte = static_cast<std::uint8_t*>(data)[bit / 8];
  const std::uint32_t mask = ((1u << width) - 1) << (bit % 8);
  byte = static_cast<std::uint8_t>((byte & ~mask) | ((value << (bit % 8)) & mask));
}

int sign_extend(std::uint32_t bits, int width) {
  const int half = 1 << (width - 1);
  return static_cast<int>(bits) - ((bits & static_cast<std::uint32_t>(half)) ? 2 * half : 0);
}

double clamp_to(double value, double low, double high) {
  if (std::isnan(value)) return 0;
  return std::trunc(std::fmin(std::fmax(value, low), high));
}

[[noreturn]] void no_real_element(DType t) {
  throw Error(Code::InvalidArgument, "tensor", "", "a real element type", std::string(name(t)));
}

}  // namespace

Tensor::Tensor(DType dtype, Dims dims) : dtype_(dtype), dims_(std::move(dims)) {
  check_dims(dtype_, dims_);
  data_ = allocate(bytes());
}

Tensor Tensor::wrap(DType dtype, Dims dims, void* data, std::shared_ptr<void> owner) {
  check_dims(dtype, dims);
  Tensor t;
  t.dtype_ = dtype;
  t.dims_ = std::move(dims);
  // An empty array may come with a null address; a defined tensor never has one.
  if (data)
    t.data_ = std::shared_ptr<void>(std::move(owner), data);
  else if (t.bytes() == 0)
    t.data_ = allocate(0);
  else
    throw Error(Code::InvalidArgument, "tensor", "", "an address", "null");
  return t;
}

Tensor Tensor::zeros(DType dtype, Dims dims) {
  Tensor t(dtype, std::move(dims));
  if (t.bytes() != 0) std::memset(t.data(), 0, t.bytes());
  return t;
}

Tensor Tensor::of_int64(std::vector<std::int64_t> values) {
  return of<std::int64_t>(DType::I64, {static_cast<std::int64_t>(values.size())}, values);
}

std::vector<std::int64_t> Tensor::to_int64() const {
  if (dtype_ != DType::Bool && !is_integer(dtype_))
    throw Error(Code::InvalidArgument, "tensor", "", "an integer or bool tensor", std::string(name(dtype_)));
  const std::int64_t n = numel();
  if (dtype_ == DType::I64) {
    const auto values = as<std::int64_t>();
    return {values.begin(), values.end()};
  }
  std::vector<std::int64_t> r;
  r.reserve(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i)
    r.push_back(dtype_ == DType::U64 ? static_cast<std::int64_t>(element<std::uint64_t>(data(), i))
                                     : static_cast<std::int64_t>(at(i)));
  return r;
}

double Tensor::at(std::int64_t i) const {
  check(i >= 0 && i < numel(), "Tensor::at: an index within the tensor");
  const void* p = data();
  switch (dtype_) {
    case DType::Bool:
      return element<std::uint8_t>(p, i) != 0;
    case DType::I8:
      return element<std::int8_t>(p, i);
    case DType::U8:
      return element<std::uint8_t>(p, i);
    case DType::I16:
      return element<std::int16_t>(p, i);
    case DType::U16:
      return element<std::uint16_t>(p, i);
    case DType::I32:
      return element<std::int32_t>(p, i);
    case DType::U32:
      return element<std::uint32_t>(p, i);
    case DType::I64:
      return static_cast<double>(element<std::int64_t>(p, i));
    case DType::U64:
      return static_cast<double>(element<std::uint64_t>(p, i));
    case DType::F32:
      return element<float>(p, i);
    case DType::F64:
      return element<double>(p, i);
    case DType::F16:
    case DType::BF16:
      return decode_float(element<std::uint16_t>(p, i), float_format(dtype_));
    case DType::F8E4M3:
    case DType::F8E5M2:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2FNUZ:
    case DType::F8E8M0:
      return decode_float(element<std::uint8_t>(p, i), float_format(dtype_));
    case DType::F4E2M1:
      return decode_float(packed(p, i, 4), float_format(dtype_));
    case DType::I4:
      return sign_extend(packed(p, i, 4), 4);
    case DType::U4:
      return packed(p, i, 4);
    case DType::I2:
      return sign_extend(packed(p, i, 2), 2);
    case DType::U2:
      return packed(p, i, 2);
    default:
      no_real_element(dtype_);
  }
}

void Tensor::set(std::int64_t i, double value) {
  check(i >= 0 && i < numel(), "Tensor::set: an index within the tensor");
  void* p = data();
  switch (dtype_) {
    case DType::Bool:
      return store<std::uint8_t>(p, i, value != 0 ? 1 : 0);
    case DType::I8:
      return store<std::int8_t>(p, i, value);
    case DType::U8:
      return store<std::uint8_t>(p, i, value);
    case DType::I16:
      return store<std::int16_t>(p, i, value);
    case DType::U16:
      return store<std::uint16_t>(p, i, value);
    case DType::I32:
      return store<std::int32_t>(p, i, value);
    case DType::U32:
      return store<std::uint32_t>(p, i, value);
    case DType::I64:
      return store<std::int64_t>(p, i, value);
    case DType::U64:
      return store<std::uint64_t>(p, i, value);
    case DType::F32:
      return store<float>(p, i, value);
    case DType::F64:
      return store<double>(p, i, value);
    case DType::F16:
    case DType::BF16:
      return store<std::uint16_t>(p, i, encode_float(value, float_format(dtype_)));
    case DType::F8E4M3:
    case DType::F8E5M2:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2FNUZ:
    case DType::F8E8M0:
      return store<std::uint8_t>(p, i, encode_float(value, float_format(dtype_)));
    case DType::F4E2M1:
      return store_packed(p, i, 4, encode_float(value, float_format(dtype_)));
    case DType::I4:
      return store_packed(p, i, 4, static_cast<std::uint32_t>(static_cast<int>(clamp_to(value, -8, 7))));
    case DType::U4:
      return store_packed(p, i, 4, static_cast<std::uint32_t>(clamp_to(value, 0, 15)));
    case DType::I2:
      return store_packed(p, i, 2, static_cast<std::uint32_t>(static_cast<int>(clamp_to(value, -2, 1))));
    case DType::U2:
      return store_packed(p, i, 2, static_cast<std::uint32_t>(clamp_to(value, 0, 3)));
    default:
      no_real_element(dtype_);
  }
}

Tensor Tensor::reshaped(Dims dims) const {
  if (deepseek::numel(dims) != numel())
    throw Error(Code::InvalidArgument, "reshape", "",
                std::to_string(numel()) + " elements as in " + str(dims_), str(dims));
  Tensor t = *this;
  t.dims_ = std::move(dims);
  check_dims(t.dtype_, t.dims_);
  return t;
}

}  // namespace deepseek
