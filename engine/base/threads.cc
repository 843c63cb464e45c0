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

struct Threads::State {
  std::atomic<uint32_t> epoch{0};
  std::atomic<int> pending{0};
  std::atomic<bool> stop{false};
  Call call = nullptr;
  void* fn = nullptr;
  int64_t tasks = 0;
  int n = 1;
  uint32_t forks = 0;
  std::vector<std::thread> workers;

  void work(int worker) {
    const int64_t begin = tasks * worker / n, end = tasks * (worker + 1) / n;
    for (int64_t t = begin; t < end; ++t) call(fn, t, worker);
  }

  void loop(int worker) {
    FlushDenormals guard;
    uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      while (epoch.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          pause();
        } else {
          epoch.wait(seen, std::memory_order_acquire);
        }
      }
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      work(worker);
      pending.fetch_sub(1, std::memory_order_release);
    }
  }

  explicit State(int n_threads) : n(n_threads), forks(g_forks.load()) {
    workers.reserve(n - 1);
    try {
      for (int w = 1; w < n; ++w) workers.emplace_back([this, w] { loop(w); });
    } catch (const std::system_error&) {
      n = static_cast<int>(workers.size()) + 1;  // the system gives no more threads: fewer do the same work
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
    // The old one is left behind: destroying a locked mutex is undefined. On failure `turn` becomes the other's new one.
    if (turn_.compare_exchange_strong(turn, fresh.get())) turn = fresh.release();
  }
  return turn->mutex;
}

Threads::~Threads() {
  if (const Turn* turn = turn_.load(); turn->forks == g_forks.load()) delete turn;
  // In a forked child the workers do not exist: joining them would hang, so their book-keeping is left behind.
  if (state_ && state_->forks != g_forks.load()) (void)state_.release();
}

void Threads::run(int64_t tasks, Call call, void* fn) {
  if (state_ && state_->forks != g_forks.load()) (void)state_.release();
  if (!state_) state_ = std::make_unique<State>(n_);
  State& s = *state_;
  s.call = call;
  s.fn = fn;
  s.tasks = tasks;
  s.pending.store(s.n - 1, std::memory_order_relaxed);
  s.epoch.fetch_add(1, std::memory_order_release);
  s.epoch.notify_all();
  s.work(0);
  for (int spins = 0; s.pending.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
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
