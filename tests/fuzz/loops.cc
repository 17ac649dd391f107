// Loop programs from any text: what parses prints and parses back to the same text; what the verifier takes and is sure
// to end soon runs under the interpreter's checks. Errors are the only exceptions.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "deepseek/error.h"
#include "loops/interpreter.h"
#include "loops/ir.h"
#include "loops/math.h"

namespace {

using namespace deepseek;
using namespace deepseek::loops;

constexpr std::int64_t kMany = 1 << 16;  // steps, or elements of a buffer: too many to run

// How many steps a program takes at given dims, as far as that can be told; kMany otherwise.
class Steps {
 public:
  Steps(const Program& p, std::span<const std::int64_t> dims) : symbols_(p.symbols), dims_(dims) {}

  std::int64_t of(const Stmt& s) const {
    if (!s) return 0;
    if (const auto* b = as<Block>(s)) {
      std::int64_t sum = 1;
      for (const Stmt& inner : b->stmts) sum = std::min(kMany, sum + of(inner));
      return sum;
    }
    if (const auto* f = as<For>(s)) return times(extent(f->extent), of(f->body));
    if (as<While>(s)) return kMany;
    if (const auto* i = as<If>(s)) return std::min(kMany, of(i->then) + of(i->otherwise));
    if (const auto* a = as<Alloc>(s)) return extent(a->buffer->extent);
    if (const auto* c = as<CopyAsync>(s)) return times(extent(c->rows), extent(c->cols));
    if (const auto* t = as<TileAlloc>(s)) return elements(t->tile);
    if (const auto* t = as<TileFill>(s)) return elements(t->tile);
    if (const auto* t = as<TileLoad>(s)) return elements(t->tile);
    if (const auto* t = as<TileMap>(s)) return elements(t->tile);
    if (const auto* t = as<TileMma>(s)) return times(elements(t->c), limited(t->a->cols));
    if (const auto* t = as<TileStore>(s)) return times(elements(t->tile), of(t->body));
    return 1;
  }
  std::int64_t extent(const Expr& e) const {
    try {
      return limited(evaluate(e, symbols_, dims_));
    } catch (const Error&) {
      return kMany;  // it depends on more than the dims
    }
  }

 private:
  std::span<const std::string> symbols_;
  std::span<const std::int64_t> dims_;

  static std::int64_t limited(std::int64_t n) { return std::clamp<std::int64_t>(n, 1, kMany); }
  static std::int64_t times(std::int64_t a, std::int64_t b) { return std::min(kMany, a * (b + 1)); }
  static std::int64_t elements(const Tile& t) { return times(limited(t->rows), limited(t->cols)); }
};

void run(const Program& p, const Kernel& kernel) {
  std::vector<std::int64_t> dims;
  for (std::size_t i = 0; i < p.symbols.size(); ++i) dims.push_back(static_cast<std::int64_t>(i % 4));
  const Steps steps(p, dims);
  if (steps.of(p.body) >= kMany) return;
  std::vector<std::vector<std::byte>> memory;
  std::vector<void*> buffers;
  for (const Param& param : p.params) {
    const std::int64_t count = steps.extent(param.buffer->extent);
    if (count >= kMany) return;
    memory.emplace_back(static_cast<std::size_t>(bytes(param.buffer->dtype, count)));
    buffers.push_back(memory.back().data());
  }
  const KernelShape shape = kernel.shape(dims);
  std::int32_t status = 0;
  for (std::size_t phase = 0; phase < shape.grid.size(); ++phase)
    kernel.run(static_cast<int>(phase), buffers.data(), dims.data(), 0, std::min(shape.grid[phase], kMany),
               nullptr, &status);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Program p;
  try {
    p = parse({reinterpret_cast<const char*>(data), size});
  } catch (const Error&) {
    return 0;
  }
  const std::string text = print(p);
  if (print(parse(text)) != text) std::abort();
  try {
    verify(p);
  } catch (const Error&) {
    return 0;
  }
  const auto kernel = interpret(expand_math(p), {.check = true});
  try {
    run(p, *kernel);
  } catch (const Error&) {  // an access out of bounds, say
  }
  return 0;
}
