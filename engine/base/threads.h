// A pool of worker threads for one session: spin shortly, then park. Each thread has a range of tasks and helps with
// the others' when it is done; what is computed depends on the task's index only, never on timing or on who does it.
// Kernels give each task the same arithmetic for any pool size.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>

namespace secateur {

// Below this predicted time a layer runs on the caller: a barrier costs about 1-2 us and cold caches on the other core.
inline constexpr double kSerialMicroseconds = 20.0;

class Threads {
 public:
  // `n` >= 1 counts the calling thread. Workers start at the first parallel call and again in a forked child.
  explicit Threads(int n);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int size() const { return n_; }

  // Held for the length of a run. In a forked child it is a new one: a thread of the parent may have held the old.
  std::mutex& turn();

  // Calls fn(task, worker) once for each task = 0..tasks-1; worker = 0..size()-1 says who calls, for scratch memory.
  // Returns when all are done. fn must not throw. Not reentrant: one parallel() at a time per pool (a session holds
  // turn()).
  template <class Fn>
  void parallel(int64_t tasks, Fn&& fn) {
    if (n_ == 1 || tasks <= 1 || tasks > INT32_MAX) {
      for (int64_t t = 0; t < tasks; ++t) fn(t, 0);
      return;
    }
    using F = std::remove_reference_t<Fn>;
    run(
        static_cast<uint32_t>(tasks), [](void* f, int64_t task, int worker) { (*static_cast<F*>(f))(task, worker); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void* fn, int64_t task, int worker);
  void run(uint32_t tasks, Call call, void* fn);

  struct State;
  struct Turn;
  int n_;
  std::unique_ptr<State> state_;
  std::atomic<Turn*> turn_;
};

// Sets flush-to-zero and denormals-are-zero on this thread for its lifetime and restores the caller's mode after.
// Denormal activations cost ~100 cycles each and mean nothing.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t saved_ = 0;
};

}  // namespace secateur
