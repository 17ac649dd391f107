// Short hands for writing the loops of `program` definitions.
#pragma once

#include <functional>
#include <string>

#include "ops/entries.h"

namespace deepseek {

using loops::Stmt;
using LoopBody = std::function<Stmt(const Expr& i)>;

inline Stmt loop(loops::LoopKind kind, std::string name, const Expr& extent, const LoopBody& body) {
  const loops::Var v = loops::loop_var(std::move(name), extent);
  return loops::stmt(loops::For{v, extent, kind, body(loops::var(v))});
}
inline Stmt serial(std::string name, const Expr& extent, const LoopBody& body) {
  return loop(loops::LoopKind::Serial, std::move(name), extent, body);
}
inline Stmt parallel(std::string name, const Expr& extent, const LoopBody& body) {
  return loop(loops::LoopKind::Parallel, std::move(name), extent, body);
}
inline Stmt lanes(std::string name, const Expr& extent, const LoopBody& body) {
  return loop(loops::LoopKind::Vector, std::move(name), extent, body);
}
inline Stmt store(const loops::Buffer& b, Expr index, Expr value) {
  return loops::stmt(loops::Store{b, std::move(index), loops::cast(b->dtype, std::move(value)), Expr()});
}
inline Stmt when(Expr condition, Stmt then, Stmt otherwise = nullptr) {
  return loops::stmt(loops::If{std::move(condition), std::move(then), std::move(otherwise)});
}
// An element in the type in which its dtype computes.
inline Expr read(const loops::Buffer& b, Expr index) {
  return loops::cast(compute_type(b->dtype), loops::load(b, std::move(index)));
}
inline Expr read_index(const loops::Buffer& b, Expr index) {
  return loops::cast(DType::I64, loops::load(b, std::move(index)));
}
inline Expr ceil_div(const Expr& a, std::int64_t b) { return loops::floordiv(a + Expr(b - 1), Expr(b)); }

// Names a value for the statements that follow it.
struct Named {
  Stmt let;
  Expr value;
};
inline Named let(std::string name, Expr value) {
  const loops::Var v = loops::make_var(std::move(name), value.type());
  return {loops::stmt(loops::Let{v, std::move(value)}), loops::var(v)};
}

// One scalar that loops may change.
class Cell {
 public:
  Cell(std::string name, DType t)
      : buffer_(loops::make_buffer(std::move(name), t, loops::Space::Register, Expr(1))) {}
  Stmt declare(Expr initial) const {
    return loops::block({loops::stmt(loops::Alloc{buffer_}), set(std::move(initial))});
  }
  Expr get() const { return loops::load(buffer_, Expr(0)); }
  Stmt set(Expr value) const { return store(buffer_, Expr(0), std::move(value)); }

 private:
  loops::Buffer buffer_;
};

// Elements that one iteration of a parallel copy or fill handles.
inline constexpr std::int64_t kCopyBlock = 4096;
// Columns that one iteration of a parallel loop over columns handles: a few vectors.
inline constexpr std::int64_t kColumnBlock = 64;

// body(i) for every i < count, in parallel blocks of vector lanes.
inline Stmt for_each(const Expr& count, std::int64_t block_size, const LoopBody& body) {
  return parallel("block", ceil_div(count, block_size), [&](const Expr& b) {
    const Expr first = b * Expr(block_size);
    return lanes("i", loops::min(Expr(block_size), count - first),
                 [&](const Expr& i) { return body(first + i); });
  });
}

// Products of dims as index expressions.
inline Expr count_of(const std::function<Expr(const Dim&)>& dim, const Shape& s, std::size_t begin,
                     std::size_t end) {
  Dim count(1);
  for (std::size_t i = begin; i < end; ++i) count = count * s[i];
  return dim(count);
}

}  // namespace deepseek
