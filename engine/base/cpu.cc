#include "base/cpu.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"

#if defined(SECATEUR_X86)
#include <cpuid.h>
#endif

namespace secateur {
namespace {

#if defined(SECATEUR_X86)
// XCR0: which register state the system saves at a context switch. Without it the CPU flag alone would mean SIGILL.
uint64_t read_xcr0() {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t{hi} << 32) | lo;
}

void read_caches(uint32_t leaf, Cpu* c) {
  for (uint32_t i = 0; i < 16; ++i) {
    uint32_t a, b, cx, d;
    __cpuid_count(leaf, i, a, b, cx, d);
    const uint32_t type = a & 31, level = (a >> 5) & 7;
    if (type == 0) break;
    if (type == 2) continue;  // instructions
    const int64_t bytes = int64_t{(b >> 22) + 1} * (((b >> 12) & 1023) + 1) * ((b & 4095) + 1) * (int64_t{cx} + 1);
    if (level == 1) c->l1d_bytes = bytes;
    if (level == 2) c->l2_bytes = bytes;
  }
}

Cpu detect() {
  Cpu c;
  c.name = "unknown";
  uint32_t a, b, cx, d;
  if (!__get_cpuid(0, &a, &b, &cx, &d)) return c;
  const uint32_t max_leaf = a;
  const bool amd = b == 0x68747541 || b == 0x6f677948;  // "Auth", "Hygo"
  uint32_t max_ext = 0;
  if (__get_cpuid(0x80000000u, &a, &b, &cx, &d)) max_ext = a;
  if (max_ext >= 0x80000004u) {
    char brand[49] = {0};
    for (uint32_t i = 0; i < 3; ++i) {
      uint32_t r[4];
      __cpuid(0x80000002u + i, r[0], r[1], r[2], r[3]);
      std::memcpy(brand + 16 * i, r, 16);
    }
    c.name = brand;
    while (!c.name.empty() && c.name.back() == ' ') c.name.pop_back();
    while (!c.name.empty() && c.name.front() == ' ') c.name.erase(0, 1);
  }
  if (!amd && max_leaf >= 4) read_caches(4, &c);
  if (amd && max_ext >= 0x8000001du) read_caches(0x8000001du, &c);

  __cpuid(1, a, b, cx, d);
  if (amd) c.amd_family = static_cast<int32_t>(((a >> 8) & 15) + ((a >> 20) & 255));
  const bool osxsave = (cx >> 27) & 1, avx = (cx >> 28) & 1, fma = (cx >> 12) & 1, f16c = (cx >> 29) & 1;
  if (!osxsave || !avx || max_leaf < 7) return c;
  const uint64_t xcr0 = read_xcr0();
  if ((xcr0 & 0x6) != 0x6) return c;  // xmm, ymm
  __cpuid_count(7, 0, a, b, cx, d);
  c.avx2 = ((b >> 5) & 1) && fma && f16c;
  const bool f = (b >> 16) & 1, dq = (b >> 17) & 1, bw = (b >> 30) & 1, vl = (b >> 31) & 1;
  c.avx512 = c.avx2 && f && dq && bw && vl && (xcr0 & 0xe0) == 0xe0;  // opmask, zmm 0-15, zmm 16-31
  c.vnni = c.avx512 && ((cx >> 11) & 1);
  if (a >= 1) {  // sub-leaves
    __cpuid_count(7, 1, a, b, cx, d);
    c.avxvnni = c.avx2 && ((a >> 4) & 1);
  }
  return c;
}
#else
Cpu detect() {
  Cpu c;
  c.name = "unknown";
#if defined(__aarch64__)
  c.neon = true;
#endif
  return c;
}
#endif

constexpr Isa kAll[] = {Isa::kRef, Isa::kPortable, Isa::kNeon, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512, Isa::kVnni};

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kRef:
      return "ref";
    case Isa::kPortable:
      return "portable";
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kVnni:
      return "vnni";
  }
  return "?";
}

const Cpu& cpu() {
  static const Cpu c = detect();
  return c;
}

bool isa_available(Isa isa) {
  switch (isa) {
    case Isa::kRef:
    case Isa::kPortable:
      return true;
    case Isa::kNeon:
      return false;  // this build has no kernels for it
    case Isa::kAvx2:
      return cpu().avx2;
    case Isa::kAvxVnni:
      return cpu().avxvnni;
    case Isa::kAvx512:
      return cpu().avx512;
    case Isa::kVnni:
      return cpu().vnni;
  }
  return false;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> out;
  for (Isa isa : kAll)
    if (isa_available(isa)) out.push_back(isa);
  return out;
}

Isa selected_isa() {
  Isa best = Isa::kRef;
  std::string have;
  for (Isa isa : available_isas()) {
    best = isa;
    have += have.empty() ? "" : ", ";
    have += isa_name(isa);
  }
  const char* asked = std::getenv("SECATEUR_ISA");
  if (asked == nullptr || *asked == '\0') return best;
  for (Isa isa : kAll) {
    if (std::strcmp(asked, isa_name(isa)) != 0) continue;
    if (isa_available(isa)) return isa;
    throw UsageError("SECATEUR_ISA=" + std::string(asked) + ": this machine (" + cpu().name +
                     ") or build lacks it; it has " + have + "; unset the variable to take the best");
  }
  throw UsageError("SECATEUR_ISA=" + std::string(asked) + ": unknown name; this machine has " + have);
}

}  // namespace secateur
