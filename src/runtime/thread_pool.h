// Our pool of threads. See include/deepseek/executor.h for what parallel_for promises.
//
// A loop is published as one 32-bit word: generation, an open bit, and how many workers are inside. Workers
// join an open loop by adding themselves to the word, so the caller never waits for one that slept through
// it: when the caller runs out of work it closes the loop and waits only for those inside. Each participant
// starts on its own contiguous part and, when that is done, helps with the others' in small pieces.
#pragma once

#include <atomic>
#include <memory>

#include "deepseek/executor.h"

namespace deepseek {

class ThreadPool final : public Executor {
 public:
  // `threads` >= 1, the caller among them. Threads start with the first loop that can use them.
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const override { return threads_; }
  // A caller that finds the pool busy with another caller's loop runs its own inline.
  void parallel_for(std::int64_t n, std::int64_t grain,
                    FunctionRef<void(std::int64_t, std::int64_t, int)> f) override;

 private:
  class Workers;
  const int threads_;
  std::atomic<bool> busy_{false};
  std::unique_ptr<Workers> workers_;  // guarded by busy_
  friend void forget_threads_after_fork(ThreadPool& pool);
};

}  // namespace deepseek
