#include "import/onnx/model.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <limits>

#include "runtime/mapped_file.h"

namespace deepseek::onnx_import {

namespace {

// Kernels may read constants with aligned vectors.
constexpr std::uintptr_t kAlignment = 64;

[[noreturn]] void fail(Code code, std::string expected, std::string got) {
  throw Error(code, "", "", std::move(expected), std::move(got));
}

}  // namespace

std::shared_ptr<const onnx::ModelProto> parse_model(std::span<const std::byte> bytes,
                                                    const std::string& model) {
  const auto bad = [&](std::string expected, std::string got) {
    throw Error(Code::DataLoss, "onnx", model, std::move(expected), std::move(got));
  };
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    bad("a model below 2 GiB (larger ones keep their weights in external data)",
        std::to_string(bytes.size()) + " bytes");
  auto proto = std::make_shared<onnx::ModelProto>();
  if (bytes.empty() || !proto->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    bad("an ONNX model", bytes.empty() ? "no bytes" : "bytes that do not parse: truncated or another format");
  if (!proto->has_graph()) bad("a model with a graph", "none");
  if (proto->opset_import_size() == 0) bad("an opset_import", "none");
  return proto;
}

DType dtype_of(std::int64_t t) {
  using P = onnx::TensorProto;
  switch (t) {
    case P::FLOAT:
      return DType::F32;
    case P::UINT8:
      return DType::U8;
    case P::INT8:
      return DType::I8;
    case P::UINT16:
      return DType::U16;
    case P::INT16:
      return DType::I16;
    case P::INT32:
      return DType::I32;
    case P::INT64:
      return DType::I64;
    case P::STRING:
      return DType::String;
    case P::BOOL:
      return DType::Bool;
    case P::FLOAT16:
      return DType::F16;
    case P::DOUBLE:
      return DType::F64;
    case P::UINT32:
      return DType::U32;
    case P::UINT64:
      return DType::U64;
    case P::COMPLEX64:
      return DType::C64;
    case P::COMPLEX128:
      return DType::C128;
    case P::BFLOAT16:
      return DType::BF16;
    case P::FLOAT8E4M3FN:
      return DType::F8E4M3;
    case P::FLOAT8E5M2:
      return DType::F8E5M2;
    case P::FLOAT8E4M3FNUZ:
      return DType::F8E4M3FNUZ;
    case P::FLOAT8E5M2FNUZ:
      return DType::F8E5M2FNUZ;
    case 24:  // FLOAT8E8M0 came with onnx 1.19
      return DType::F8E8M0;
    case P::UINT4:
      return DType::U4;
    case P::INT4:
      return DType::I4;
    case P::FLOAT4E2M1:
      return DType::F4E2M1;
    case 25:
      return DType::U2;  // UINT2 and INT2 came with onnx 1.20
    case 26:
      return DType::I2;
    default:
      break;
  }
  const bool known = t > P::UNDEFINED && onnx::TensorProto_DataType_IsValid(static_cast<int>(t));
  fail(known ? Code::Unsupported : Code::InvalidArgument, "an element type that we have",
       known ? onnx::TensorProto_DataType_Name(static_cast<onnx::TensorProto_DataType>(t))
             : "number " + std::to_string(t));
}

namespace {

Dims dims_of(const onnx::TensorProto& proto) {
  Dims dims(proto.dims().begin(), proto.dims().end());
  for (const std::int64_t d : dims)
    if (d < 0) fail(Code::InvalidArgument, "dims of at least 0", str(dims));
  const std::int64_t count = numel(dims);  // throws on overflow
  if (count > std::numeric_limits<std::int64_t>::max() / 16)
    fail(Code::InvalidArgument, "a tensor that fits into memory", str(dims));
  return dims;
}

// The typed fields hold one element each, narrow types in int32_data; 4- and 2-bit types are packed.
template <class Stored, class Field>
Tensor from_field(DType dtype, Dims dims, const Field& field, std::int64_t expected) {
  if (field.size() != expected)
    fail(Code::DataLoss, std::to_string(expected) + " elements for shape " + str(dims),
         std::to_string(field.size()));
  Tensor t(dtype, std::move(dims));
  auto out = t.as<Stored>();
  for (int i = 0; i < field.size(); ++i) {
    if constexpr (sizeof(Stored) < sizeof(field.Get(0)))
      out[static_cast<std::size_t>(i)] = static_cast<Stored>(field.Get(i));
    else
      out[static_cast<std::size_t>(i)] = std::bit_cast<Stored>(field.Get(i));
  }
  return t;
}

Tensor from_typed_fields(const onnx::TensorProto& p, DType dtype, Dims dims) {
  const std::int64_t count = numel(dims);
  switch (dtype) {
    case DType::F32:
      return from_field<float>(dtype, std::move(dims), p.float_data(), count);
    case DType::C64:
      return from_field<float>(dtype, std::move(dims), p.float_data(), 2 * count);
    case DType::F64:
      return from_field<double>(dtype, std::move(dims), p.double_data(), count);
    case DType::C128:
      return from_field<double>(dtype, std::move(dims), p.double_data(), 2 * count);
    case DType::I64:
      return from_field<std::int64_t>(dtype, std::move(dims), p.int64_data(), count);
    case DType::U64:
      return from_field<std::uint64_t>(dtype, std::move(dims), p.uint64_data(), count);
    case DType::U32:
      return from_field<std::uint32_t>(dtype, std::move(dims), p.uint64_data(), count);
    case DType::I32:
      return from_field<std::int32_t>(dtype, std::move(dims), p.int32_data(), count);
    case DType::I16:
    case DType::U16:
    case DType::F16:
    case DType::BF16:
      return from_field<std::uint16_t>(dtype, std::move(dims), p.int32_data(), count);
    case DType::Bool: {
      Tensor t = from_field<std::uint8_t>(dtype, std::move(dims), p.int32_data(), count);
      for (std::uint8_t& b : t.as<std::uint8_t>()) b = b != 0;
      return t;
    }
    case DType::I8:
    case DType::U8:
    case DType::F8E4M3:
    case DType::F8E5M2:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2FNUZ:
    case DType::F8E8M0:
      return from_field<std::uint8_t>(dtype, std::move(dims), p.int32_data(), count);
    case DType::I4:
    case DType::U4:
    case DType::F4E2M1:
    case DType::I2:
    case DType::U2:
      return from_field<std::uint8_t>(dtype, dims, p.int32_data(), bytes(dtype, count));
    case DType::String:
      break;
  }
  fail(Code::Unsupported, "numbers", "a tensor of strings");
}

Tensor from_bytes(DType dtype, Dims dims, const void* data, std::size_t size, std::shared_ptr<void> owner) {
  const auto expected = static_cast<std::size_t>(bytes(dtype, numel(dims)));
  if (size != expected)
    fail(Code::DataLoss, std::to_string(expected) + " bytes for " + std::string(name(dtype)) + str(dims),
         std::to_string(size));
  if (reinterpret_cast<std::uintptr_t>(data) % kAlignment == 0 && dtype != DType::Bool && size > 0)
    return Tensor::wrap(dtype, std::move(dims), const_cast<void*>(data), std::move(owner));
  Tensor t(dtype, std::move(dims));
  if (size > 0) std::memcpy(t.data(), data, size);
  if (dtype == DType::Bool)
    for (std::uint8_t& b : t.as<std::uint8_t>()) b = b != 0;
  return t;
}

std::size_t parse_size(const std::string& text, const char* what) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail(Code::InvalidArgument, std::string("an integer for external data's ") + what, "'" + text + "'");
  return value;
}

}  // namespace

Tensor TensorReader::read(const onnx::TensorProto& proto) {
  static_assert(std::endian::native == std::endian::little, "raw_data is little-endian");
  const DType dtype = dtype_of(proto.data_type());
  Dims dims = dims_of(proto);
  if (proto.has_segment()) fail(Code::Unsupported, "a whole tensor", "a segment of one");
  if (dtype == DType::String) fail(Code::Unsupported, "numbers", "a tensor of strings");
  if (proto.data_location() == onnx::TensorProto::EXTERNAL)
    return read_external(proto, dtype, std::move(dims));
  if (proto.has_raw_data())
    return from_bytes(dtype, std::move(dims), proto.raw_data().data(), proto.raw_data().size(),
                      std::const_pointer_cast<onnx::ModelProto>(model_));
  return from_typed_fields(proto, dtype, std::move(dims));
}

Tensor TensorReader::read_external(const onnx::TensorProto& proto, DType dtype, Dims dims) {
  namespace fs = std::filesystem;
  std::string location;
  std::size_t offset = 0;
  std::optional<std::size_t> length;
  for (const auto& e : proto.external_data()) {
    if (e.key() == "location") location = e.value();
    if (e.key() == "offset") offset = parse_size(e.value(), "offset");
    if (e.key() == "length") length = parse_size(e.value(), "length");
  }
  const std::string shown = "external data '" + location + "'";
  if (folder_.empty())
    fail(Code::InvalidArgument, "a model with its weights inside", shown + " of a model given as bytes");
  const fs::path relative(location);
  if (location.empty() || location.find('\0') != std::string::npos || relative.is_absolute())
    fail(Code::InvalidArgument, "external data in the model's folder", shown);
  for (const fs::path& part : relative)
    if (part == "..") fail(Code::InvalidArgument, "external data in the model's folder", shown);
  auto& file = files_[location];
  if (!file) {
    std::error_code error;
    const fs::path folder = fs::canonical(folder_, error);
    if (error) fail(Code::NotFound, "the model's folder", "'" + folder_.string() + "'");
    const fs::path path = fs::canonical(folder / relative, error);  // follows links
    if (error) fail(Code::NotFound, "the file of " + shown, error.message());
    if (std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first != folder.end())
      fail(Code::InvalidArgument, "external data in the model's folder", shown + ", a link out of it");
    file = map_file(path, "");
  }
  const std::size_t size = file->size();
  const auto expected = static_cast<std::size_t>(bytes(dtype, numel(dims)));
  if (offset > size || length.value_or(expected) > size - offset)
    fail(Code::DataLoss,
         shown + " with " + std::to_string(length.value_or(expected)) + " bytes at " + std::to_string(offset),
         "a file of " + std::to_string(size) + " bytes");
  return from_bytes(dtype, std::move(dims), file->data() + offset, length.value_or(expected),
                    std::const_pointer_cast<std::span<const std::byte>>(file));
}

}  // namespace deepseek::onnx_import
