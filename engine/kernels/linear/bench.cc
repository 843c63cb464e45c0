// Time of every linear kernel on real layer shapes: us, GFLOP/s on nonzeros, the cost model's prediction beside it.
// Usage: kernels_linear_bench [substring of the layer name] [density in percent]...
#include <cstdlib>

#include "base/arena.h"
#include "kernels/linear/linear.h"
#include "kernels/testing.h"

using namespace secateur;

namespace {

struct Layer {
  const char* name;
  int in, out;
  int64_t rows;
};

constexpr Layer kLayers[] = {
    {"lenet5.fc1", 800, 500, 1},        {"lenet5.fc2", 500, 10, 1},           {"lenet300.fc1", 784, 300, 1},
    {"lenet300.fc2", 300, 100, 1},      {"vgg16.fc 512x512", 512, 512, 1},    {"bert 768x768", 768, 768, 1},
    {"bert 768x3072", 768, 3072, 1},    {"4096x4096", 4096, 4096, 1},         {"lenet5.fc1 batch 32", 800, 500, 32},
    {"bert 768x768 T16", 768, 768, 16}, {"bert 768x768 T128", 768, 768, 128},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  std::vector<double> densities;
  for (int i = 2; i < argc; ++i) densities.push_back(std::atof(argv[i]) / 100);
  if (densities.empty()) densities = {0.002, 0.05, 0.1, 0.3};
  FlushDenormals guard;
  testing::Random rng(1);
  std::printf("%s, best ISA %s\n%-20s %-11s %8s %9s %9s %8s\n", cpu().name.c_str(), isa_name(selected_isa()), "layer",
              "kernel", "density%", "us", "predicted", "GFLOP/s");
  for (const Layer& l : kLayers) {
    if (std::string(l.name).find(only) == std::string::npos) continue;
    Buffer x(size_t(l.in) * l.rows * 4), y(size_t(l.out) * l.rows * 4);
    for (size_t i = 0; i < x.size() / 4; ++i) x.as<float>()[i] = rng.normal();
    for (const LinearKernel& k : linear_kernels()) {
      if (!isa_available(k.isa) || k.isa > selected_isa() || k.family == LinearFamily::kReference) continue;
      for (double density : densities) {
        if (k.family == LinearFamily::kDense) density = 1.0;
        auto w = testing::sparse_weights(int64_t{l.in} * l.out, density, rng);
        if (k.family == LinearFamily::kBlock)  // the first feature of 16 decides for all
          for (int64_t i = 0; i < int64_t{l.in} * l.out; ++i) w[i] = w[i / l.in / 16 * 16 * l.in + i % l.in];
        const auto p = k.pack(k, LinearShape{l.in, l.out}, Epilogue{}, w.data(), nullptr, l.rows);
        Buffer scratch(p->scratch_bytes(l.rows, 1));
        const LinearArgs args{x.as<float>(), y.as<float>(), nullptr, l.rows, scratch.data(), nullptr};
        const double us = testing::median_us([&] { k.run(*p, args); });
        std::printf("%-20s %s %-8s %8.2f %9.2f %9.2f %8.1f\n", l.name,
                    k.family == LinearFamily::kSparse  ? "sparse"
                    : k.family == LinearFamily::kBlock ? "16x1  "
                                                       : "dense ",
                    isa_name(k.isa), 100 * density, us, predict_linear_us(k, p->shape, l.rows, p->density),
                    2e-3 * double(p->nnz) * l.rows / us);
        if (k.family == LinearFamily::kDense) break;
      }
    }
  }
}
