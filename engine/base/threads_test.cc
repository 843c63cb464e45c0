// The pool does every task once on any number of threads, twice in a row, after a pause and in a forked child; the
// CPU's names and the override answer as documented.
#include "base/threads.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "base/cpu.h"
#include "base/error.h"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace secateur;

namespace {

int failures = 0;

void check(bool ok, const char* what) {
  if (!ok) {
    std::fprintf(stderr, "FAILED: %s\n", what);
    ++failures;
  }
}

bool each_task_once(Threads& pool, int64_t tasks) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(tasks));
  std::atomic<bool> worker_ok{true};
  pool.parallel(tasks, [&](int64_t task, int worker) {
    seen[static_cast<size_t>(task)].fetch_add(1);
    if (worker < 0 || worker >= pool.size()) worker_ok = false;
  });
  for (auto& s : seen)
    if (s.load() != 1) return false;
  return worker_ok;
}

// A thread that does not get on holds nobody else up: task 2 waits for task 3 of the same range.
bool others_help(Threads& pool) {
  std::atomic<bool> done{false}, waited{true};
  pool.parallel(4, [&](int64_t task, int) {
    if (task == 3) done = true;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (task == 2 && !done && waited) waited = std::chrono::steady_clock::now() < until;
  });
  return waited;
}

}  // namespace

int main() {
  for (int n : {1, 2, 3, 8}) {
    Threads pool(n);
    check(pool.size() == n, "size");
    for (int64_t tasks : {0, 1, 2, 3, 7, 100}) check(each_task_once(pool, tasks), "each task once");
    for (int i = 0; i < 2000; ++i) check(each_task_once(pool, 5), "many short calls");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // workers park
    check(each_task_once(pool, 50), "after a pause");
#if defined(__unix__)
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) _exit(each_task_once(pool, 50) && each_task_once(pool, 50) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in a forked child");
    check(each_task_once(pool, 50), "in the parent of a fork");
#endif
  }
  { Threads never_used(4); }
  {
    Threads two(2);
    for (int i = 0; i < 100; ++i) check(others_help(two), "others help");
  }

  {
    volatile float tiny = 1e-39f;
    FlushDenormals guard;
#if defined(SECATEUR_X86)
    check(tiny * 0.5f == 0.0f, "denormals are zero under the guard");
#endif
    (void)tiny;
  }
  volatile float tiny = 1e-39f;
  check(tiny * 0.5f != 0.0f, "the guard restores the mode");

#if defined(__unix__)
  unsetenv("SECATEUR_ISA");
  const Isa best = selected_isa();
  check(best == available_isas().back(), "the best ISA by default");
  for (Isa isa : available_isas()) {
    setenv("SECATEUR_ISA", isa_name(isa), 1);
    check(selected_isa() == isa, "an ISA by name");
  }
  for (const char* wrong : {"sse9", "neon", "AVX2"}) {
    setenv("SECATEUR_ISA", wrong, 1);
    bool refused = false;
    try {
      selected_isa();
    } catch (const UsageError& e) {
      refused = std::strstr(e.what(), wrong) != nullptr && std::strstr(e.what(), "portable") != nullptr;
    }
    check(refused, "a wrong ISA is refused with the list of those there are");
  }
#endif
  std::printf("threads: %d failures\n", failures);
  return failures != 0;
}
