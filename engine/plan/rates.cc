#include "plan/rates.h"

#include <algorithm>

namespace secateur {
namespace {

const Rates& general() {
  static const Rates none;
  return none;
}

// What benchmarks/speed/predicted.py --table wrote on an AMD EPYC of the third generation (Zen 3, AVX2, 32 KB L1, 512
// KB L2), and one row of an earlier table (docs/design/rates.md). The dense kernel with outputs in lanes (16x6) came
// later and was not timed there: it is taken to need the other's factors.
const Rates& avx2() {
  static const Rates rates{
#include "plan/rates_avx2.inc"
  };
  return rates;
}

// The same on Zen 5 (AVX-512 in one piece, VNNI, 48 KB L1, 1 MB L2), with rows for kernels that the formula does not
// choose and one factor for all integer kernels of a level (docs/design/rates.md). 64x6 as 16x6 above. In both tables
// depthwise layers' rows of the sparse kernel, here of the depthwise one with 16 lanes too, are scaled to the formulas
// and kernels of today, not timed.
const Rates& zen5() {
  static const Rates rates{
#include "plan/rates_zen5.inc"
  };
  return rates;
}

std::string sized(std::string kind, double bytes) {
  if (bytes > double(cpu().l2_bytes)) kind += " large";
  return kind;
}

}  // namespace

double rate_of(const Rates& rates, std::string_view kernel, std::string_view kind) {
  const std::string one(kernel), of(kind);
  if (const auto found = rates.find(one + "/" + of); found != rates.end()) return found->second;
  double rate = 1;
  for (const std::string& key : {one, std::string()})
    if (const auto found = rates.find(key); found != rates.end()) {
      rate = found->second;
      break;
    }
  if (const auto least = rates.find(one.substr(0, one.find('_')) + "/" + of); least != rates.end())
    rate = std::max(rate, least->second);
  return rate;
}

const Rates& shipped_rates(const Cpu& c) {
  // Kernels that a table does not name would be priced by the mean of the others: no table serves another level's.
  if (c.avx2 && !c.avx512 && !c.avxvnni) return avx2();
  return c.vnni && c.amd_family == 0x1a && selected_isa() == Isa::kVnni ? zen5() : general();
}

std::string conv_kind(const ConvShape& s, double density, double bytes) {
  std::string kind = "window";
  if (s.groups > 1 && s.groups == s.in_c) kind = "depthwise";
  else if (s.kernel_h * s.kernel_w == 1) kind = "1x1";
  else if (s.in_c <= 4) kind = "first";
  return sized(kind + (density > 0.5 ? " full" : ""), bytes);
}

std::string linear_kind(bool many, double bytes) { return sized(many ? "many" : "few", bytes); }

}  // namespace secateur
