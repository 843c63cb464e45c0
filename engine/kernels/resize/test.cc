// Resampling with random taps against the formula in double.
#include "kernels/resize/resize.h"

#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(20240703);
  int64_t n_checks = 0;
  for (int taps : {1, 2, 4})
    for (int round = 0; round < 100; ++round) {
      Resample r;
      r.taps = taps, r.outer = 1 + rng.below(3), r.in = 1 + rng.below(9), r.out = 1 + rng.below(9),
      r.inner = 1 + rng.below(20);
      std::vector<int64_t> index(static_cast<size_t>(r.out * taps));
      std::vector<float> weight(index.size());
      for (int64_t& i : index) i = rng.below(static_cast<int>(r.in));
      for (float& w : weight) w = taps == 1 ? 1.0f : rng.normal();
      r.index = index.data(), r.weight = weight.data();
      testing::Guarded x(r.outer * r.in * r.inner, 1), y(r.outer * r.out * r.inner, 2);
      testing::fill_normal(x.data(), x.size(), rng);
      resample_ref(r, x.data(), y.data());
      bool ok = y.intact();
      for (int64_t o = 0; o < r.outer; ++o)
        for (int64_t j = 0; j < r.out; ++j)
          for (int64_t i = 0; i < r.inner; ++i) {
            double want = 0, size = 0;
            for (int t = 0; t < taps; ++t) {
              const double term = double(weight[static_cast<size_t>(j * taps + t)]) *
                                  x[(o * r.in + index[static_cast<size_t>(j * taps + t)]) * r.inner + i];
              want += term, size += std::fabs(term);
            }
            ok &= std::fabs(y[(o * r.out + j) * r.inner + i] - want) <= (taps + 1) * 0x1p-24 * size;
          }
      ++n_checks;
      testing::check(ok, std::to_string(taps) + " taps, round " + std::to_string(round));
    }
  for (int taps : {1, 2})
    for (int round = 0; round < 150; ++round) {
      ResizePlanes r;
      r.taps = taps, r.planes = 1 + rng.below(3), r.in_h = 1 + rng.below(9), r.in_w = 1 + rng.below(40);
      r.out_h = 1 + rng.below(12), r.out_w = round % 30 == 7 ? 2000 + rng.below(100) : 1 + rng.below(70);
      r.twice = taps == 1 && round % 3 == 0;
      if (r.twice) r.out_w = 2 * r.in_w;
      std::vector<int32_t> rows(static_cast<size_t>(r.out_h * taps));
      std::vector<uint32_t> columns(static_cast<size_t>(r.out_w * taps));
      std::vector<float> row_weights(rows.size()), column_weights(columns.size());
      for (int32_t& i : rows) i = rng.below(r.in_h);
      if (round % 2) std::sort(rows.begin(), rows.end());
      for (size_t j = 0; j < columns.size(); ++j)
        columns[j] = r.twice ? static_cast<uint32_t>(j / 2) : static_cast<uint32_t>(rng.below(r.in_w));
      for (float& w : row_weights) w = taps == 1 ? 1.0f : rng.normal();
      for (float& w : column_weights) w = taps == 1 ? 1.0f : rng.normal();
      r.rows = rows.data(), r.row_weights = row_weights.data();
      r.columns = columns.data(), r.column_weights = column_weights.data();
      testing::Guarded x(r.planes * r.in_h * r.in_w, 1);
      testing::fill_normal(x.data(), x.size(), rng);
      for (Isa isa : available_isas()) {
        testing::Guarded y(r.planes * r.out_h * r.out_w, 2, 7.0f);
        resize_kernels(isa).planes(r, x.data(), y.data());
        bool ok = y.intact() && x.intact();
        for (int64_t at = 0; at < y.size(); ++at) {
          const int64_t j = at % r.out_w, i = at / r.out_w % r.out_h, p = at / r.out_w / r.out_h;
          double want = 0, size = 0;
          for (int u = 0; u < taps; ++u)
            for (int v = 0; v < taps; ++v) {
              const double term = double(row_weights[static_cast<size_t>(i * taps + u)]) *
                                  column_weights[static_cast<size_t>(v * r.out_w + j)] *
                                  x[(p * r.in_h + rows[static_cast<size_t>(i * taps + u)]) * r.in_w +
                                    columns[static_cast<size_t>(v * r.out_w + j)]];
              want += term, size += std::fabs(term);
            }
          ok &= std::fabs(y[at] - want) <= 5 * 0x1p-24 * size;
        }
        ++n_checks;
        testing::check(ok, std::string(isa_name(isa)) + " planes, taps " + std::to_string(taps) + ", round " +
                               std::to_string(round));
      }
    }
  return testing::finish("resize", n_checks);
}
