// Every row of the table this machine can run, against double, around vector edges, with and without every option.
#include "kernels/norm/norm.h"

#include "kernels/testing.h"

namespace secateur {
namespace {

using testing::Guarded;
using testing::Random;

int64_t n_checks = 0;

// Mean and 1 / sqrt(var + eps) of v.
void exact(const std::vector<double>& v, double eps, bool rms, double& mean, double& inv_std) {
  mean = 0;
  if (!rms) {
    for (double x : v) mean += x;
    mean /= static_cast<double>(v.size());
  }
  double squares = 0;
  for (double x : v) squares += (x - mean) * (x - mean);
  inv_std = 1 / std::sqrt(squares / static_cast<double>(v.size()) + eps);
}

// Inputs are near `centre`, spread 1: rounding of the mean and of each difference is in units of centre + 4.
double allowed(int64_t n, double centre, double scale) {
  return (8 + std::sqrt(double(n))) * (centre + 4) * std::fabs(scale) * 0x1p-24 + 1e-6;
}

void layer(Isa isa, int64_t n, int options, Random& rng) {
  const int64_t rows = 1 + rng.below(20);
  const bool residual = options & 1, scaled = options & 2, shifted = options & 4, rms = options & 8,
             extra = options & 16;
  const double centre = options & 32 ? 50 : 0;
  Guarded x(rows * n, 1), other(rows * n), scale(n), bias(n), y(rows * n, 2, 7.0f), total(rows * n, 0, 7.0f),
      mean(rows), inv(rows);
  for (int64_t i = 0; i < rows * n; ++i) x[i] = rng.normal() + static_cast<float>(centre), other[i] = rng.normal();
  for (int64_t i = 0; i < n; ++i) scale[i] = rng.normal(), bias[i] = rng.normal();
  Threads pool(2);
  LayerNormArgs a;
  a.x = x.data(), a.y = y.data(), a.rows = rows, a.n = n, a.rms = rms, a.eps = 1e-3f, a.threads = &pool;
  if (residual) a.residual = other.data();
  if (scaled) a.scale = scale.data();
  if (shifted) a.bias = bias.data();
  if (extra) a.mean = mean.data(), a.inv_std = inv.data();
  if (extra && residual) a.sum = total.data();
  norm_kernels(isa).layer(a);
  ++n_checks;
  bool ok = y.intact() && total.intact() && mean.intact() && inv.intact();
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) v[i] = residual ? x[r * n + i] + other[r * n + i] : x[r * n + i];
    double m, s;
    exact(v, double(1e-3f), rms, m, s);
    for (int64_t i = 0; i < n; ++i) {
      const double f = (scaled ? scale[i] : 1) * s;
      ok &= std::fabs(y[r * n + i] - ((v[i] - m) * f + (shifted ? bias[i] : 0))) <= allowed(n, centre, f) * (1 + s);
      if (a.sum) ok &= total[r * n + i] == static_cast<float>(v[i]);
    }
    if (extra)
      ok &= std::fabs(mean[r] - m) <= allowed(n, centre, 1) &&
            std::fabs(inv[r] / s - 1) <= allowed(n, centre, 1) * (1 + s);
  }
  testing::check(ok,
                 std::string(isa_name(isa)) + " layer n " + std::to_string(n) + " options " + std::to_string(options));
}

void group(Isa isa, int64_t plane, int64_t groups, int64_t per, Random& rng) {
  const int64_t batch = 2, channels = groups * per, n = per * plane;
  Guarded x(batch * channels * plane, 1), y(batch * channels * plane, 2, 7.0f), scale(channels), bias(channels);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = rng.normal();
  for (int64_t i = 0; i < channels; ++i) scale[i] = rng.normal(), bias[i] = rng.normal();
  GroupNormArgs a;
  a.x = x.data(), a.y = y.data(), a.scale = scale.data(), a.bias = bias.data();
  a.batch = batch, a.channels = channels, a.groups = groups, a.plane = plane, a.eps = 1e-3f;
  norm_kernels(isa).group(a);
  ++n_checks;
  bool ok = y.intact();
  for (int64_t g = 0; g < batch * groups; ++g) {
    std::vector<double> v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) v[i] = x[g * n + i];
    double m, s;
    exact(v, double(1e-3f), false, m, s);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t c = g % groups * per + i / plane;
      ok &= std::fabs(y[g * n + i] - ((v[i] - m) * s * scale[c] + bias[c])) <= allowed(n, 0, s * scale[c]) * (1 + s);
    }
  }
  testing::check(ok, std::string(isa_name(isa)) + " group plane " + std::to_string(plane));
}

}  // namespace
}  // namespace secateur

int main() {
  using namespace secateur;
  const uint32_t seed = 20240616;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  for (Isa isa : available_isas()) {
    for (int64_t n : {1, 3, 4, 5, 8, 9, 16, 17, 33, 64, 100, 768, 4099})
      for (int options = 0; options < 64; ++options)
        if (n < 200 || options % 7 == 0) layer(isa, n, options, rng);
    for (int64_t plane : {1, 5, 16, 49, 100})
      for (int64_t groups : {1, 3})
        for (int64_t per : {1, 4}) group(isa, plane, groups, per, rng);
  }
  return testing::finish("norm", n_checks);
}
