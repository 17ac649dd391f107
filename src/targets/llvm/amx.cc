#include "targets/llvm/amx.h"

#include <llvm/IR/Constants.h>
#include <llvm/IR/IntrinsicsX86.h>

#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

namespace {

using loops::as;
using loops::Expr;

bool at_least(const Expr& e, std::int64_t bound) { return e.int_value().value_or(-1) >= bound; }

bool is_zero(const Expr& e) {
  return e.is_const() && (e.int_value() == 0 || e->value == loops::zero(e.type())->value);
}

bool types_fit(const loops::TileMma& m) {
  const DType a = m.a->dtype, b = m.b->dtype, c = m.c->dtype;
  return (a == DType::BF16 && b == DType::BF16 && c == DType::F32) ||
         (a == DType::U8 && b == DType::I8 && c == DType::I32);
}

bool loads_whole(const loops::TileLoad& l, std::int64_t group) {
  return at_least(l.valid_rows, l.tile->rows) && at_least(l.valid_cols, l.tile->cols) && l.group == group &&
         l.col_stride.int_value() == group;
}

}  // namespace

std::optional<AmxPlan> plan_amx(const loops::Stmt& phase, const Machine& machine) {
  if (!machine.amx) return std::nullopt;
  const loops::TileMma* multiply = nullptr;
  int multiplies = 0;
  loops::visit_stmts(phase, [&](const loops::Stmt& s) {
    if (const auto* m = as<loops::TileMma>(s)) {
      multiply = m;
      ++multiplies;
    }
  });
  if (multiplies != 1 || !types_fit(*multiply)) return std::nullopt;
  AmxPlan p{multiply->c.get(), multiply->a.get(), multiply->b.get(), 0, 0};
  const std::int64_t group = 32 / bits(p.b->dtype);
  if (p.a->cols * bits(p.a->dtype) != AmxPlan::kRowBytes * 8 || p.c->cols % AmxPlan::kSide != 0)
    return std::nullopt;
  p.down = (p.c->rows + AmxPlan::kSide - 1) / AmxPlan::kSide;
  p.across = p.c->cols / AmxPlan::kSide;
  if (p.down * p.across + p.down + p.across > AmxPlan::kRegisters) return std::nullopt;
  bool fits = true;
  loops::visit_stmts(phase, [&](const loops::Stmt& s) {
    if (const auto* l = as<loops::TileLoad>(s)) {
      if (l->tile.get() == p.a) fits = fits && loads_whole(*l, 1);
      if (l->tile.get() == p.b) fits = fits && loads_whole(*l, group);
      if (l->tile.get() == p.c) fits = false;
    } else if (const auto* f = as<loops::TileFill>(s)) {
      if (p.holds(f->tile.get())) fits = fits && f->tile.get() == p.c && is_zero(f->value);
    } else if (const auto* t = as<loops::TileMap>(s)) {
      fits = fits && !p.holds(t->tile.get());
    } else if (const auto* t = as<loops::TileStore>(s)) {
      fits = fits && t->tile.get() != p.a && t->tile.get() != p.b;
    }
  });
  return fits ? std::optional(p) : std::nullopt;
}

void Emitter::configure_amx() {
  if (!frame_.amx) return;
  const AmxPlan& p = *frame_.amx;
  constexpr std::size_t kPalette = 0, kColumns = 16, kRows = 48, kBytes = 64;
  std::array<std::uint8_t, kBytes> config{};
  config[kPalette] = 1;
  const auto set = [&](std::int64_t tile, std::int64_t rows) {
    config[kColumns + 2 * static_cast<std::size_t>(tile)] = AmxPlan::kRowBytes;
    config[kRows + static_cast<std::size_t>(tile)] = static_cast<std::uint8_t>(rows);
  };
  for (std::int64_t i = 0; i < p.down; ++i) {
    for (std::int64_t j = 0; j < p.across; ++j) set(p.result(i, j), p.rows_of_block(i));
    set(p.left(i), p.rows_of_block(i));
  }
  for (std::int64_t j = 0; j < p.across; ++j) set(p.right(j), p.b->rows * bits(p.b->dtype) / 32);
  auto* data = llvm::ConstantDataArray::get(module_.getContext(), config);
  auto* global = new llvm::GlobalVariable(module_, data->getType(), true, llvm::GlobalValue::PrivateLinkage,
                                          data, "tiles");
  global->setAlignment(llvm::Align(kBytes));
  b_.CreateIntrinsic(llvm::Intrinsic::x86_ldtilecfg, {global});
}

void Emitter::release_amx() {
  if (frame_.amx) b_.CreateIntrinsic(llvm::Intrinsic::x86_tilerelease, {});
}

bool Emitter::in_amx(const loops::Tile& t) const { return frame_.amx && frame_.amx->holds(t.get()); }

namespace {
llvm::Value* number(llvm::IRBuilderBase& b, std::int64_t tile) {
  return b.getInt8(static_cast<std::uint8_t>(tile));
}
}  // namespace

void Emitter::fill_amx() {
  const AmxPlan& p = *frame_.amx;
  for (std::int64_t t = 0; t < p.down * p.across; ++t)
    b_.CreateIntrinsic(llvm::Intrinsic::x86_tilezero, {number(b_, t)});
}

void Emitter::load_amx(const loops::TileLoad& s) {
  const AmxPlan& p = *frame_.amx;
  const Memory m = memory(s.buffer);
  const std::int64_t bytes = bits(m.dtype) / 8;
  llvm::Value *base = address(m, emit_scalar(s.base)), *stride = emit_scalar(s.row_stride);
  llvm::Value* stride_bytes = b_.CreateMul(stride, i64(bytes));
  const auto load = [&](std::int64_t tile, llvm::Value* offset) {
    llvm::Value* pointer = b_.CreateGEP(memory_type(m.dtype), base, offset);
    b_.CreateIntrinsic(llvm::Intrinsic::x86_tileloadd64, {number(b_, tile), pointer, stride_bytes});
  };
  if (s.tile.get() == p.a)
    for (std::int64_t i = 0; i < p.down; ++i) load(p.left(i), b_.CreateMul(stride, i64(i * AmxPlan::kSide)));
  else
    for (std::int64_t j = 0; j < p.across; ++j) load(p.right(j), i64(j * AmxPlan::kRowBytes / bytes));
}

void Emitter::multiply_amx() {
  const AmxPlan& p = *frame_.amx;
  const auto unit = p.b->dtype == DType::BF16 ? llvm::Intrinsic::x86_tdpbf16ps : llvm::Intrinsic::x86_tdpbusd;
  for (std::int64_t j = 0; j < p.across; ++j)
    for (std::int64_t i = 0; i < p.down; ++i)
      b_.CreateIntrinsic(unit, {number(b_, p.result(i, j)), number(b_, p.left(i)), number(b_, p.right(j))});
}

// The results go to the stack, from where their elements are read.
void Emitter::spill_amx(TileState& t) {
  const AmxPlan& p = *frame_.amx;
  if (!t.spilled) {
    t.spilled = local(
        llvm::ArrayType::get(type(p.c->dtype), static_cast<std::uint64_t>(p.c->rows * p.c->cols)), p.c->name);
    t.spilled->setAlignment(llvm::Align(AmxPlan::kRowBytes));
  }
  const std::int64_t bytes = bits(p.c->dtype) / 8;
  for (std::int64_t i = 0; i < p.down; ++i)
    for (std::int64_t j = 0; j < p.across; ++j) {
      llvm::Value* pointer =
          b_.CreateGEP(type(p.c->dtype), t.spilled, i64((i * p.c->cols + j) * AmxPlan::kSide));
      b_.CreateIntrinsic(llvm::Intrinsic::x86_tilestored64,
                         {number(b_, p.result(i, j)), pointer, i64(p.c->cols * bytes)});
    }
}

}  // namespace deepseek::codegen
