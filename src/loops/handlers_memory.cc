// Loads, stores, allocations, tiles and asynchronous copies of the interpreter.
#include <bit>
#include <cstring>

#include "deepseek/error.h"
#include "loops/bytecode.h"
#include "loops/convert.h"
#include "loops/semantics.h"

namespace deepseek::loops {
namespace {

// What fresh memory holds in checking mode: NaN in every float, an odd and unlikely integer.
constexpr int kGarbage = 0xff;

[[noreturn]] void out_of_bounds(const char* what, const Frame& f, std::int64_t buffer, std::int64_t index) {
  const BufferInfo& b = f.code->buffers[static_cast<std::size_t>(buffer)];
  throw Error(
      Code::Internal, std::string("interpreter: ") + what, "",
      b.name + "[0 ... " + std::to_string(f.buffers[static_cast<std::size_t>(buffer)].extent - 1) + "]",
      "index " + std::to_string(index));
}

template <bool Check>
BufferRef& access(const char* what, Frame& f, std::int64_t buffer, std::int64_t index) {
  BufferRef& b = f.buffers[static_cast<std::size_t>(buffer)];
  if constexpr (Check)
    if (index < 0 || index >= b.extent) out_of_bounds(what, f, buffer, index);
  return b;
}

template <class T>
struct Plain {
  static void read(Register& to, const std::byte* data, std::int64_t index) {
    T v;
    std::memcpy(&v, data + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    to.set(v);
  }
  static void write(const Register& from, std::byte* data, std::int64_t index) {
    const T v = from.get<T>();
    std::memcpy(data + index * static_cast<std::int64_t>(sizeof(T)), &v, sizeof(T));
  }
};
struct Truth {
  static void read(Register& to, const std::byte* data, std::int64_t index) {
    to.set(static_cast<std::uint8_t>(data[index] != std::byte{0} ? 1 : 0));
  }
  static void write(const Register& from, std::byte* data, std::int64_t index) {
    data[index] = static_cast<std::byte>(from.get<std::uint8_t>());
  }
};
template <DType T, class Bits>
struct Narrow {
  static void read(Register& to, const std::byte* data, std::int64_t index) {
    Bits b;
    std::memcpy(&b, data + index * static_cast<std::int64_t>(sizeof(Bits)), sizeof(Bits));
    to.set(decode_narrow(T, b));
  }
  static void write(const Register& from, std::byte* data, std::int64_t index) {
    const auto b = static_cast<Bits>(encode_narrow(T, from.get<float>()));
    std::memcpy(data + index * static_cast<std::int64_t>(sizeof(Bits)), &b, sizeof(Bits));
  }
};
template <int Width, bool Signed>
struct Packed {
  static void read(Register& to, const std::byte* data, std::int64_t index) {
    const std::uint32_t v = read_packed(data, index, Width);
    to.set(Signed ? static_cast<std::int32_t>(sign_extend(v, Width)) : static_cast<std::int32_t>(v));
  }
  static void write(const Register& from, std::byte* data, std::int64_t index) {
    write_packed(data, index, Width, static_cast<std::uint32_t>(from.get<std::int32_t>()));
  }
};
struct PackedFloat {
  static void read(Register& to, const std::byte* data, std::int64_t index) {
    to.set(decode_narrow(DType::F4E2M1, read_packed(data, index, 4)));
  }
  static void write(const Register& from, std::byte* data, std::int64_t index) {
    write_packed(data, index, 4, encode_narrow(DType::F4E2M1, from.get<float>()));
  }
};

template <class F>
auto with_storage(DType t, F f) {
  switch (t) {
    case DType::Bool:
      return f(Truth());
    case DType::I8:
      return f(Plain<std::int8_t>());
    case DType::U8:
      return f(Plain<std::uint8_t>());
    case DType::I16:
      return f(Plain<std::int16_t>());
    case DType::U16:
      return f(Plain<std::uint16_t>());
    case DType::I32:
      return f(Plain<std::int32_t>());
    case DType::U32:
      return f(Plain<std::uint32_t>());
    case DType::I64:
      return f(Plain<std::int64_t>());
    case DType::U64:
      return f(Plain<std::uint64_t>());
    case DType::F32:
      return f(Plain<float>());
    case DType::F64:
      return f(Plain<double>());
    case DType::F16:
      return f(Narrow<DType::F16, std::uint16_t>());
    case DType::BF16:
      return f(Narrow<DType::BF16, std::uint16_t>());
    case DType::F8E4M3:
      return f(Narrow<DType::F8E4M3, std::uint8_t>());
    case DType::F8E5M2:
      return f(Narrow<DType::F8E5M2, std::uint8_t>());
    case DType::F8E4M3FNUZ:
      return f(Narrow<DType::F8E4M3FNUZ, std::uint8_t>());
    case DType::F8E5M2FNUZ:
      return f(Narrow<DType::F8E5M2FNUZ, std::uint8_t>());
    case DType::F8E8M0:
      return f(Narrow<DType::F8E8M0, std::uint8_t>());
    case DType::F4E2M1:
      return f(PackedFloat());
    case DType::I4:
      return f(Packed<4, true>());
    case DType::U4:
      return f(Packed<4, false>());
    case DType::I2:
      return f(Packed<2, true>());
    case DType::U2:
      return f(Packed<2, false>());
    default:
      throw Error(Code::Internal, "interpreter", "", "a buffer of real numbers", std::string(name(t)));
  }
}

template <class Storage, bool Predicated, bool Check>
const Instruction* load_element(const Instruction* i, Register* r, Frame& f) {
  if constexpr (Predicated) {
    if (r[i->b].get<std::uint8_t>() == 0) {
      r[i->to] = r[i->c];
      return i + 1;
    }
  }
  const auto index = r[i->a].get<std::int64_t>();
  Storage::read(r[i->to], access<Check>("load", f, i->immediate, index).data, index);
  return i + 1;
}

template <class Storage, bool Predicated, bool Check>
const Instruction* store_element(const Instruction* i, Register* r, Frame& f) {
  if constexpr (Predicated)
    if (r[i->c].get<std::uint8_t>() == 0) return i + 1;
  const auto index = r[i->a].get<std::int64_t>();
  Storage::write(r[i->b], access<Check>("store", f, i->immediate, index).data, index);
  return i + 1;
}

template <bool Check>
const Instruction* allocate_buffer(const Instruction* i, Register* r, Frame& f) {
  const auto b = static_cast<std::size_t>(i->immediate);
  const std::int64_t extent = std::max<std::int64_t>(r[i->a].get<std::int64_t>(), 0);
  const std::int64_t size = bytes(f.code->buffers[b].dtype, extent);
  if (f.storage_bytes[b] < size) {
    f.storage[b] = std::make_unique<std::byte[]>(static_cast<std::size_t>(size));
    f.storage_bytes[b] = size;
  }
  if (Check && size > 0) std::memset(f.storage[b].get(), kGarbage, static_cast<std::size_t>(size));
  f.buffers[b] = {f.storage[b].get(), extent};
  return i + 1;
}

const Instruction* begin_tile(const Instruction* i, Register*, Frame& f) {
  const TileInfo& t = f.code->tiles[static_cast<std::size_t>(i->immediate)];
  f.tiles[static_cast<std::size_t>(i->immediate)].assign(static_cast<std::size_t>(t.rows * t.cols),
                                                         Register{});
  return i + 1;
}

Register& element(Frame& f, std::int64_t tile, std::int64_t row, std::int64_t col) {
  const auto t = static_cast<std::size_t>(tile);
  return f.tiles[t][static_cast<std::size_t>(row * f.code->tiles[t].cols + col)];
}
const Instruction* get_tile(const Instruction* i, Register* r, Frame& f) {
  r[i->to] = element(f, i->immediate, r[i->a].get<std::int64_t>(), r[i->b].get<std::int64_t>());
  return i + 1;
}
const Instruction* set_tile(const Instruction* i, Register* r, Frame& f) {
  element(f, i->immediate, r[i->a].get<std::int64_t>(), r[i->b].get<std::int64_t>()) = r[i->c];
  return i + 1;
}

template <class C, class T>
C widened(Register r) {
  return static_cast<C>(r.get<T>());  // NOLINT(bugprone-signed-char-misuse): a number, not a character
}

template <class C, class A, class B>
const Instruction* mma(const Instruction* i, Register*, Frame& f) {
  const std::int64_t rows = f.code->tiles[i->to].rows, cols = f.code->tiles[i->to].cols,
                     depth = f.code->tiles[i->a].cols;
  std::vector<C> right(static_cast<std::size_t>(depth * cols));
  for (std::int64_t k = 0; k < depth * cols; ++k)
    right[static_cast<std::size_t>(k)] = widened<C, B>(f.tiles[i->b][static_cast<std::size_t>(k)]);
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t k = 0; k < depth; ++k) {
      const C left = widened<C, A>(f.tiles[i->a][static_cast<std::size_t>(m * depth + k)]);
      Register* to = &f.tiles[i->to][static_cast<std::size_t>(m * cols)];
      const C* row = &right[static_cast<std::size_t>(k * cols)];
      for (std::int64_t n = 0; n < cols; ++n)
        to[n].set(semantics::add(to[n].get<C>(), semantics::mul(left, row[n])));
    }
  }
  return i + 1;
}

template <class C, class A>
Handler mma_with(DType b) {
  switch (b) {
    case DType::F64:
      return mma<C, A, double>;
    case DType::I8:
      return mma<C, A, std::int8_t>;
    case DType::U8:
      return mma<C, A, std::uint8_t>;
    default:
      break;
  }
  return is_float(b) ? mma<C, A, float> : mma<C, A, std::int32_t>;
}
template <class C>
Handler mma_of(DType a, DType b) {
  switch (a) {
    case DType::F64:
      return mma_with<C, double>(b);
    case DType::I8:
      return mma_with<C, std::int8_t>(b);
    case DType::U8:
      return mma_with<C, std::uint8_t>(b);
    default:
      break;
  }
  return is_float(a) ? mma_with<C, float>(b) : mma_with<C, std::int32_t>(b);
}

// -- asynchronous copies -----------------------------------------------------------------------------------------

template <class F>
void each_element(const PendingCopy& c, F f) {
  for (std::int64_t row = 0; row < c.rows; ++row)
    for (std::int64_t col = 0; col < c.cols; ++col)
      f(c.to_base + row * c.to_stride + col, c.from_base + row * c.from_stride + col, row * c.cols + col);
}

struct ElementCopy {
  int width;  // bits
  void operator()(std::byte* to, std::int64_t i, const std::byte* from, std::int64_t j) const {
    if (width < 8)
      write_packed(to, i, width, read_packed(from, j, width));
    else
      std::memcpy(to + i * (width / 8), from + j * (width / 8), static_cast<std::size_t>(width / 8));
  }
};

template <bool Check>
const Instruction* begin_copy(const Instruction* i, Register* r, Frame& f) {
  const auto at = [&](std::uint32_t k) { return r[i->b + k].get<std::int64_t>(); };
  PendingCopy c{i->immediate, i->to, i->a, at(0), at(1), at(2), at(3), at(4), at(5), {}};
  if constexpr (Check) {
    const ElementCopy copy{bits(f.code->buffers[c.to].dtype)};
    const std::byte garbage[8] = {std::byte{kGarbage}, std::byte{kGarbage}, std::byte{kGarbage},
                                  std::byte{kGarbage}, std::byte{kGarbage}, std::byte{kGarbage},
                                  std::byte{kGarbage}, std::byte{kGarbage}};
    c.source.resize(static_cast<std::size_t>(
        std::max<std::int64_t>(0, bytes(f.code->buffers[c.to].dtype, c.rows * c.cols))));
    each_element(c, [&](std::int64_t to, std::int64_t from, std::int64_t k) {
      copy(c.source.data(), k, access<true>("copy", f, c.from, from).data, from);
      copy(access<true>("copy", f, c.to, to).data, to, garbage, 0);
    });
  }
  f.pending.push_back(std::move(c));
  return i + 1;
}

template <bool Check>
void finish(const PendingCopy& c, Frame& f) {
  const ElementCopy copy{bits(f.code->buffers[c.to].dtype)};
  each_element(c, [&](std::int64_t to, std::int64_t from, std::int64_t k) {
    if constexpr (Check) {
      std::byte now[8] = {}, then[8] = {};
      copy(now, 0, f.buffers[c.from].data, from);
      copy(then, 0, c.source.data(), k);
      if (std::memcmp(now, then, sizeof now) != 0)
        throw Error(Code::Internal, "interpreter: wait", "", "a source that stays until its copy is complete",
                    "a change of " + f.code->buffers[c.from].name + "[" + std::to_string(from) + "]");
    }
    copy(f.buffers[c.to].data, to, f.buffers[c.from].data, from);
  });
}

// A copy may have been started by the frame around the Thread loop.
template <bool Check>
const Instruction* wait_copy(const Instruction* i, Register*, Frame& f) {
  for (Frame* owner = &f; owner; owner = owner->parent) {
    for (const PendingCopy& c : owner->pending)
      if (c.token == i->immediate) finish<Check>(c, *owner);
    std::erase_if(owner->pending, [&](const PendingCopy& c) { return c.token == i->immediate; });
  }
  return i + 1;
}

}  // namespace

namespace handlers {

Handler load(DType t, bool predicated, bool check) {
  return with_storage(t, [&](auto s) -> Handler {
    using S = decltype(s);
    if (check) return predicated ? load_element<S, true, true> : load_element<S, false, true>;
    return predicated ? load_element<S, true, false> : load_element<S, false, false>;
  });
}
Handler store(DType t, bool predicated, bool check) {
  return with_storage(t, [&](auto s) -> Handler {
    using S = decltype(s);
    if (check) return predicated ? store_element<S, true, true> : store_element<S, false, true>;
    return predicated ? store_element<S, true, false> : store_element<S, false, false>;
  });
}
Handler allocate(bool check) { return check ? allocate_buffer<true> : allocate_buffer<false>; }
Handler tile_begin() { return begin_tile; }
Handler tile_get() { return get_tile; }
Handler tile_set() { return set_tile; }
Handler tile_mma(DType c, DType a, DType b) {
  if (is_float(c)) return c == DType::F64 ? mma_of<double>(a, b) : mma_of<float>(a, b);
  return mma_of<std::int32_t>(a, b);
}
Handler copy_begin(bool check) { return check ? begin_copy<true> : begin_copy<false>; }
Handler copy_wait(bool check) { return check ? wait_copy<true> : wait_copy<false>; }

}  // namespace handlers
}  // namespace deepseek::loops
