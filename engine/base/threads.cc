#include "base/threads.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#if defined(SECATEUR_X86)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define SECATEUR_HAS_FORK 1
#endif

namespace secateur {
namespace {

inline void pause() {
#if defined(SECATEUR_X86)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// About 30 us: longer than the gap between two layers of one run, short against the gap between two runs.
constexpr int kSpins = 2000;

// Counts forks this process is the child of. Threads do not survive a fork; pools notice and start new ones.
std::atomic<uint32_t> g_forks{0};

void watch_forks() {
#if defined(SECATEUR_HAS_FORK)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { g_forks.fetch_add(1); });
  (void)registered;
#endif
}

}  // namespace

// Ranges of tasks, one per thread. A thread takes from its own first and then from the others': on a busy machine a
// worker that the system has not let run yet must not hold up the rest. A place in a range carries the number of the
// call it belongs to, so that a worker that wakes late finds nothing to take.
struct alignas(64) Range {
  std::atomic<uint64_t> next{0};  // call << 32 | task
  std::atomic<uint32_t> end{0};
};

struct Threads::State {
  std::atomic<uint32_t> epoch{0};    // number of the call
  std::atomic<uint32_t> pending{0};  // its tasks that are not done
  std::atomic<bool> stop{false};
  // Written only while no task of any call is open: who has taken a task of a call sees that call's.
  std::atomic<Call> call{nullptr};
  std::atomic<void*> fn{nullptr};
  std::vector<Range> ranges;
  uint32_t forks = 0;
  std::vector<std::thread> workers;

  // The next task of `range` in call number `now`; -1 when there is none.
  static int64_t take(Range& range, uint32_t now) {
    uint64_t place = range.next.load(std::memory_order_acquire);
    while (place >> 32 == now) {
      const auto task = static_cast<uint32_t>(place);
      if (task >= range.end.load(std::memory_order_acquire)) return -1;
      if (range.next.compare_exchange_weak(place, place + 1, std::memory_order_acq_rel, std::memory_order_acquire))
        return task;
    }
    return -1;
  }

  void work(int worker, uint32_t now) {
    const Call run = call.load(std::memory_order_relaxed);
    void* const with = fn.load(std::memory_order_relaxed);
    for (size_t k = 0; k < ranges.size(); ++k) {
      Range& range = ranges[(static_cast<size_t>(worker) + k) % ranges.size()];
      for (int64_t task; (task = take(range, now)) >= 0;) {
        run(with, task, worker);
        if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.notify_one();
      }
    }
  }

  void loop(int worker) {
    FlushDenormals guard;
    uint32_t seen = 0;
    for (;;) {
      for (int spins = 0; epoch.load(std::memory_order_acquire) == seen;) {
        if (++spins < kSpins) {
          pause();
        } else {
          epoch.wait(seen, std::memory_order_acquire);
        }
      }
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      work(worker, seen);
    }
  }

  explicit State(int n_threads) : ranges(static_cast<size_t>(n_threads)), forks(g_forks.load()) {
    workers.reserve(ranges.size() - 1);
    try {
      for (int w = 1; w < n_threads; ++w) workers.emplace_back([this, w] { loop(w); });
    } catch (const std::system_error&) {
      // The system gives no more threads: fewer do the same work.
    }
  }

  ~State() {
    stop.store(true, std::memory_order_relaxed);
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    for (auto& t : workers) t.join();
  }
};

struct Threads::Turn {
  std::mutex mutex;
  uint32_t forks = g_forks.load();
};

Threads::Threads(int n) : n_(std::max(1, n)), turn_(new Turn) { watch_forks(); }

std::mutex& Threads::turn() {
  Turn* turn = turn_.load();
  if (turn->forks != g_forks.load()) {
    auto fresh = std::make_unique<Turn>();
    // The old one is left behind: destroying a locked mutex is undefined. On failure `turn` becomes the other's new
    // one.
    if (turn_.compare_exchange_strong(turn, fresh.get())) turn = fresh.release();
  }
  return turn->mutex;
}

Threads::~Threads() {
  if (const Turn* turn = turn_.load(); turn->forks == g_forks.load()) delete turn;
  // In a forked child the workers do not exist: joining them would hang, so their book-keeping is left behind.
  if (state_ && state_->forks != g_forks.load()) (void)state_.release();
}

void Threads::run(uint32_t tasks, Call call, void* fn) {
  if (state_ && state_->forks != g_forks.load()) (void)state_.release();
  if (!state_) state_ = std::make_unique<State>(n_);
  State& s = *state_;
  s.call.store(call, std::memory_order_relaxed);
  s.fn.store(fn, std::memory_order_relaxed);
  s.pending.store(tasks, std::memory_order_relaxed);
  const uint32_t now = s.epoch.load(std::memory_order_relaxed) + 1;
  const uint64_t n = s.ranges.size();
  for (uint64_t k = 0; k < n; ++k) {
    // Closed first: with the new end and the old place a late worker would find one task more in the old call.
    s.ranges[k].next.store(uint64_t{now} << 32 | UINT32_MAX, std::memory_order_relaxed);
    s.ranges[k].end.store(static_cast<uint32_t>(tasks * (k + 1) / n), std::memory_order_release);
    s.ranges[k].next.store(uint64_t{now} << 32 | tasks * k / n, std::memory_order_release);
  }
  s.epoch.store(now, std::memory_order_release);
  s.epoch.notify_all();
  s.work(0, now);
  for (int spins = 0; spins < kSpins && s.pending.load(std::memory_order_acquire) != 0; ++spins) pause();
  // Asleep, not yielding: a thread that yields on a busy machine is given back the CPU milliseconds after the last
  // task.
  for (uint32_t left; (left = s.pending.load(std::memory_order_acquire)) != 0;)
    s.pending.wait(left, std::memory_order_acquire);
}

FlushDenormals::FlushDenormals() {
#if defined(SECATEUR_X86)
  saved_ = _mm_getcsr();
  _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u);
#elif defined(__aarch64__)
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
  __asm__ volatile("msr fpcr, %0" : : "r"(saved_ | (uint64_t{1} << 24)));
#endif
}

FlushDenormals::~FlushDenormals() {
#if defined(SECATEUR_X86)
  _mm_setcsr(static_cast<unsigned>(saved_));
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(saved_));
#endif
}

}  // namespace secateur
