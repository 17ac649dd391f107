#include <algorithm>
#include <cstring>

#include "deepseek/error.h"
#include "toy/isa.h"

namespace deepseek::toy {
namespace {

// Cycles. The copy engine moves kCopyWidth bytes in each after kCopyLatency; the core goes on meanwhile.
constexpr double kMultiply = 16, kTileRow = 1, kFar = 20, kNear = 1, kCopyLatency = 40, kCopyWidth = 16;

using loops::Scalar;
using Tile = std::array<std::array<float, kTile>, kTile>;

struct Copy {
  const Instruction* start;
  std::array<std::int64_t, 6> operands;
  double done;  // cycle
};

class Core {
 public:
  Core(std::vector<Scalar> registers, int tiles, std::span<const Memory> memory, std::int32_t* status)
      : r_(std::move(registers)), tiles_(static_cast<std::size_t>(tiles)), memory_(memory), status_(status) {}

  double run(std::span<const Instruction> code) {
    for (std::size_t at = 0; at < code.size(); ++at) at += static_cast<std::size_t>(step(code[at]));
    if (!copies_.empty()) trap("a wait for every copy", "none");
    return clock_;
  }

 private:
  std::vector<Scalar> r_;
  std::vector<Tile> tiles_;
  std::span<const Memory> memory_;
  std::int32_t* status_;
  std::vector<Copy> copies_;
  double clock_ = 0, engine_free_ = 0;

  [[noreturn]] static void trap(const char* expected, const std::string& got) {
    throw Error(Code::Internal, "toy", "", expected, got);
  }
  Scalar& reg(int i) { return r_[static_cast<std::size_t>(i)]; }
  std::int64_t integer(const Instruction& x, std::size_t i) { return reg(x.in[i]).i; }
  Tile& tile(int i) { return tiles_[static_cast<std::size_t>(i)]; }
  float& element(int t, std::int64_t i, std::int64_t j) {
    return tile(t)[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
  }
  const Memory& memory(int i) const { return memory_[static_cast<std::size_t>(i)]; }

  static std::byte* address(const Memory& m, std::int64_t index) {
    if (index < 0 || index >= m.extent)
      trap("an index within the memory", std::to_string(index) + " of " + std::to_string(m.extent));
    return m.data + index * bits(m.type) / 8;
  }
  template <class T>
  static T get(const std::byte* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static Scalar read(const Memory& m, std::int64_t index) {
    const std::byte* p = address(m, index);
    if (m.type == DType::F32) return {0, get<float>(p)};
    if (m.type == DType::I64) return {get<std::int64_t>(p), 0};
    return {m.type == DType::I32 ? get<std::int32_t>(p) : std::to_integer<std::int64_t>(*p), 0};
  }
  static void write(const Memory& m, std::int64_t index, Scalar v) {
    std::byte* p = address(m, index);
    const auto single = static_cast<float>(v.d);
    if (m.type == DType::F32)
      std::memcpy(p, &single, sizeof single);
    else
      std::memcpy(p, &v.i, static_cast<std::size_t>(bits(m.type) / 8));  // little-endian
  }

  template <class F>
  void each_row(const Copy& c, F f) {  // f(destination, source, bytes)
    const auto& [to, to_stride, from, from_stride, rows, cols] = c.operands;
    const Memory &destination = memory(c.start->memory), &source = memory(c.start->other);
    if (cols <= 0) return;
    for (std::int64_t i = 0; i < rows; ++i) {
      std::byte* p = address(destination, to + i * to_stride);
      const std::byte* q = address(source, from + i * from_stride);
      address(destination, to + i * to_stride + cols - 1);
      address(source, from + i * from_stride + cols - 1);
      f(p, q, static_cast<std::size_t>(cols * bits(source.type) / 8));
    }
  }

  void start(const Instruction& x) {
    Copy c{&x, {}, 0};
    for (std::size_t i = 0; i < 6; ++i) c.operands[i] = integer(x, i);
    double moved = 0;
    each_row(c, [&](std::byte* to, const std::byte*, std::size_t n) {
      std::memset(to, 0xff, n);  // garbage until the wait; NaN as a float
      moved += static_cast<double>(n);
    });
    engine_free_ = c.done = std::max(clock_, engine_free_) + kCopyLatency + moved / kCopyWidth;
    copies_.push_back(c);
  }
  void wait(const Instruction& x) {
    const auto c = std::ranges::find(copies_, x.immediate, [](const Copy& k) { return k.start->immediate; });
    if (c == copies_.end()) trap("a copy to wait for", "none");
    each_row(*c, [](std::byte* to, const std::byte* from, std::size_t n) { std::memmove(to, from, n); });
    clock_ = std::max(clock_, c->done);
    copies_.erase(c);
  }

  void multiply(const Instruction& x) {
    for (std::int64_t i = 0; i < kTile; ++i)
      for (std::int64_t k = 0; k < kTile; ++k)
        for (std::int64_t j = 0; j < kTile; ++j)
          element(x.to, i, j) += element(x.in[0], i, k) * element(x.in[1], k, j);
  }
  void load_tile(const Instruction& x) {
    for (std::int64_t i = 0; i < kTile; ++i)
      for (std::int64_t j = 0; j < kTile; ++j) {
        const std::int64_t at = integer(x, 0) + i * integer(x, 1) + j * integer(x, 2);
        const bool valid = i < integer(x, 3) && j < integer(x, 4);
        element(x.to, i, j) = valid ? static_cast<float>(read(memory(x.memory), at).d) : 0;
      }
  }

  // Does the instruction; gives how many of the next ones to leave out.
  std::int64_t step(const Instruction& x) {
    double cost = 1;
    std::int64_t jump = 0;
    switch (x.opcode) {
      case Opcode::Compute: {
        const Scalar args[] = {reg(x.in[0]), reg(x.in[1]), reg(x.in[2])};
        reg(x.to) = loops::evaluate(x.alu, x.type, {args, static_cast<std::size_t>(x.immediate)});
        break;
      }
      case Opcode::Convert:
        reg(x.to) = loops::convert(x.type, x.into, reg(x.in[0]));
        break;
      case Opcode::Load:
        reg(x.to) = integer(x, 1) ? read(memory(x.memory), integer(x, 0)) : reg(x.in[2]);
        cost = memory(x.memory).scratchpad ? kNear : kFar;
        break;
      case Opcode::Store:
        if (integer(x, 2)) write(memory(x.memory), integer(x, 0), reg(x.in[1]));
        cost = memory(x.memory).scratchpad ? kNear : kFar;
        break;
      case Opcode::Jump:
        jump = x.immediate;
        break;
      case Opcode::JumpUnless:
        jump = integer(x, 0) ? 0 : x.immediate;
        break;
      case Opcode::Check:
        if (!integer(x, 0) && *status_ == 0) *status_ = static_cast<std::int32_t>(x.immediate);
        break;
      case Opcode::CopyStart:
        start(x);
        break;
      case Opcode::CopyWait:
        wait(x);
        break;
      case Opcode::TileFill:
        for (auto& row : tile(x.to)) row.fill(static_cast<float>(reg(x.in[0]).d));
        cost = kTileRow * kTile;
        break;
      case Opcode::TileLoad:
        load_tile(x);
        cost = kTileRow * kTile;
        break;
      case Opcode::TileMultiply:
        multiply(x);
        cost = kMultiply;
        break;
      case Opcode::TileGet:
        reg(x.to) = {0, element(x.in[0], integer(x, 1), integer(x, 2))};
        break;
      case Opcode::TileSet:
        element(x.to, integer(x, 0), integer(x, 1)) = static_cast<float>(reg(x.in[2]).d);
        break;
    }
    clock_ += cost / x.lanes;
    return jump;
  }
};

}  // namespace

double simulate(std::span<const Instruction> code, std::vector<Scalar> registers, int tiles,
                std::span<const Memory> memory, std::int32_t* status) {
  return Core(std::move(registers), tiles, memory, status).run(code);
}

}  // namespace deepseek::toy
