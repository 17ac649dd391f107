// Saved executables.
//
// A file is a header (magic, format version, ABI version, triple, length and checksum of the rest), the kernels' object
// code, and the executable's data. Each structure is described once, by a `fields` function that both directions use.
#include <array>
#include <cstring>
#include <fstream>
#include <map>

#include "runtime/executable.h"
#include "runtime/kernel_loader.h"

namespace deepseek {
namespace {

constexpr std::array<char, 8> kMagic = {'D', 'S', 'K',  'E',
                                        'X', 'E', '\r', '\n'};  // "\r\n" shows text-mode damage
constexpr std::uint32_t kFormatVersion = 5;
constexpr std::uint32_t kAbiVersion = 1;  // of PhaseFn and ExtentsFn
constexpr std::size_t kAlignment = 64;    // of tensors' data in the file
constexpr int kMaxNesting = 64;           // of branches and loops

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t format = kFormatVersion, abi = kAbiVersion;
  std::uint64_t bytes = 0, checksum = 0;  // of what follows
  std::array<char, 32> triple{};
};
static_assert(sizeof(Header) == kAlignment);

// FNV-1a over 8-byte words; the tail is padded with zeros and the length is part of it.
std::uint64_t checksum(std::span<const std::byte> data) {
  std::uint64_t h = 1469598103934665603u ^ data.size();
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < data.size(); i += sizeof word) {
    word = 0;
    std::memcpy(&word, data.data() + i, std::min(sizeof word, data.size() - i));
    h = (h ^ word) * 1099511628211u;
    h ^= h >> 29;
  }
  return h;
}

[[noreturn]] void damaged(const std::string& what) {
  throw Error(Code::DataLoss, "load", "", "a saved executable", what);
}

class Writer {
 public:
  static constexpr bool kReading = false;
  std::string out;
  std::vector<std::shared_ptr<const Kernel>> kernels;
  std::map<const Kernel*, std::uint32_t> kernel_numbers;

  void raw(const void* data, std::size_t size) { out.append(static_cast<const char*>(data), size); }
  void align() { out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment, '\0'); }
};

class Reader {
 public:
  static constexpr bool kReading = true;
  Reader(std::span<const std::byte> data, std::shared_ptr<void> owner)
      : data_(data), owner_(std::move(owner)) {}
  std::vector<std::shared_ptr<const Kernel>> kernels;
  int nesting = 0;

  const std::byte* take(std::size_t size) {
    if (size > data_.size() - at_) damaged("one that ends too early");
    const std::byte* p = data_.data() + at_;
    at_ += size;
    return p;
  }
  void raw(void* to, std::size_t size) {
    const std::byte* from = take(size);
    if (size > 0) std::memcpy(to, from, size);
  }
  void align() { take((kAlignment - at_ % kAlignment) % kAlignment); }
  std::size_t left() const { return data_.size() - at_; }
  const std::shared_ptr<void>& owner() const { return owner_; }

 private:
  std::span<const std::byte> data_;
  std::size_t at_ = 0;
  std::shared_ptr<void> owner_;
};

template <class A, class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
void fields(A& a, T& x) {
  a.raw(&x, sizeof x);
}

template <class A>
void fields(A& a, std::string& s) {
  auto size = static_cast<std::uint64_t>(s.size());
  fields(a, size);
  if constexpr (A::kReading) {
    const auto* text = reinterpret_cast<const char*>(a.take(size));
    s.assign(text, size);
  } else {
    a.raw(s.data(), s.size());
  }
}

template <class A>
void fields(A& a, Dim& d) {
  std::string text = A::kReading ? "" : d.str();
  fields(a, text);
  if constexpr (A::kReading) d = Dim::parse(text);
}

template <class A>
void fields(A& a, ExecutableData& d);
template <class A>
void fields(A& a, EqualDims& dims);
template <class A>
void fields(A& a, Tensor& t);
template <class A>
void fields(A& a, Type& t);
template <class A>
void fields(A& a, Port& p);
template <class A>
void fields(A& a, ValueInfo& v);
template <class A>
void fields(A& a, Step& s);

template <class A, class T>
void fields(A& a, std::vector<T>& v) {
  auto size = static_cast<std::uint64_t>(v.size());
  fields(a, size);
  if constexpr (A::kReading) {
    if (size > a.left()) damaged("an impossible count");
    v.resize(size);
  }
  for (T& x : v) fields(a, x);
}

template <class A>
void fields(A& a, std::shared_ptr<const ExecutableData>& nested) {
  if constexpr (A::kReading) {
    if (++a.nesting > kMaxNesting) damaged("too deep a nesting");
    auto data = std::make_shared<ExecutableData>();
    fields(a, *data);
    link(*data);
    nested = std::move(data);
    --a.nesting;
  } else {
    fields(a, const_cast<ExecutableData&>(*nested));  // NOLINT: a Writer only reads
  }
}

template <class A>
void fields(A& a, std::shared_ptr<const Kernel>& kernel) {
  std::uint32_t number = 0;
  if constexpr (!A::kReading) {
    const auto [it, fresh] =
        a.kernel_numbers.emplace(kernel.get(), static_cast<std::uint32_t>(a.kernels.size()));
    if (fresh) a.kernels.push_back(kernel);
    number = it->second;
  }
  fields(a, number);
  if constexpr (A::kReading) {
    if (number >= a.kernels.size()) damaged("a kernel that is not there");
    kernel = a.kernels[number];
  }
}

template <class A>
void fields(A& a, Type& t) {
  fields(a, t.dtype);
  fields(a, t.shape);
}
template <class A>
void fields(A& a, Port& p) {
  fields(a, p.name);
  fields(a, p.type);
  fields(a, p.role);
  fields(a, p.source);
}
template <class A>
void fields(A& a, ValueInfo& v) {
  fields(a, v.type);
  fields(a, v.place);
  fields(a, v.index);
  fields(a, v.offset);
}

template <class A>
void fields(A& a, Tensor& t) {
  DType dtype = t.dtype();
  Dims dims = t.dims();
  bool defined = t.defined();
  fields(a, defined);
  fields(a, dtype);
  fields(a, dims);
  a.align();
  if (!defined) return;
  if constexpr (A::kReading) {
    if (static_cast<int>(dtype) >= kDTypeCount) damaged("an unknown dtype");
    const auto size = static_cast<std::size_t>(bytes(dtype, numel(dims)));
    t = Tensor::wrap(dtype, dims, const_cast<std::byte*>(a.take(size)),
                     a.owner());  // NOLINT: constants are read
  } else {
    a.raw(t.data(), t.bytes());
  }
}

template <class A>
void fields(A& a, KernelStep& s) {
  fields(a, s.kernel);
  fields(a, s.dims);
  fields(a, s.args);
  fields(a, s.messages);
}
template <class A>
void fields(A& a, DefineStep& s) {
  fields(a, s.values);
  fields(a, s.symbols);
}
template <class A>
void fields(A& a, CopyStep& s) {
  fields(a, s.from);
  fields(a, s.to);
}
template <class A>
void fields(A& a, BranchStep& s) {
  fields(a, s.condition);
  fields(a, s.then);
  fields(a, s.otherwise);
  fields(a, s.inputs);
  fields(a, s.outputs);
}
template <class A>
void fields(A& a, LoopStep& s) {
  fields(a, s.condition);
  fields(a, s.body);
  fields(a, s.initial);
  fields(a, s.captured);
  fields(a, s.parts);
  fields(a, s.outputs);
}
template <class A>
void fields(A&, HostStep&) {
  throw Error(Code::Unsupported, "save", "", "steps of compiled code",
              "a step that runs in the host's framework");
}

// Reads the alternative of that number.
template <class Variant, std::size_t I = 0>
void choose(Variant& v, std::size_t number) {
  if constexpr (I < std::variant_size_v<Variant>) {
    if (number == I)
      v.template emplace<I>();
    else
      choose<Variant, I + 1>(v, number);
  } else {
    damaged("an unknown kind of step");
  }
}

template <class A>
void fields(A& a, Step& s) {
  fields(a, s.info.name);
  fields(a, s.info.op);
  fields(a, s.info.source);
  fields(a, s.info.flops);
  fields(a, s.info.bytes);
  fields(a, s.info.way);
  auto kind = static_cast<std::uint8_t>(s.work.index());
  fields(a, kind);
  if constexpr (A::kReading) choose(s.work, kind);
  try {
    std::visit([&](auto& work) { fields(a, work); }, s.work);
  } catch (const Error& e) {
    throw e.with_context(s.info.op, s.info.source);
  }
}

template <class A>
void fields(A& a, EqualDims& dims) {
  fields(a, dims.a);
  fields(a, dims.b);
  fields(a, dims.op);
  fields(a, dims.source);
}

template <class A>
void fields(A& a, ExecutableData& d) {
  fields(a, d.inputs);
  fields(a, d.outputs);
  fields(a, d.values);
  fields(a, d.input_values);
  fields(a, d.output_values);
  fields(a, d.constants);
  fields(a, d.prepare);
  fields(a, d.steps);
  fields(a, d.prepared_count);
  fields(a, d.held_count);
  fields(a, d.equalities);
  fields(a, d.threads);
  fields(a, d.target);
  fields(a, d.notes);
}

template <class A>
void fields(A& a, KernelImage& k) {
  fields(a, k.format);
  fields(a, k.name);
  fields(a, k.phases);
  fields(a, k.workspaces);
  fields(a, k.triple);
  fields(a, k.features);
}

// The kernels' images; equal code is written once.
void write_kernels(Writer& w, const std::vector<std::shared_ptr<const Kernel>>& kernels) {
  std::vector<KernelImage> images;
  std::map<std::string, std::uint32_t> numbers;
  std::vector<std::uint32_t> code_of;
  std::vector<std::string> codes;
  for (const auto& kernel : kernels) {
    std::optional<KernelImage> image = kernel->image();
    if (!image)
      throw Error(Code::Unsupported, "save", "", "kernels that can be saved",
                  "one of a target without object code");
    std::string code(reinterpret_cast<const char*>(image->code->data()), image->code->size());
    const auto [it, fresh] = numbers.emplace(code, static_cast<std::uint32_t>(codes.size()));
    if (fresh) codes.push_back(std::move(code));
    code_of.push_back(it->second);
    images.push_back(std::move(*image));
  }
  fields(w, images);
  fields(w, code_of);
  fields(w, codes);
  w.align();
}

std::vector<std::shared_ptr<const Kernel>> read_kernels(Reader& r) {
  std::vector<KernelImage> images;
  std::vector<std::uint32_t> code_of;
  std::vector<std::string> codes;
  fields(r, images);
  fields(r, code_of);
  fields(r, codes);
  r.align();
  if (code_of.size() != images.size()) damaged("kernels without code");
  std::vector<std::shared_ptr<const std::vector<std::byte>>> shared;
  for (const std::string& code : codes) {
    const auto* begin = reinterpret_cast<const std::byte*>(code.data());
    shared.push_back(std::make_shared<const std::vector<std::byte>>(begin, begin + code.size()));
  }
  std::vector<std::shared_ptr<const Kernel>> kernels;
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (code_of[i] >= shared.size()) damaged("kernels without code");
    images[i].code = shared[code_of[i]];
    kernels.push_back(load_kernel(images[i]));
  }
  return kernels;
}

// `memory` holds a file's bytes, and the executable keeps it; errors say that they are from `place`.
Executable parse(const Tensor& memory, const std::string& place) {
  const auto bytes = std::as_bytes(memory.as<std::uint8_t>());
  Header header;
  if (bytes.size() < sizeof header) damaged("something else in " + place);
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic) damaged("something else in " + place);
  if (header.format != kFormatVersion || header.abi != kAbiVersion)
    throw Error(Code::DataLoss, "load", "",
                "an executable saved by this version (format " + std::to_string(kFormatVersion) + ", ABI " +
                    std::to_string(kAbiVersion) + ")",
                "format " + std::to_string(header.format) + ", ABI " + std::to_string(header.abi));
  const auto rest = bytes.subspan(sizeof header);
  if (header.bytes != rest.size()) damaged("one that is cut short: " + place);
  if (checksum(rest) != header.checksum) damaged("one that is damaged (its checksum is wrong): " + place);
  Reader reader(rest, std::make_shared<Tensor>(memory));
  reader.kernels = read_kernels(reader);
  auto data = std::make_shared<ExecutableData>();
  fields(reader, *data);
  link(*data);
  return Executable(std::move(data));
}

}  // namespace

std::string Executable::bytes() const {
  Writer body, kernels;
  fields(body, const_cast<ExecutableData&>(*data_));  // NOLINT: a Writer only reads
  write_kernels(kernels, body.kernels);
  const std::string rest = kernels.out + body.out;
  Header header;
  header.bytes = rest.size();
  header.checksum = checksum(std::as_bytes(std::span(rest)));
  const std::string triple = body.kernels.empty() ? host_triple() : body.kernels.front()->image()->triple;
  std::memcpy(header.triple.data(), triple.data(), std::min(triple.size(), header.triple.size()));
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + rest;
}

void Executable::save(const std::string& path) const {
  const std::string content = bytes();
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) throw Error(Code::ResourceExhausted, "save", "", "a file that can be written", path);
}

Executable Executable::from_bytes(std::span<const std::byte> bytes) {
  return parse(Tensor::of(DType::U8, {static_cast<std::int64_t>(bytes.size())}, bytes), "memory");
}

Executable Executable::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw Error(Code::NotFound, "load", "", "a file that can be read", path);
  const Tensor memory(DType::U8, {static_cast<std::int64_t>(file.tellg())});
  file.seekg(0);
  if (!file.read(static_cast<char*>(memory.data()), static_cast<std::streamsize>(memory.bytes())))
    damaged("one that cannot be read: " + path);
  return parse(memory, path);
}

}  // namespace deepseek
