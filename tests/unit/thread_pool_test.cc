#include "runtime/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

namespace deepseek {
namespace {

TEST(ThreadPool, CoversEveryIndexOnceWithWholeGrains) {
  std::mt19937 rng(3);
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 300; ++round) {
      const std::int64_t n = rng() % 300, grain = rng() % 9 + 1;
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
      std::atomic<bool> whole = true;
      pool.parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end, int worker) {
        if (begin % grain != 0 || (end % grain != 0 && end != n) || worker < 0 || worker >= threads)
          whole = false;
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      EXPECT_TRUE(whole);
      for (const auto& count : seen) ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, ResultsAreSeenByTheCallerAndTheNextLoop) {
  ThreadPool pool(4);
  std::vector<int> data(1000, 0);
  for (int round = 1; round <= 500; ++round) {
    pool.parallel_for(1000, 10, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) ++data[static_cast<std::size_t>(i)];
    });
    for (const int x : data) ASSERT_EQ(x, round);
    if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // workers fall asleep
  }
}

TEST(ThreadPool, OneWorkerNeverRunsTwiceAtOnce) {
  ThreadPool pool(4);
  std::vector<int> scratch(4, 0);
  for (int round = 0; round < 200; ++round)
    pool.parallel_for(64, 1, [&](std::int64_t, std::int64_t, int worker) {
      ++scratch[static_cast<std::size_t>(worker)];  // a race unless the promise holds
    });
  int sum = 0;
  for (const int x : scratch) sum += x;
  EXPECT_GT(sum, 0);
}

TEST(ThreadPool, NestedLoopsRunInline) {
  ThreadPool pool(3);
  std::atomic<int> inner = 0;
  pool.parallel_for(6, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto self = std::this_thread::get_id();
      pool.parallel_for(5, 1, [&](std::int64_t b, std::int64_t e, int worker) {
        EXPECT_EQ(worker, 0);
        EXPECT_EQ(std::this_thread::get_id(), self);
        inner += static_cast<int>(e - b);
      });
    }
  });
  EXPECT_EQ(inner, 30);
}

TEST(ThreadPool, ManyCallersAtOnce) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<std::int64_t> sum = 0;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round)
        pool.parallel_for(100, 7, [&](std::int64_t begin, std::int64_t end, int) { sum += end - begin; });
    });
  for (auto& t : callers) t.join();
  EXPECT_EQ(sum, 4 * 200 * 100);
}

TEST(ThreadPool, SlowPartsAreHelpedWith) {
  ThreadPool pool(2);
  std::atomic<int> by_other = 0;
  const auto caller = std::this_thread::get_id();
  // The first half is slow: without help, the thread that owns the second half would idle.
  pool.parallel_for(16, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      if (i < 8) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        if (std::this_thread::get_id() != caller) ++by_other;
      }
  });
  EXPECT_GT(by_other, 0);
}

#ifndef __SANITIZE_THREAD__  // it cannot start threads in a child
TEST(ThreadPool, WorksInAForkedChild) {
  auto pool = thread_pool(3);
  std::atomic<int> sum = 0;
  const auto add = [&](std::int64_t begin, std::int64_t end, int) { sum += static_cast<int>(end - begin); };
  pool->parallel_for(100, 1, add);
  ASSERT_EQ(sum, 100);
  const pid_t child = fork();
  if (child == 0) {
    sum = 0;
    pool->parallel_for(100, 1, add);
    thread_pool(2)->parallel_for(100, 1, add);
    _exit(sum == 200 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  pool->parallel_for(100, 1, add);
  EXPECT_EQ(sum, 200);
}
#endif

TEST(ThreadPool, CountOfThreads) {
  const char* before = std::getenv("OMP_NUM_THREADS");
  const std::string kept = before ? before : "";
  setenv("OMP_NUM_THREADS", "3,2", 1);
  EXPECT_EQ(default_threads(), 3);
  EXPECT_EQ(thread_pool()->threads(), 3);
  EXPECT_EQ(thread_pool(), thread_pool(3));
  setenv("OMP_NUM_THREADS", "nonsense", 1);
  EXPECT_GE(default_threads(), 1);
  unsetenv("OMP_NUM_THREADS");
  EXPECT_GE(default_threads(), 1);
  if (before) setenv("OMP_NUM_THREADS", kept.c_str(), 1);
}

}  // namespace
}  // namespace deepseek
