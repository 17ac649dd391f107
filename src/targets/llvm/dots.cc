// Register tiles multiplied by units that take neighbours together: a lane of 32 bits gets the sum of two products of
// bf16 or int16, or of four of bytes. The right operand lies interleaved as the unit wants it (TileLoad's group) and is loaded
// as it lies; the left one's neighbours are broadcast as one number of 32 bits.
#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/IntrinsicsX86.h>
#include <llvm/IR/MDBuilder.h>

#include "targets/llvm/emitter.h"

namespace deepseek::codegen {

namespace {

constexpr std::int64_t kLaneBits = 32;

bool reads_whole_tile(const TileState& t) {
  return t.pending && constant_at_least(t.pending->valid_rows, t.node->rows) &&
         constant_at_least(t.pending->valid_cols, t.node->cols);
}

llvm::Intrinsic::ID dot_unit(DType operands, int lanes) {
  const bool whole = lanes == 16;
  if (operands == DType::I16) return llvm::Intrinsic::x86_avx2_pmadd_wd;
  if (operands == DType::BF16)
    return whole ? llvm::Intrinsic::x86_avx512bf16_dpbf16ps_512
                 : llvm::Intrinsic::x86_avx512bf16_dpbf16ps_256;
  return whole ? llvm::Intrinsic::x86_avx512_vpdpbusd_512 : llvm::Intrinsic::x86_avx512_vpdpbusd_256;
}

}  // namespace

bool Emitter::feeds_dot(const TileState& t) const {
  const DType type = t.node->dtype;
  const bool multiplies = (type == DType::BF16 && machine_.dot_bf16) ||
                          (type == DType::I16 && machine_.dot_int16) ||
                          (type == DType::I8 && (machine_.dot_int8 || machine_.byte_pairs));
  if (!multiplies) return false;
  const std::int64_t group = kLaneBits / bits(type);
  return t.width == machine_.lanes && reads_whole_tile(t) && t.pending->group == group &&
         t.node->rows % group == 0 && is_constant(t.pending->col_stride, group);
}

bool Emitter::emit_dot(TileState& c, const TileState& a, const TileState& b) {
  if (!feeds_dot(b) || !reads_whole_tile(a) || a.pending->group != 1 ||
      !is_constant(a.pending->col_stride, 1))
    return false;
  const bool floats = b.node->dtype == DType::BF16,
             adds = b.node->dtype != DType::I16;  // the unit itself, to what was there
  if (a.node->dtype != (b.node->dtype == DType::I8 ? DType::U8 : b.node->dtype)) return false;
  if (c.node->dtype != (floats ? DType::F32 : DType::I32) || c.width != b.width) return false;
  if (!floats && adds && !machine_.dot_int8) {
    emit_byte_pairs(c, a, b);
    return true;
  }
  const std::int64_t group = b.pending->group;
  const auto lanes = static_cast<unsigned>(c.width);
  const auto align = llvm::Align(static_cast<std::uint64_t>(bits(b.node->dtype) / 8));
  llvm::Function* unit =
      llvm::Intrinsic::getOrInsertDeclaration(&module_, dot_unit(b.node->dtype, machine_.lanes));
  llvm::Type *left_type = unit->getFunctionType()->getParamType(adds ? 1 : 0),
             *right_type = unit->getFunctionType()->getParamType(adds ? 2 : 1);
  for (std::int64_t k = 0; k < a.node->cols; k += group) {
    std::vector<llvm::Value*> right;
    for (std::int64_t j = 0; j < b.per_row(); ++j) {
      llvm::Value* pointer =
          b_.CreateGEP(memory_type(b.node->dtype), tile_row(*b.pending, k), i64(j * b.width * group));
      right.push_back(b_.CreateAlignedLoad(right_type, pointer, align));
    }
    for (std::int64_t i = 0; i < c.node->rows; ++i) {
      llvm::Value* pointer = b_.CreateGEP(memory_type(a.node->dtype), tile_row(*a.pending, i), i64(k));
      llvm::Value* left = b_.CreateVectorSplat(lanes, b_.CreateAlignedLoad(b_.getInt32Ty(), pointer, align));
      left = b_.CreateBitCast(left, left_type);
      for (std::int64_t j = 0; j < c.per_row(); ++j) {
        llvm::AllocaInst* slot = c.slots[c.slot(i, j)];
        llvm::Value* sum = b_.CreateLoad(slot->getAllocatedType(), slot);
        llvm::Value* by = right[static_cast<std::size_t>(j)];
        sum = adds ? static_cast<llvm::Value*>(b_.CreateCall(unit, {sum, left, by}))
                   : b_.CreateAdd(sum, b_.CreateCall(unit, {left, by}));
        b_.CreateStore(sum, slot);
      }
    }
  }
  return true;
}

// A pair of u8 that add up to less than 2^8 times i8 is within 16 bits, whatever those are: bit 8 of no such sum is set.
llvm::Value* Emitter::pairs_fit(const TileState& a) {
  constexpr std::int64_t kTested = 16;
  constexpr std::uint64_t kTooMuch = 0x0100010001000100;
  if (a.node->cols % kTested != 0) return b_.getFalse();
  auto* bytes = llvm::FixedVectorType::get(b_.getInt8Ty(), kTested);
  auto* words = llvm::FixedVectorType::get(b_.getInt64Ty(), kTested / 8);
  llvm::Value *ones = llvm::ConstantInt::get(bytes, 1), *sums = nullptr;
  for (std::int64_t k = 0; k < a.node->cols; k += kTested)
    for (std::int64_t i = 0; i < a.node->rows; ++i) {
      llvm::Value* pointer = b_.CreateGEP(memory_type(a.node->dtype), tile_row(*a.pending, i), i64(k));
      llvm::Value* row = b_.CreateAlignedLoad(bytes, pointer, llvm::Align(1));
      llvm::Value* of_row = b_.CreateBitCast(
          b_.CreateIntrinsic(llvm::Intrinsic::x86_ssse3_pmadd_ub_sw_128, {row, ones}), words);
      sums = sums ? b_.CreateOr(sums, of_row) : of_row;
    }
  llvm::Value* fit =
      b_.CreateIntrinsic(llvm::Intrinsic::x86_sse41_ptestz, {sums, llvm::ConstantInt::get(words, kTooMuch)});
  return b_.CreateICmpNE(fit, b_.getInt32(0));
}

// Activations are small more often than not: where all pairs of a step are, two instructions sum quads of products, and
// elsewhere even and odd bytes are widened, and pairs of those summed in 32 bits. Both are exact.
void Emitter::emit_byte_pairs(TileState& c, const TileState& a, const TileState& b) {
  constexpr std::int64_t kGroup = 4;
  constexpr std::uint32_t kUsually = 1000;
  const auto lanes = static_cast<unsigned>(c.width);
  llvm::Type *bytes = llvm::FixedVectorType::get(b_.getInt8Ty(), kGroup * lanes),
             *words = llvm::FixedVectorType::get(b_.getInt16Ty(), 2 * lanes);
  const auto sum_of_words = [&](llvm::Value* x, llvm::Value* y) {
    return b_.CreateIntrinsic(llvm::Intrinsic::x86_avx2_pmadd_wd, {x, y});
  };
  const auto right_at = [&](std::int64_t k, std::int64_t j) {
    llvm::Value* pointer =
        b_.CreateGEP(memory_type(b.node->dtype), tile_row(*b.pending, k), i64(j * b.width * kGroup));
    return b_.CreateAlignedLoad(bytes, pointer, llvm::Align(1));
  };
  const auto left_at = [&](std::int64_t i, std::int64_t k) {
    llvm::Value* pointer = b_.CreateGEP(memory_type(a.node->dtype), tile_row(*a.pending, i), i64(k));
    return b_.CreateVectorSplat(lanes, b_.CreateAlignedLoad(b_.getInt32Ty(), pointer, llvm::Align(1)));
  };
  const auto add = [&](std::int64_t i, std::int64_t j, llvm::Value* x) {
    llvm::AllocaInst* slot = c.slots[c.slot(i, j)];
    b_.CreateStore(b_.CreateAdd(b_.CreateLoad(slot->getAllocatedType(), slot), x), slot);
  };
  auto* fast = llvm::BasicBlock::Create(module_.getContext(), "small", frame_.function);
  auto* exact = llvm::BasicBlock::Create(module_.getContext(), "large", frame_.function);
  auto* after = llvm::BasicBlock::Create(module_.getContext(), "multiplied", frame_.function);
  b_.CreateCondBr(pairs_fit(a), fast, exact,
                  llvm::MDBuilder(module_.getContext()).createBranchWeights(kUsually, 1));

  b_.SetInsertPoint(fast);
  llvm::Value* ones = llvm::ConstantInt::get(words, 1);
  for (std::int64_t k = 0; k < a.node->cols; k += kGroup) {
    std::vector<llvm::Value*> right;
    for (std::int64_t j = 0; j < b.per_row(); ++j) right.push_back(right_at(k, j));
    for (std::int64_t i = 0; i < c.node->rows; ++i) {
      llvm::Value* left = b_.CreateBitCast(left_at(i, k), bytes);
      for (std::int64_t j = 0; j < c.per_row(); ++j)
        add(i, j,
            sum_of_words(b_.CreateIntrinsic(llvm::Intrinsic::x86_avx2_pmadd_ub_sw,
                                            {left, right[static_cast<std::size_t>(j)]}),
                         ones));
    }
  }
  b_.CreateBr(after);

  b_.SetInsertPoint(exact);
  constexpr std::uint64_t kByteBits = 8, kLowByte = 0xFF;
  for (std::int64_t k = 0; k < a.node->cols; k += kGroup) {
    std::vector<llvm::Value*> even, odd;
    for (std::int64_t j = 0; j < b.per_row(); ++j) {
      llvm::Value* right = b_.CreateBitCast(right_at(k, j), words);
      even.push_back(b_.CreateAShr(b_.CreateShl(right, kByteBits), kByteBits));
      odd.push_back(b_.CreateAShr(right, kByteBits));
    }
    for (std::int64_t i = 0; i < c.node->rows; ++i) {
      llvm::Value* left = b_.CreateBitCast(left_at(i, k), words);
      llvm::Value *low = b_.CreateAnd(left, kLowByte), *high = b_.CreateLShr(left, kByteBits);
      for (std::int64_t j = 0; j < c.per_row(); ++j) {
        add(i, j, sum_of_words(low, even[static_cast<std::size_t>(j)]));
        add(i, j, sum_of_words(high, odd[static_cast<std::size_t>(j)]));
      }
    }
  }
  b_.CreateBr(after);
  b_.SetInsertPoint(after);
}

}  // namespace deepseek::codegen
