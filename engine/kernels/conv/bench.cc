// Time of every conv kernel on real layer shapes: us, GFLOP/s on nonzeros, the cost model's prediction beside it.
// Usage: kernels_conv_bench [substring of the layer name] [density in percent]...
#include <cstdlib>

#include "base/arena.h"
#include "kernels/conv/conv.h"
#include "kernels/testing.h"

using namespace secateur;

namespace {

struct Layer {
  const char* name;
  int in_c, h, w, out_c, kernel, stride, pad;
  bool pool;
  int groups = 1;
};

constexpr Layer kLayers[] = {
    {"lenet5.conv1+pool", 1, 28, 28, 20, 5, 1, 0, true},
    {"lenet5.conv2+pool", 20, 12, 12, 50, 5, 1, 0, true},
    {"lenet5.conv1", 1, 28, 28, 20, 5, 1, 0, false},
    {"lenet5.conv2", 20, 12, 12, 50, 5, 1, 0, false},
    {"resnet20.stem", 3, 32, 32, 16, 3, 1, 1, false},
    {"resnet20.16@32", 16, 32, 32, 16, 3, 1, 1, false},
    {"resnet20.16-32/2", 16, 32, 32, 32, 3, 2, 1, false},
    {"resnet20.32@16", 32, 16, 16, 32, 3, 1, 1, false},
    {"resnet20.32-64/2", 32, 16, 16, 64, 3, 2, 1, false},
    {"resnet20.64@8", 64, 8, 8, 64, 3, 1, 1, false},
    {"vgg16.64@32", 64, 32, 32, 64, 3, 1, 1, false},
    {"vgg16.64@32+pool", 64, 32, 32, 64, 3, 1, 1, true},
    {"vgg16.128@16", 128, 16, 16, 128, 3, 1, 1, false},
    {"vgg16.256@8", 256, 8, 8, 256, 3, 1, 1, false},
    {"vgg16.512@4", 512, 4, 4, 512, 3, 1, 1, false},
    {"vgg16.512@2", 512, 2, 2, 512, 3, 1, 1, false},
    {"resnet50.64@56", 64, 56, 56, 64, 3, 1, 1, false},
    {"resnet50.128@28", 128, 28, 28, 128, 3, 1, 1, false},
    {"resnet50.256@14", 256, 14, 14, 256, 3, 1, 1, false},
    {"resnet50.512@7", 512, 7, 7, 512, 3, 1, 1, false},
    {"1x1 64@25x5", 64, 25, 5, 64, 1, 1, 0, false},
    {"resnet50.1x1 64-256@56", 64, 56, 56, 256, 1, 1, 0, false},
    {"resnet50.1x1 1024-256@14", 1024, 14, 14, 256, 1, 1, 0, false},
    {"depthwise.64@80", 64, 80, 80, 64, 3, 1, 1, false, 64},
    {"depthwise.64@80/2", 64, 80, 80, 64, 3, 2, 1, false, 64},
    {"depthwise.96@112/2", 96, 112, 112, 96, 3, 2, 1, false, 96},
    {"depthwise.144@56", 144, 56, 56, 144, 3, 1, 1, false, 144},
    {"depthwise.144@56/2", 144, 56, 56, 144, 3, 2, 1, false, 144},
    {"depthwise.384@14", 384, 14, 14, 384, 3, 1, 1, false, 384},
    {"depthwise.960@7", 960, 7, 7, 960, 3, 1, 1, false, 960},
    {"depthwise.64@25x5", 64, 25, 5, 64, 3, 1, 1, false, 64},
    {"depthwise.8@48", 8, 48, 48, 8, 3, 1, 1, false, 8},
    {"depthwise.32@24", 32, 24, 24, 32, 3, 1, 1, false, 32},
    {"depthwise.64@12", 64, 12, 12, 64, 3, 1, 1, false, 64},
    {"depthwise.128@6", 128, 6, 6, 128, 3, 1, 1, false, 128},
    {"depthwise.256@3", 256, 3, 3, 256, 3, 1, 1, false, 256},
    {"depthwise.5x5 120@14", 120, 14, 14, 120, 5, 1, 2, false, 120},
    {"depthwise.5x5 240@7", 240, 7, 7, 240, 5, 1, 2, false, 240},
    {"depthwise.5x5 120@28", 120, 28, 28, 120, 5, 1, 2, false, 120},
    {"depthwise.5x5 72@56/2", 72, 56, 56, 72, 5, 2, 2, false, 72},
    {"depthwise.5x5 1-64@360", 1, 360, 640, 64, 5, 1, 2, false, 1},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  std::vector<double> densities;
  for (int i = 2; i < argc; ++i) densities.push_back(std::atof(argv[i]) / 100);
  if (densities.empty()) densities = {0.05, 0.1, 0.3};
  FlushDenormals guard;
  testing::Random rng(1);
  std::printf("%s, best ISA %s\n%-26s %-8s %8s %9s %9s %8s  %s\n", cpu().name.c_str(), isa_name(selected_isa()),
              "layer", "kernel", "density%", "us", "predicted", "GFLOP/s", "tiles");
  for (const Layer& l : kLayers) {
    if (std::string(l.name).find(only) == std::string::npos) continue;
    ConvShape s;
    s.in_c = l.in_c;
    s.in_h = l.h;
    s.in_w = l.w;
    s.out_c = l.out_c;
    s.kernel_h = s.kernel_w = l.kernel;
    s.stride_h = s.stride_w = l.stride;
    s.groups = l.groups;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = l.pad;
    Epilogue e;
    e.act = Activation::relu();
    if (l.pool) e.pool = Pool2x2::kMax;
    Buffer x(size_t(s.in_c) * s.in_h * s.in_w * 4), y(size_t(s.out_c) * s.conv_h() * s.conv_w() * 4);
    for (size_t i = 0; i < x.size() / 4; ++i) x.as<float>()[i] = rng.normal();
    for (const ConvKernel& k : conv_kernels()) {
      if (!isa_available(k.isa) || k.isa > selected_isa() || k.family == ConvFamily::kReference || !k.supports(s, e))
        continue;
      for (double density : densities) {
        const bool whole = k.family == ConvFamily::kDense || k.family == ConvFamily::kDepthwise;
        if (whole) density = 1.0;
        auto w = testing::sparse_weights(s.weight_count(), density, rng);
        const int64_t taps = s.weight_count() / s.out_c;  // the first channel of a block decides for all
        for (int64_t i = 0; i < s.weight_count(); ++i) w[i] = w[i / taps / k.block * k.block * taps + i % taps];
        const auto p = k.pack(k, s, e, w.data(), nullptr, {});
        Buffer scratch(p->scratch_bytes_per_thread);
        ConvArgs args;
        args.x = x.as<float>();
        args.y = y.as<float>();
        args.scratch = scratch.data();
        const double us = testing::median_us([&] { k.run(*p, args); });
        std::printf("%-26s %-3s %-8s %6.1f %9.2f %9.2f %8.1f  %s\n", l.name,
                    k.family == ConvFamily::kDense       ? k.block == 1 ? "de" : "out"
                    : k.family == ConvFamily::kDepthwise ? "dw"
                    : k.block == 1                       ? "sp"
                    : k.block == 2                       ? "2x1"
                    : k.block == 4                       ? "4x1"
                                                         : "8x1",
                    isa_name(k.isa), 100 * density, us, predict_conv_us(k, s, e, p->density),
                    2e-3 * double(p->nnz) * s.conv_h() * s.conv_w() / us, p->note.c_str());
        if (whole) break;
      }
    }
  }
}
