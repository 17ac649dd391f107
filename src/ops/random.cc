// Random numbers: counter-based, so that element i depends on seed, offset and i alone, whatever the threads do.
// The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
#include <array>
#include <numbers>

#include "ops/entries.h"

namespace deepseek {
namespace {

constexpr std::int64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr std::int64_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

using Words = std::array<Expr, 4>;

Expr word(std::int64_t v) { return loops::constant(DType::U32, v); }
Expr low_word(const Expr& x) { return loops::cast(DType::U32, x); }
Expr high_word(const Expr& x) {
  return low_word(loops::make(loops::Op::Shr, {x, loops::constant(DType::U64, std::int64_t{32})}));
}
Expr xor_of(const Expr& a, const Expr& b) { return loops::make(loops::Op::Xor, {a, b}); }

// All rounds over counter and key.
Words philox(Words x, Expr key0, Expr key1) {
  for (int round = 0; round < kRounds; ++round) {
    const Expr a = loops::cast(DType::U64, x[0]) * loops::constant(DType::U64, kMultiplier0);
    const Expr b = loops::cast(DType::U64, x[2]) * loops::constant(DType::U64, kMultiplier1);
    x = {xor_of(xor_of(high_word(b), x[1]), key0), low_word(b), xor_of(xor_of(high_word(a), x[3]), key1),
         low_word(a)};
    key0 = key0 + word(kWeyl0);
    key1 = key1 + word(kWeyl1);
  }
  return x;
}

// The four words of the element at `coords`.
Words random_words(const Node& n, Elements& e, std::span<const Expr> coords) {
  const auto scalar = [&](int i) { return loops::cast(DType::U64, e.in(i, {})); };
  Expr flat(0);
  for (std::size_t i = 0; i < coords.size(); ++i) flat = flat * e.dim(n.outputs[0].shape[i]) + coords[i];
  const Expr index = loops::cast(DType::U64, flat), seed = scalar(0), offset = scalar(1);
  return philox({low_word(index), high_word(index), low_word(offset), high_word(offset)}, low_word(seed),
                high_word(seed));
}

// [0, 1) with 24 bits, exact in F32.
Expr unit(const Expr& bits) {
  const Expr top = loops::make(loops::Op::Shr, {bits, word(8)});
  return loops::cast(DType::F32, top) * 0x1p-24;
}

OpBuilder random_op(OpTable& t, std::string name, std::string doc, IndexedFn f) {
  OpBuilder b = t.add(std::move(name));
  b.doc(std::move(doc) + " Each element is a function of seed, offset and its number (Philox 4x32-10).")
      .input("seed", Accepts::Index)
      .input("offset", Accepts::Index)
      .attr("shape", AttrKind::Shape, "The shape.")
      .attr("dtype", AttrKind::DType, DType::F32, "The dtype.")
      .infer([](const Node& n) {
        if (n.in(0).rank() != 0 || n.in(1).rank() != 0)
          bad_input(n, "scalars seed and offset", str(n.in(0).type()) + ", " + str(n.in(1).type()));
        return std::vector<Type>{{n.attr<DType>("dtype"), shape_attr(n, "shape")}};
      })
      .indexed(std::move(f));
  return b;
}

}  // namespace

void add_random_ops(OpTable& t) {
  random_op(t, "random_uniform", "Uniform in [0, 1).",
            [](const Node& n, Elements& e, std::span<const Expr> coords) {
              return loops::cast(compute_type(n.attr<DType>("dtype")), unit(random_words(n, e, coords)[0]));
            });
  random_op(t, "random_normal", "Normal with mean 0 and variance 1 (Box and Muller, 1958).",
            [](const Node& n, Elements& e, std::span<const Expr> coords) {
              const Words w = random_words(n, e, coords);
              const Expr radius = loops::make(loops::Op::Sqrt,
                                              {loops::make(loops::Op::Log, {Expr(1.0) - unit(w[0])}) * -2.0});
              const Expr angle = unit(w[1]) * (2 * std::numbers::pi);
              return loops::cast(compute_type(n.attr<DType>("dtype")),
                                 radius * loops::make(loops::Op::Cos, {angle}));
            });
  random_op(t, "random_bits", "32 random bits, a number in [0, 2^32), in an integer dtype that holds it.",
            [](const Node& n, Elements& e, std::span<const Expr> coords) {
              return loops::cast(compute_type(n.attr<DType>("dtype")), random_words(n, e, coords)[0]);
            });
}

}  // namespace deepseek
