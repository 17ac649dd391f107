// Who runs the iterations of a parallel loop: our own pool of threads, or the host framework's.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace deepseek {

// A reference to something callable, without an allocation; it must outlive the call.
template <class F>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)  // NOLINT: a callable is a reference to itself
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class Executor {
 public:
  virtual ~Executor() = default;
  // The most workers that a parallel_for uses, the caller among them.
  virtual int threads() const = 0;
  // Calls f(begin, end, worker) on ranges that cover [0, n) once, worker in [0, threads()), and returns when
  // all are done. No two calls with one worker run at the same time. Ranges are multiples of `grain` (the
  // last may be shorter). f must not throw. May be called from several threads at once; inside f it runs
  // inline as worker 0 of that inner loop.
  virtual void parallel_for(std::int64_t n, std::int64_t grain,
                            FunctionRef<void(std::int64_t begin, std::int64_t end, int worker)> f) = 0;
};

// The number of threads that this process may use: OMP_NUM_THREADS, else what the affinity mask and the
// cgroup's CPU quota allow, at least 1.
int default_threads();

// The process's pool of that many threads (0: default_threads()); made at first use and shared. Idle threads
// spin for a moment and then sleep. After a fork, the child's pool starts anew.
std::shared_ptr<Executor> thread_pool(int threads = 0);

}  // namespace deepseek
