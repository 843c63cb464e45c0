// How much longer kernels take on a kind of CPU than the cost models say, which were fitted on one
// (kernels/*/tiling.cc, kernels/linear/select.cc): a factor for every kernel and kind of layer. docs/design/rates.md
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/cpu.h"
#include "kernels/conv/conv.h"

namespace secateur {

// By "<kernel>/<kind>"; by "<kernel>" for kinds that are not there; "" for all others. "<operator>/<kind>" (conv,
// qconv, linear) is the least that the last two count for that kind: nothing that was never timed looks better for it.
using Rates = std::map<std::string, double, std::less<>>;
inline constexpr double kMostRate = 64;  // and a 64th: beyond it a factor is a mistake

double rate_of(const Rates& rates, std::string_view kernel, std::string_view kind);

// The table that is shipped for such a CPU; empty where the models were fitted (Zen 4), and where nothing is known
// (AVX-VNNI without AVX-512, other processors, a level below a Zen 5's best).
const Rates& shipped_rates(const Cpu& c);

// "1x1", "window", "first" (of at most 4 channels) or "depthwise"; " full" where most weights, of `density`, are not
// zero; " large" where the `bytes` read and written do not stay in the second cache.
std::string conv_kind(const ConvShape& s, double density, double bytes);
// "few" or "many" rows, and " large" where the weights of `bytes` do not stay in the second cache.
std::string linear_kind(bool many, double bytes);

}  // namespace secateur
