// What the machine can run, and what the user allows: asked once per session, before any kernel is chosen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace secateur {

// Ordered: a machine that has one has those before it (kNeon and the x86 ones never meet in one binary), but for
// kAvxVnni: CPUs with AVX-512 may lack it, CPUs with it mostly lack AVX-512.
enum class Isa : int32_t {
  kRef = 0,       // plain loops, the oracle
  kPortable = 1,  // the fast algorithms in baseline instructions
  kNeon = 2,      // AArch64
  kAvx2 = 3,      // AVX2 + FMA3
  kAvxVnni = 4,   // kAvx2 + AVX-VNNI: int8 kernels of its own, the others are kAvx2's
  kAvx512 = 5,    // AVX-512 F, BW, DQ, VL
  kVnni = 6,      // kAvx512 + AVX512-VNNI: int8 kernels of its own, the others are kAvx512's
};

const char* isa_name(Isa isa);  // "ref", "portable", "neon", "avx2", "avxvnni", "avx512", "vnni"

struct Cpu {
  std::string name;  // brand string, "unknown" where there is none
  bool avx2 = false, avxvnni = false, avx512 = false, vnni = false,
       neon = false;  // usable: CPU has it and the system saves its registers
  int64_t l1d_bytes = 32 << 10;
  int64_t l2_bytes = 1 << 20;
  int32_t amd_family = 0;  // 0x17 and 0x19: Zen to Zen 4, 0x1a: Zen 5; 0: no processor of AMD's
};

const Cpu& cpu();  // detected at the first call; thread-safe
// The ISA whose float kernels serve `isa`.
inline Isa float_isa(Isa isa) { return isa == Isa::kVnni ? Isa::kAvx512 : isa == Isa::kAvxVnni ? Isa::kAvx2 : isa; }
bool isa_available(Isa isa);        // also false when this build has no kernels for it
std::vector<Isa> available_isas();  // ascending, starts with kRef, kPortable

// The best available ISA, or the one SECATEUR_ISA names (read at every call).
// UsageError: the name is unknown, or this machine or build lacks it.
Isa selected_isa();

}  // namespace secateur
