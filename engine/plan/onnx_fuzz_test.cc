// Mutated models through reader, passes, plan and runs, whole and cut into parts: only the engine's own errors may come
// out, in bounded time and memory. Meant for AddressSanitizer and UBSan (make sanitize) and for measuring what is
// reached (make fuzz-coverage). Time-boxed: SECATEUR_FUZZ_SECONDS, default 5; SECATEUR_FUZZ_SEED begins elsewhere,
// SECATEUR_FUZZ_ONLY repeats one mutant; files named on the command line are seeds, too.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/pack.h"
#include "graph/fuzzing/mutate.h"
#include "graph/fuzzing/seeds.h"
#include "graph/fuzzing/wire.h"
#include "graph/onnx_read.h"
#include "graph/onnx_write.h"
#include "plan/inspect.h"
#include "plan/partition.h"
#include "plan/session.h"

using namespace secateur;

// The sanitizers' own, called before the process ends; absent without them.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*)());

namespace {

constexpr Limits kLimits{double(1 << 22), 3e7};
constexpr unsigned kMostSeconds = 60;  // of one mutant, under a sanitizer on a busy machine

volatile long current = 0;
void say_which() {
  char text[64];
  const int n = std::snprintf(text, sizeof text, "\nmutant %ld (SECATEUR_FUZZ_ONLY=%ld)\n", current, current);
  (void)!write(2, text, static_cast<size_t>(n));
}
void on_signal(int signal) {
  say_which();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::span<const uint8_t> span_of(const std::string& s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}

void run_once(Session& session, int64_t free, int byte) {
  const auto dims = session.declared_dims(free);
  const Session::Lease lease(session, dims);
  for (size_t i = 0; i < dims.size(); ++i) std::memset(lease.input(i), byte, lease.input_bytes(i));
  lease.run();
}

template <class F>
bool refused(F f) {
  try {
    f();
    return false;
  } catch (const FormatError&) {
  } catch (const UnsupportedError&) {
  } catch (const UsageError&) {
  } catch (const MemoryError&) {
  }
  return true;
}

bool try_file(std::span<const uint8_t> bytes, int threads) {
  return !refused([&] {
    Session session(bytes, threads, true, {}, threads == 1, kLimits);
    for (int64_t free : {2, 0}) refused([&] { run_once(session, free, 2); });  // 0x0202... is no index
    run_once(session, 1, 0);
  });
}

// As the Python half does with ONNX Runtime: cut around what is refused, open the engine's parts.
void try_parts(Graph g, std::mt19937& rng) {
  for (Node& n : g.nodes)
    if (rng() % 4 == 0) n.name = "one of many";
  name_nodes(g);
  std::map<size_t, std::string> without;
  for (size_t i = 0; i < g.nodes.size(); ++i)
    if (rng() % 8 == 0) without.emplace(i, "the fuzzer");
  std::map<std::string, ValueInfo> types;
  for (const Node& n : g.nodes)
    for (const auto& out : n.outputs)
      if (rng() % 16) types[out] = {out, DType::kFloat, {{2, ""}, {4, ""}}, rng() % 2 == 0};
  for (const Part& part : partition(g, without).parts)
    refused([&] {
      const Graph cut = extract(g, part, types);
      const std::string file = write_onnx(cut);
      read_onnx(span_of(file));
      if (part.engine) try_file(span_of(file), 1);
    });
}

std::string damaged(std::string m, std::mt19937& rng) {
  for (unsigned k = rng() % 4 + 1; k-- > 0 && !m.empty();) {
    const size_t at = rng() % m.size();
    switch (rng() % 5) {
      case 0:
        m[at] = static_cast<char>(m[at] ^ (1 << rng() % 8));
        break;
      case 1:
        m[at] = static_cast<char>(rng());
        break;
      case 2:
        m.erase(at, rng() % 8 + 1);
        break;
      case 3:
        m.insert(at, std::string(rng() % 8 + 1, static_cast<char>(rng())));
        break;
      default:
        m.resize(at);
    }
  }
  return m;
}

// One mutant, from its number alone. Whether it still ran.
bool try_mutant(const std::vector<Graph>& seeds, long number, uint32_t begin) {
  std::mt19937 rng(static_cast<uint32_t>(number) * 2654435761u + begin);
  Graph g = seeds[rng() % seeds.size()];
  const uint32_t way = rng() % 8;
  if (way == 0) return try_file(span_of(damaged(write_onnx(g), rng)), 1);
  if (way == 1) return try_file(span_of(fuzzing::WireMutator(rng).mutate(write_onnx(g))), 1);
  fuzzing::Mutator(rng, seeds).mutate(g);
  if (way == 2) {
    bool ran = false;
    refused([&] {
      const auto packed = pack(g);
      ran = try_file(packed, 1);
    });
    return ran;
  }
  const std::string file = write_onnx(g);
  if (way == 3)
    refused([&] {
      const Graph read = read_onnx(span_of(file));
      inspect_layers(read);
      try_parts(read, rng);
    });
  return try_file(span_of(file), way == 4 ? 2 : 1);
}

// Every operator of the engine is in a seed, and every seed that is wholly the engine's runs.
bool check_seeds(const std::vector<Graph>& seeds) {
  std::set<std::string> have;
  for (const Graph& g : seeds)
    for (const Node& n : g.nodes) have.insert(n.domain + "/" + n.op);
  bool good = true;
  const auto want = [&](const std::string& op) {
    if (!have.count(op)) std::printf("no seed has %s\n", op.c_str()), good = false;
  };
#define SECATEUR_OP(name, fn) want("/" #name);
#include "plan/lower/operators.inc"
#undef SECATEUR_OP
#define SECATEUR_OP(name, fn) want("com.microsoft/" #name);
#include "plan/lower/operators_microsoft.inc"
#undef SECATEUR_OP
  for (size_t i = 0; i < seeds.size(); ++i) {
    try {
      const std::string file = write_onnx(seeds[i]);
      Session session(span_of(file), 1, true, {}, true, kLimits);
      run_once(session, 2, 0);
    } catch (const UnsupportedError& e) {
      if (std::string(e.what()).find("Sinh") == std::string::npos)
        std::printf("seed %zu: %s\n", i, e.what()), good = false;
    } catch (const std::exception& e) {
      std::printf("seed %zu: %s\n", i, e.what()), good = false;
    }
  }
  return good;
}

double number_from(const char* name, double fallback) {
  const char* given = std::getenv(name);
  return given ? std::atof(given) : fallback;
}

}  // namespace

int main(int argc, char** argv) {
  auto seeds = fuzzing::seeds();
  if (!check_seeds(seeds)) return 1;
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    const std::string file{std::istreambuf_iterator<char>(in), {}};
    refused([&] { seeds.push_back(read_onnx(span_of(file))); });
  }
  if (__sanitizer_set_death_callback) {
    __sanitizer_set_death_callback(say_which);
  } else {
    for (int signal : {SIGSEGV, SIGFPE, SIGBUS, SIGABRT}) std::signal(signal, on_signal);
  }
  std::signal(SIGALRM, on_signal);
  const auto begin = static_cast<uint32_t>(number_from("SECATEUR_FUZZ_SEED", 7));
  if (std::getenv("SECATEUR_FUZZ_ONLY"))
    return try_mutant(seeds, static_cast<long>(number_from("SECATEUR_FUZZ_ONLY", 0)), begin) ? 0 : 2;
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(number_from("SECATEUR_FUZZ_SECONDS", 5));
  long ran = 0;
  while (std::chrono::steady_clock::now() < end) {
    alarm(kMostSeconds);
    ran += try_mutant(seeds, current, begin);
    current = current + 1;
  }
  std::printf("%ld mutants of %zu seeds, %ld still ran\n", static_cast<long>(current), seeds.size(), ran);
  return 0;
}
