#include "runtime/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "deepseek/error.h"

namespace deepseek {
namespace {

// How long an idle thread polls before it sleeps: longer than the gap between two steps of a graph, shorter
// than a time slice.
constexpr auto kSpin = std::chrono::microseconds(30);
// Pieces that one thread's part is taken in: enough that a late thread's share can be helped with.
constexpr std::int64_t kPiecesPerThread = 8;
constexpr std::size_t kCacheLine = 64;

thread_local bool inside_loop = false;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Polls `ready` for about `kSpin`; whether it came true.
template <class F>
bool spin_until(F ready) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

using Body = FunctionRef<void(std::int64_t, std::int64_t, int)>;

// Pools and the lock on their list, for fork handlers. Never destroyed: threads may outlive static objects.
struct Registry {
  std::mutex mutex;
  std::set<ThreadPool*> pools;
  std::map<int, std::shared_ptr<Executor>> shared;
};
Registry& registry() {
  static Registry* r = new Registry;  // NOLINT: see above
  return *r;
}

}  // namespace

class ThreadPool::Workers {
 public:
  explicit Workers(int count) : parts_(static_cast<std::size_t>(count) + 1) {
    threads_.reserve(static_cast<std::size_t>(count));
    for (int i = 1; i <= count; ++i) threads_.emplace_back([this, i] { work(i); });
  }

  ~Workers() {
    stopping_.store(true);
    state_.fetch_add(kGeneration);
    state_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  void run(std::int64_t n, std::int64_t grain, Body& body) {
    const std::int64_t pieces = (n + grain - 1) / grain;
    participants_ =
        static_cast<int>(std::min<std::int64_t>(pieces, static_cast<std::int64_t>(parts_.size())));
    step_ = grain * std::max<std::int64_t>(1, pieces / (participants_ * kPiecesPerThread));
    body_ = &body;
    for (int i = 0; i < participants_; ++i) {
      Part& p = parts_[static_cast<std::size_t>(i)];
      p.next.store(grain * (pieces * i / participants_), std::memory_order_relaxed);
      p.end = std::min(n, grain * (pieces * (i + 1) / participants_));
    }
    const std::uint32_t generation =
        (state_.load(std::memory_order_relaxed) & ~(kOpen | kInside)) + kGeneration;
    state_.store(generation | kOpen);
    if (sleepers_.load() > 0) state_.notify_all();

    take_pieces(0);
    state_.fetch_and(~kOpen);
    const auto empty = [this] { return (state_.load() & kInside) == 0; };
    if (spin_until(empty)) return;
    for (;;) {
      const std::uint32_t seen = finished_.load();
      if (empty()) return;
      finished_.wait(seen);
    }
  }

 private:
  static constexpr std::uint32_t kInside = (1u << 15) - 1;  // how many workers are in the loop
  static constexpr std::uint32_t kOpen = 1u << 15;          // workers may join
  static constexpr std::uint32_t kGeneration = 1u << 16;

  struct alignas(kCacheLine) Part {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };

  void take_pieces(int worker) {
    inside_loop = true;
    for (int k = 0; k < participants_; ++k) {
      Part& p = parts_[static_cast<std::size_t>((worker + k) % participants_)];
      for (;;) {
        if (p.next.load(std::memory_order_relaxed) >= p.end) break;
        const std::int64_t begin = p.next.fetch_add(step_, std::memory_order_relaxed);
        if (begin >= p.end) break;
        (*body_)(begin, std::min(begin + step_, p.end), worker);
      }
    }
    inside_loop = false;
  }

  void work(int worker) {
    std::uint32_t seen = 0;  // the last generation looked at
    for (;;) {
      std::uint32_t s = state_.load();
      const auto fresh = [&] {
        s = state_.load();
        return (s & ~(kOpen | kInside)) != seen;
      };
      if (!spin_until(fresh)) {
        sleepers_.fetch_add(1);
        while (!fresh()) state_.wait(s);
        sleepers_.fetch_sub(1);
      }
      seen = s & ~(kOpen | kInside);
      if (stopping_.load()) return;
      while ((s & kOpen) && (s & ~(kOpen | kInside)) == seen)
        if (state_.compare_exchange_weak(s, s + 1)) {
          if (worker < participants_) take_pieces(worker);
          const std::uint32_t left = state_.fetch_sub(1) - 1;
          if ((left & (kOpen | kInside)) == 0) {
            finished_.fetch_add(1);
            finished_.notify_one();
          }
          break;
        }
    }
  }

  alignas(kCacheLine) std::atomic<std::uint32_t> state_{0};
  alignas(kCacheLine) std::atomic<int> sleepers_{0};
  std::atomic<std::uint32_t> finished_{0};
  std::atomic<bool> stopping_{false};
  // Written only while the loop is closed and empty.
  int participants_ = 0;
  std::int64_t step_ = 1;
  Body* body_ = nullptr;
  std::vector<Part> parts_;
  std::vector<std::thread> threads_;
};

void forget_threads_after_fork(ThreadPool& pool) {
  // The threads are not there in the child; their handles must not be joined, so they are leaked.
  static_cast<void>(pool.workers_.release());
  pool.busy_.store(false);
}

namespace {

void install_fork_handlers() {
  static const int installed =
      pthread_atfork([] { registry().mutex.lock(); }, [] { registry().mutex.unlock(); },
                     [] {
                       for (ThreadPool* p : registry().pools) forget_threads_after_fork(*p);
                       inside_loop = false;
                       registry().mutex.unlock();
                     });
  check(installed == 0, "pthread_atfork");
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(std::max(1, threads)) {
  install_fork_handlers();
  const std::lock_guard lock(registry().mutex);
  registry().pools.insert(this);
}

ThreadPool::~ThreadPool() {
  const std::lock_guard lock(registry().mutex);
  registry().pools.erase(this);
}

void ThreadPool::parallel_for(std::int64_t n, std::int64_t grain, Body f) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  if (threads_ == 1 || n <= grain || inside_loop || busy_.exchange(true, std::memory_order_acquire)) {
    const bool outer = std::exchange(inside_loop, true);
    f(0, n, 0);
    inside_loop = outer;
    return;
  }
  if (!workers_) workers_ = std::make_unique<Workers>(threads_ - 1);
  workers_->run(n, grain, f);
  busy_.store(false, std::memory_order_release);
}

std::shared_ptr<Executor> thread_pool(int threads) {
  if (threads <= 0) threads = default_threads();
  {
    const std::lock_guard lock(registry().mutex);
    if (const auto it = registry().shared.find(threads); it != registry().shared.end()) return it->second;
  }
  auto pool = std::make_shared<ThreadPool>(threads);
  const std::lock_guard lock(registry().mutex);
  return registry().shared.emplace(threads, std::move(pool)).first->second;
}

}  // namespace deepseek
