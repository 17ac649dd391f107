// Loops, branches and threads of the interpreter.
#include <atomic>
#include <numeric>

#include "deepseek/error.h"
#include "loops/bytecode.h"

namespace deepseek::loops {
namespace {

// -- loops -------------------------------------------------------------------------------------------------------

const Instruction* begin_loop(const Instruction* i, Register* r, Frame&) {
  r[i->to].set<std::int64_t>(0);
  return r[i->a].get<std::int64_t>() > 0 ? i + 1 : i + i->immediate;
}
const Instruction* end_loop(const Instruction* i, Register* r, Frame&) {
  const std::int64_t next = r[i->to].get<std::int64_t>() + 1;
  r[i->to].set(next);
  return next < r[i->a].get<std::int64_t>() ? i + i->immediate : i + 1;
}

// A shuffled order of 0 ... n-1: k -> (start + k*step) mod n with step and n coprime.
struct Order {
  std::int64_t start, step;
  static Order draw(std::uint64_t& seed, std::int64_t n) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    const auto random = static_cast<std::int64_t>(seed >> 33);
    std::int64_t step = random % n + 1;
    while (std::gcd(step, n) != 1) ++step;
    return {(random / 7) % n, step};
  }
};

const Instruction* begin_shuffled(const Instruction* i, Register* r, Frame& f) {
  const auto n = r[i->a].get<std::int64_t>();
  if (n <= 0) return i + i->immediate;
  const Order order = Order::draw(f.seed, n);
  r[i->to].set(order.start);
  r[i->b].set<std::int64_t>(1);
  r[i->b + 1].set(order.step);
  return i + 1;
}
const Instruction* end_shuffled(const Instruction* i, Register* r, Frame&) {
  const auto n = r[i->a].get<std::int64_t>(), count = r[i->b].get<std::int64_t>();
  if (count >= n) return i + 1;
  r[i->b].set(count + 1);
  r[i->to].set((r[i->to].get<std::int64_t>() + r[i->b + 1].get<std::int64_t>()) % n);
  return i + i->immediate;
}

const Instruction* jump_always(const Instruction* i, Register*, Frame&) { return i + i->immediate; }
const Instruction* jump_if_not(const Instruction* i, Register* r, Frame&) {
  return r[i->a].get<std::uint8_t>() ? i + 1 : i + i->immediate;
}

const Instruction* check_condition(const Instruction* i, Register* r, Frame& f) {
  if (r[i->a].get<std::uint8_t>() == 0) {
    std::int32_t none = 0;
    std::atomic_ref(*f.status).compare_exchange_strong(none, static_cast<std::int32_t>(i->immediate));
  }
  return i + 1;
}

// -- threads -----------------------------------------------------------------------------------------------------

const Instruction* stop_frame(const Instruction*, Register*, Frame& f) {
  f.stop = Stop::Done;
  return nullptr;
}
const Instruction* stop_at_barrier(const Instruction* i, Register*, Frame& f) {
  if (!f.parent) return i + 1;  // nobody else in this block
  f.stop = Stop::Barrier;
  f.next = i + 1;
  return nullptr;
}

Frame thread_of(Frame& parent, std::uint32_t variable, std::int64_t number, const Instruction* first) {
  Frame t;
  t.code = parent.code;
  t.parent = &parent;
  t.registers = parent.registers;
  t.registers[variable].set(number);
  t.buffers = parent.buffers;
  t.storage.resize(parent.storage.size());
  t.storage_bytes.resize(parent.storage_bytes.size());
  t.tiles = parent.tiles;
  t.status = parent.status;
  t.seed = parent.seed + static_cast<std::uint64_t>(number);
  t.next = first;
  return t;
}

// Runs every thread to its end or next barrier. True when all are done.
bool run_threads(Frame& f) {
  const Instruction* barrier = nullptr;
  bool some_done = false;
  for (Frame& t : f.threads) {
    run(t);
    if (t.stop == Stop::Done) {
      some_done = true;
    } else {
      if (barrier && barrier != t.next)
        throw Error(Code::Internal, "interpreter: barrier", "", "all threads at one barrier", "two");
      barrier = t.next;
    }
  }
  if (barrier && some_done)
    throw Error(Code::Internal, "interpreter: barrier", "", "all threads at the barrier", "some are done");
  return barrier == nullptr;
}

// Is met again after each barrier inside nested Thread loops: `threads` tells a first visit from the next ones.
template <bool Shuffled>
const Instruction* begin_threads(const Instruction* i, Register* r, Frame& f) {
  if (f.threads.empty()) {
    const auto n = r[i->a].get<std::int64_t>();
    if (n <= 0) return i + i->immediate;
    const Order order = Shuffled ? Order::draw(f.seed, n) : Order{0, 1};
    f.threads.reserve(static_cast<std::size_t>(n));
    for (std::int64_t k = 0; k < n; ++k)
      f.threads.push_back(thread_of(f, i->to, (order.start + k * order.step) % n, i + 1));
  }
  while (!run_threads(f)) {
    if (!f.parent) continue;
    f.stop = Stop::Barrier;  // of the whole block: the other threads of the loop around come first
    f.next = i;
    return nullptr;
  }
  f.threads.clear();
  return i + i->immediate;
}

}  // namespace

void run(Frame& f) {
  const Instruction* i = f.next;
  Register* r = f.registers.data();
  while (i) i = i->run(i, r, f);
}

namespace handlers {

Handler loop_begin(bool shuffled) { return shuffled ? begin_shuffled : begin_loop; }
Handler loop_end(bool shuffled) { return shuffled ? end_shuffled : end_loop; }
Handler jump() { return jump_always; }
Handler jump_unless() { return jump_if_not; }
Handler assertion() { return check_condition; }
Handler threads_begin(bool shuffled) { return shuffled ? begin_threads<true> : begin_threads<false>; }
Handler stop() { return stop_frame; }
Handler barrier() { return stop_at_barrier; }

}  // namespace handlers
}  // namespace deepseek::loops
