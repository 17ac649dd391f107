// Register tiles: fill, load, multiply, map, store. Everything is unrolled over rows and vectors.
#include <llvm/IR/Constants.h>
#include <llvm/IR/Intrinsics.h>

#include "deepseek/error.h"
#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

using llvm::ConstantInt;
using Shape = Val::Shape;

namespace {

// Operands with at most this many columns are read element by element when they are multiplied.
constexpr std::int64_t kMaxPendingCols = 16;

llvm::Align element_align(DType t) {
  return llvm::Align(static_cast<std::uint64_t>(std::max(bits(t), 8) / 8));
}

}  // namespace

TileState& Emitter::tile(const loops::Tile& t) {
  const auto it = tiles_.find(t.get());
  check(it != tiles_.end(), "codegen: a tile outside its scope");
  return *it->second;
}

void Emitter::emit_tile_alloc(const loops::TileAlloc& s) {
  const loops::TileNode& t = *s.tile;
  if (lanes_ > 1) unsupported("a tile inside a Vector loop");
  if (bits(t.dtype) < 8) unsupported("a tile of " + std::string(name(t.dtype)));
  auto state = std::make_shared<TileState>();
  state->node = &t;
  const auto lanes = static_cast<std::int64_t>(machine_.lanes);
  state->width = static_cast<int>(lanes == 1 ? 1 : t.cols % lanes == 0 ? lanes : t.cols);
  if (!in_amx(s.tile))
    with_lanes(state->width, [&] {
      for (std::int64_t i = 0; i < t.rows * state->per_row(); ++i)
        state->slots.push_back(local(vector_type(type(t.dtype)), t.name));
    });
  tiles_[&t] = std::move(state);
}

void Emitter::emit_tile_fill(const loops::TileFill& s) {
  if (in_amx(s.tile)) return fill_amx();
  TileState& t = tile(s.tile);
  t.pending.reset();
  const Val value = emit(s.value);
  with_lanes(t.width, [&] {
    llvm::Value* x = vec(value);
    for (llvm::AllocaInst* slot : t.slots) b_.CreateStore(x, slot);
  });
}

void Emitter::emit_tile_load(const loops::TileLoad& s) {
  if (in_amx(s.tile)) return load_amx(s);
  TileState& t = tile(s.tile);
  const Memory m = memory(s.buffer);
  if (m.packed) return load_nibbles(s, t, m);
  const bool widens = t.node->dtype == DType::F32 && (m.dtype == DType::I8 || m.dtype == DType::U8);
  if (t.node->dtype != m.dtype && !widens) unsupported("a tile load that converts");
  t.pending = TileState::Pending{address(m, emit_scalar(s.base)),
                                 emit_scalar(s.row_stride),
                                 emit_scalar(s.col_stride),
                                 emit_scalar(s.valid_rows),
                                 emit_scalar(s.valid_cols),
                                 m.dtype,
                                 s.group};
  if (t.node->cols > kMaxPendingCols && !feeds_dot(t)) load_tile_elements(t);
}

// A column's neighbours of 4 bits share a word: a row is one of its eight places.
void Emitter::load_nibbles(const loops::TileLoad& s, TileState& t, const Memory& m) {
  constexpr std::uint32_t kWidth = 4, kPlaces = 8, kWhole = 1U << 23, kFloats = 0x4B000000;
  const std::uint32_t half = m.dtype == DType::I4 ? kPlaces : 0;
  const bool whole = constant_at_least(emit_scalar(s.valid_rows), t.node->rows) &&
                     constant_at_least(emit_scalar(s.valid_cols), t.node->cols);
  if (!whole || t.node->dtype != DType::F32 || bits(m.dtype) != kWidth ||
      !is_constant(emit_scalar(s.col_stride), kPlaces))
    unsupported("a tile of " + std::string(name(m.dtype)) + " whose columns are no words");
  t.pending.reset();
  const Val base = emit(s.base);
  const auto [modulus, residue] = base.known.modulo(kPlaces);
  const bool known = modulus == kPlaces && t.node->rows == 1;  // the same place in each word
  llvm::Value* stride = emit_scalar(s.row_stride);
  with_lanes(t.width, [&] {
    llvm::Type *word = b_.getInt32Ty(), *words = vector_type(word), *floats = vector_type(b_.getFloatTy());
    for (std::int64_t i = 0; i < t.node->rows; ++i) {
      llvm::Value* first = b_.CreateAdd(base.v, b_.CreateMul(stride, i64(i)));
      llvm::Value* at = known ? i64(residue) : b_.CreateAnd(first, kPlaces - 1);
      llvm::Value* place = b_.CreateMul(b_.CreateTrunc(at, word), b_.getInt32(kWidth));
      llvm::Value* row =
          b_.CreateGEP(word, m.base, b_.CreateAShr(b_.CreateSub(first, at), std::countr_zero(kPlaces)));
      for (std::int64_t j = 0; j < t.per_row(); ++j) {
        llvm::Value* x =
            b_.CreateAlignedLoad(words, b_.CreateGEP(word, row, i64(j * t.width)), llvm::Align(1));
        // 2^23 + n is a float whose last bits are n: no conversion. Of signed ones n + 8.
        x = b_.CreateAnd(b_.CreateLShr(x, vec({place})), (1U << kWidth) - 1);
        x = b_.CreateXor(x, ConstantInt::get(words, kFloats | half));
        x = b_.CreateFSub(b_.CreateBitCast(x, floats), llvm::ConstantFP::get(floats, kWhole + half));
        b_.CreateStore(x, t.slots[t.slot(i, j)]);
      }
    }
  });
}

void Emitter::settle_tiles() {
  for (auto& [node, state] : tiles_)
    if (state->pending) load_tile_elements(*state);
}

// A square whose rows are neighbours in memory: its columns are read as vectors and turned in registers.
bool Emitter::load_turned(TileState& t, const TileState::Pending& p) {
  const auto* step = llvm::dyn_cast<ConstantInt>(p.row_stride);
  const auto size = static_cast<std::size_t>(t.width);
  const bool square = t.width > 1 && t.node->rows == t.width && t.node->cols == t.width;
  if (!square || (size & (size - 1)) != 0 || !step || !step->isOne() || p.group != 1) return false;
  with_lanes(t.width, [&] {
    std::vector<llvm::Value*> turned;
    for (std::int64_t j = 0; j < t.node->cols; ++j) {
      const Memory m{b_.CreateGEP(memory_type(p.dtype), p.base, b_.CreateMul(p.col_stride, i64(j))), p.dtype,
                     false, false};
      const Val index{i64(0), Shape::Linear, 1};
      Val valid;
      if (!constant_at_least(p.valid_rows, t.node->rows))
        valid = emit_compare(loops::Op::Lt, DType::I64, index, {p.valid_rows});
      if (!constant_at_least(p.valid_cols, j + 1)) {
        const std::array both{valid.v ? valid : Val{b_.getTrue()},
                              Val{b_.CreateICmpSLT(i64(j), p.valid_cols)}};
        valid = apply(both, [&](auto v) { return b_.CreateAnd(v[0], v[1]); });
      }
      const Val zero{llvm::Constant::getNullValue(type(p.dtype))};
      turned.push_back(vec(valid.v ? load(m, index, &valid, &zero) : load(m, index, nullptr, nullptr)));
    }
    // Blocks of half the size change places across the diagonal, then their halves, down to elements.
    for (std::size_t half = size / 2; half > 0; half /= 2)
      for (std::size_t r = 0; r < size; ++r) {
        if ((r & half) != 0) continue;
        llvm::Value *&upper = turned[r], *&lower = turned[r + half];
        std::vector<int> first, second;
        for (std::size_t i = 0; i < size; ++i) {
          const bool right = (i & half) != 0;
          first.push_back(static_cast<int>(right ? size + i - half : i));
          second.push_back(static_cast<int>(right ? size + i : i + half));
        }
        llvm::Value* above = b_.CreateShuffleVector(upper, lower, first);
        lower = b_.CreateShuffleVector(upper, lower, second);
        upper = above;
      }
    for (std::int64_t i = 0; i < t.node->rows; ++i)
      b_.CreateStore(convert(turned[static_cast<std::size_t>(i)], p.dtype, t.node->dtype),
                     t.slots[t.slot(i, 0)]);
  });
  return true;
}

void Emitter::load_tile_elements(TileState& t) {
  const TileState::Pending p = *t.pending;
  t.pending.reset();
  if (load_turned(t, p)) return;
  const bool full_cols = constant_at_least(p.valid_cols, t.node->cols);
  const bool full_rows = constant_at_least(p.valid_rows, t.node->rows);
  const auto* stride = llvm::dyn_cast<ConstantInt>(p.col_stride);
  with_lanes(t.width, [&] {
    for (std::int64_t i = 0; i < t.node->rows; ++i) {
      llvm::Value* row = tile_row(p, i);
      llvm::Value* row_valid = full_rows ? nullptr : b_.CreateICmpSLT(i64(i), p.valid_rows);
      for (std::int64_t j = 0; j < t.per_row(); ++j) {
        Memory m{row, p.dtype, false, false};
        const std::int64_t first = j * t.width;
        Val index{b_.CreateMul(p.col_stride, i64(first))};
        if (t.width > 1) {
          if (stride && stride->getSExtValue() != 0)
            index = {index.v, Shape::Linear, stride->getSExtValue()};
          else if (!stride)
            index = {
                b_.CreateMul(b_.CreateAdd(vec({i64(first)}), iota(b_.getInt64Ty())), vec({p.col_stride})),
                Shape::Varying};
        }
        Val valid;
        if (!full_cols)
          valid = emit_compare(loops::Op::Lt, DType::I64,
                               {i64(first), t.width > 1 ? Shape::Linear : Shape::Uniform, 1}, {p.valid_cols});
        if (row_valid) {
          const std::array both{valid.v ? valid : Val{b_.getTrue()}, Val{row_valid}};
          valid = apply(both, [&](auto v) { return b_.CreateAnd(v[0], v[1]); });
        }
        const Val zero{llvm::Constant::getNullValue(type(p.dtype))};
        const Val x = valid.v ? load(m, index, &valid, &zero) : load(m, index, nullptr, nullptr);
        b_.CreateStore(convert(vec(x), p.dtype, t.node->dtype), t.slots[t.slot(i, j)]);
      }
    }
  });
}

// Address of the first element of a row.
llvm::Value* Emitter::tile_row(const TileState::Pending& p, std::int64_t row) {
  llvm::Value* offset = b_.CreateMul(p.row_stride, i64(row / p.group));
  return b_.CreateGEP(memory_type(p.dtype), p.base, b_.CreateAdd(offset, i64(row % p.group)));
}

// An element as a scalar.
llvm::Value* Emitter::tile_operand(TileState& t, std::int64_t row, std::int64_t col) {
  if (!t.pending) {
    llvm::AllocaInst* slot = t.slots[t.slot(row, col / t.width)];
    llvm::Value* x = b_.CreateLoad(slot->getAllocatedType(), slot);
    return t.width == 1 ? x : b_.CreateExtractElement(x, static_cast<std::uint64_t>(col % t.width));
  }
  const TileState::Pending& p = *t.pending;
  llvm::Type* element = memory_type(p.dtype);
  llvm::Value* pointer = b_.CreateGEP(element, tile_row(p, row), b_.CreateMul(p.col_stride, i64(col)));
  llvm::Value* valid = nullptr;
  if (!constant_at_least(p.valid_rows, t.node->rows)) valid = b_.CreateICmpSLT(i64(row), p.valid_rows);
  if (!constant_at_least(p.valid_cols, t.node->cols))
    valid = select_mask(valid, b_.CreateICmpSLT(i64(col), p.valid_cols));
  if (valid) pointer = guarded(pointer, valid);
  llvm::Value* x = from_memory(b_.CreateAlignedLoad(element, pointer, element_align(p.dtype)), p.dtype);
  return convert(x, p.dtype, t.node->dtype);
}

void Emitter::emit_tile_mma(const loops::TileMma& s) {
  if (in_amx(s.c)) return multiply_amx();
  TileState &c = tile(s.c), &a = tile(s.a), &b = tile(s.b);
  if (emit_dot(c, a, b)) return;
  if (b.pending) load_tile_elements(b);
  if (c.pending) load_tile_elements(c);
  if (machine_.gpu && a.pending) load_tile_elements(a);
  check(b.width == c.width, "codegen: tiles of one multiply have the same columns");
  const DType acc = c.node->dtype, in = a.node->dtype;
  with_lanes(c.width, [&] {
    for (std::int64_t k = 0; k < a.node->cols; ++k) {
      std::vector<llvm::Value*> right;
      for (std::int64_t j = 0; j < b.per_row(); ++j) {
        llvm::AllocaInst* slot = b.slots[b.slot(k, j)];
        right.push_back(convert(b_.CreateLoad(slot->getAllocatedType(), slot), b.node->dtype, acc));
      }
      for (std::int64_t i = 0; i < c.node->rows; ++i) {
        llvm::Value* left = vec({convert(tile_operand(a, i, k), in, acc)});
        for (std::int64_t j = 0; j < c.per_row(); ++j) {
          llvm::AllocaInst* slot = c.slots[c.slot(i, j)];
          llvm::Value* sum = b_.CreateLoad(slot->getAllocatedType(), slot);
          llvm::Value* x = right[static_cast<std::size_t>(j)];
          if (acc == DType::F32 || acc == DType::F64)
            sum = b_.CreateIntrinsic(llvm::Intrinsic::fma, {x->getType()}, {left, x, sum});
          else
            sum = binary(loops::Op::Add, acc, binary(loops::Op::Mul, acc, left, x), sum);
          b_.CreateStore(sum, slot);
        }
      }
    }
  });
}

void Emitter::emit_tile_map(const loops::TileMap& s) {
  TileState& t = tile(s.tile);
  if (t.pending) load_tile_elements(t);
  with_lanes(t.width, [&] {
    for (std::int64_t i = 0; i < t.node->rows; ++i)
      for (std::int64_t j = 0; j < t.per_row(); ++j) {
        llvm::AllocaInst* slot = t.slots[t.slot(i, j)];
        bind_element(t, s.i, s.j, s.x, i, j);
        memo_.clear();
        b_.CreateStore(vec(emit(s.value)), slot);
      }
  });
}

void Emitter::bind_element(TileState& t, const loops::Var& i, const loops::Var& j, const loops::Var& x,
                           std::int64_t row, std::int64_t vector) {
  llvm::Type* type_of_slot = vector_type(type(t.node->dtype));
  llvm::Value* slot =
      t.spilled ? b_.CreateGEP(type(t.node->dtype), t.spilled, i64(row * t.node->cols + vector * t.width))
                : t.slots[t.slot(row, vector)];
  vars_[i.get()] = {i64(row), Shape::Uniform, 0, Congruence::exactly(row)};
  vars_[j.get()] = {i64(vector * t.width), t.width > 1 ? Shape::Linear : Shape::Uniform, t.width > 1,
                    Congruence::exactly(vector * t.width)};
  vars_[x.get()] = {b_.CreateLoad(type_of_slot, slot), t.width > 1 ? Shape::Varying : Shape::Uniform};
}

void Emitter::emit_tile_store(const loops::TileStore& s) {
  TileState& t = tile(s.tile);
  if (t.pending) load_tile_elements(t);
  if (in_amx(s.tile)) spill_amx(t);
  llvm::Value *rows = emit_scalar(s.valid_rows), *cols = emit_scalar(s.valid_cols);
  with_lanes(t.width, [&] {
    const auto vector = [&](std::int64_t i, std::int64_t j) {
      bind_element(t, s.i, s.j, s.x, i, j);
      const std::int64_t first = j * t.width;
      if (constant_at_least(cols, first + t.width)) return emit(s.body);
      const Val valid = emit_compare(loops::Op::Lt, DType::I64, vars_[s.j.get()], {cols});
      if (valid.uniform()) return when(valid.v, [&] { emit(s.body); }, "column");
      // The vector is skipped when it lies beyond the last column.
      when(
          b_.CreateICmpSLT(i64(first), cols),
          [&] {
            mask_ = valid.v;
            emit(s.body);
            mask_ = nullptr;
          },
          "columns");
    };
    for (std::int64_t i = 0; i < t.node->rows; ++i) {
      const auto row = [&] {
        for (std::int64_t j = 0; j < t.per_row(); ++j) vector(i, j);
      };
      if (constant_at_least(rows, i + 1))
        row();
      else
        when(b_.CreateICmpSLT(i64(i), rows), row, "row");
    }
  });
}

}  // namespace deepseek::codegen
