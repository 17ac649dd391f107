#include "targets/llvm/lone_stores.h"

#include <llvm/ADT/STLExtras.h>
#include <llvm/IR/Constants.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/InstIterator.h>
#include <llvm/IR/IntrinsicInst.h>

#include <optional>

namespace deepseek::codegen {
namespace {

// The lane that the mask holds when it is constant and holds one.
std::optional<unsigned> lone_lane(const llvm::Value* mask) {
  const auto* lanes = llvm::dyn_cast<llvm::Constant>(mask);
  if (!lanes) return std::nullopt;
  std::optional<unsigned> lone;
  for (unsigned i = 0; i < llvm::cast<llvm::FixedVectorType>(mask->getType())->getNumElements(); ++i) {
    const llvm::Constant* lane = lanes->getAggregateElement(i);
    if (!lane || (!lane->isNullValue() && (lone || !lane->isOneValue()))) return std::nullopt;
    if (lane->isOneValue()) lone = i;
  }
  return lone;
}

}  // namespace

void expand_lone_stores(llvm::Function& f) {
  for (llvm::Instruction& i : llvm::make_early_inc_range(llvm::instructions(f))) {
    auto* call = llvm::dyn_cast<llvm::IntrinsicInst>(&i);
    if (!call || call->getIntrinsicID() != llvm::Intrinsic::masked_store) continue;
    const auto lane = lone_lane(call->getArgOperand(call->arg_size() - 1));
    if (!lane) continue;
    llvm::IRBuilder<> b(call);
    llvm::Value* element = b.CreateExtractElement(call->getArgOperand(0), *lane);
    const llvm::Align align(element->getType()->getScalarSizeInBits() / 8);
    b.CreateAlignedStore(element, b.CreateConstGEP1_64(element->getType(), call->getArgOperand(1), *lane),
                         align);
    call->eraseFromParent();
  }
}

}  // namespace deepseek::codegen
