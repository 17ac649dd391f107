// The interpreter's machine: registers of 64 bits, instructions that are a function pointer and operands, frames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "loops/ir.h"

namespace deepseek::loops {

// Holds one scalar in its register type: Bool as uint8, narrow floats as float, sub-byte integers as int32.
struct Register {
  std::uint64_t bits = 0;

  template <class T>
  T get() const {
    T v;
    std::memcpy(&v, &bits, sizeof(T));
    return v;
  }
  template <class T>
  void set(T v) {
    bits = 0;
    std::memcpy(&bits, &v, sizeof(T));
  }
};

struct Frame;
struct Instruction;
// Does the instruction and says which comes next; null leaves the frame (see Frame::stop).
using Handler = const Instruction* (*)(const Instruction*, Register*, Frame&);

struct Instruction {
  Handler run = nullptr;
  std::uint32_t to = 0, a = 0, b = 0, c = 0;
  std::int64_t immediate = 0;  // jump distance, buffer, code ...
};

struct BufferInfo {
  std::string name;
  DType dtype;
};
struct TileInfo {
  std::int64_t rows, cols;
};

// One phase, ready to run.
struct Assembled {
  std::vector<Instruction> instructions;  // ends with a stop
  std::vector<Register> registers;        // constants in place
  std::uint32_t first_symbol = 0;         // register of the first symbol
  std::uint32_t grid_variable = 0;        // register of the Parallel loop's variable; 0: none
  Expr grid;                              // its extent, or empty
  std::vector<BufferInfo> buffers;        // parameters first
  std::vector<TileInfo> tiles;
  std::size_t first_local = 0;  // number of parameters
};

struct BufferRef {
  std::byte* data = nullptr;
  std::int64_t extent = 0;
};

struct PendingCopy {
  std::int64_t token;
  std::uint32_t to, from;  // buffers
  std::int64_t to_base, to_stride, from_base, from_stride, rows, cols;
  std::vector<std::byte> source;  // checking mode: the source when the copy began, packed
};

enum class Stop : std::uint8_t { Done, Barrier };

// State of one thread of execution: the phase's own, or one of a Thread loop.
struct Frame {
  const Assembled* code = nullptr;
  Frame* parent = nullptr;  // null: the phase's own
  std::vector<Register> registers;
  std::vector<BufferRef> buffers;
  std::vector<std::unique_ptr<std::byte[]>> storage;  // by buffer: what this frame allocated
  std::vector<std::int64_t> storage_bytes;
  std::vector<std::vector<Register>> tiles;
  std::vector<PendingCopy> pending;
  std::vector<Frame> threads;  // of the Thread loop in progress
  const Instruction* next = nullptr;
  Stop stop = Stop::Done;
  std::int32_t* status = nullptr;
  std::uint64_t seed = 0;
};

// Runs until the frame is done or stands at a barrier.
void run(Frame& f);

// What the table of handlers offers; each throws Error{Internal} for types that have no such operation.
namespace handlers {
Handler operation(Op op, DType t);  // to = op(a, b, c); t: type of the arguments
Handler round(DType t);             // to = a rounded to a narrow float
Handler convert(DType from, DType to);
Handler reinterpret(DType from, DType to);
Handler load(DType t, bool predicated,
             bool check);  // immediate: buffer; a: index; b: predicate, c: otherwise
Handler store(DType t, bool predicated, bool check);  // immediate: buffer; a: index; b: value; c: predicate
Handler allocate(bool check);                         // immediate: buffer; a: extent
Handler loop_begin(
    bool shuffled);  // to: variable, a: extent, b: counter (3 registers), immediate: to after the loop
Handler loop_end(bool shuffled);       // immediate: back to the body
Handler jump();                        // by immediate
Handler jump_unless();                 // a: condition
Handler assertion();                   // a: condition, immediate: code
Handler threads_begin(bool shuffled);  // to: variable, a: extent, immediate: to after the loop
Handler stop();
Handler barrier();
Handler tile_begin();                         // immediate: tile
Handler tile_get();                           // to = tile[a, b]
Handler tile_set();                           // tile[a, b] = c
Handler tile_mma(DType c, DType a, DType b);  // to, a, b: tiles
// immediate: token; to, from: buffers in `to` and `a`; b: first of six registers: to_base, to_stride, from_base,
// from_stride, rows, cols
Handler copy_begin(bool check);
Handler copy_wait(bool check);
}  // namespace handlers

}  // namespace deepseek::loops
