// Time of every int8 convolution kernel on real layer shapes: us, prediction, products per nanosecond on filled blocks.
// Usage: kernels_qconv_bench [substring of the layer name] [density of 1x4 blocks in percent]...
// BEST=1 leaves out narrower ISAs, ROWS=4 prunes four outputs together.
#include <cstdlib>

#include "base/arena.h"
#include "kernels/qconv/qconv.h"
#include "kernels/testing.h"

using namespace secateur;

namespace {

struct Layer {
  const char* name;
  int in_c, size, out_c, kernel, stride, pad;
  bool residual;
  int rows = 0;  // of a linear layer
  bool depthwise = false;
  bool dynamic =
      false;  // zero point and scale come with the call, weights are u8 less a zero point, the result is float32
};

// Nearly normal, as the codes of a layer with a scale for every output: their spread is a third of the greatest.
int8_t code(testing::Random& rng) {
  int sum = -128;
  for (int i = 0; i < 4; ++i) sum += rng.below(65);
  return static_cast<int8_t>(sum == 0 ? 1 : sum == 128 ? 127 : sum);
}

constexpr Layer kLayers[] = {
    {"resnet20.stem", 3, 32, 16, 3, 1, 1, false},
    {"resnet20.16@32", 16, 32, 16, 3, 1, 1, false},
    {"resnet20.16@32+r", 16, 32, 16, 3, 1, 1, true},
    {"resnet20.16-32/2", 16, 32, 32, 3, 2, 1, false},
    {"resnet20.32@16", 32, 16, 32, 3, 1, 1, false},
    {"resnet20.32-64/2", 32, 16, 64, 3, 2, 1, false},
    {"resnet20.64@8", 64, 8, 64, 3, 1, 1, false},
    {"vgg16.stem", 3, 32, 64, 3, 1, 1, false},
    {"vgg16.64@32", 64, 32, 64, 3, 1, 1, false},
    {"vgg16.128@16", 128, 16, 128, 3, 1, 1, false},
    {"vgg16.256@8", 256, 8, 256, 3, 1, 1, false},
    {"vgg16.512@4", 512, 4, 512, 3, 1, 1, false},
    {"vgg16.512@2", 512, 2, 512, 3, 1, 1, false},
    {"resnet50.stem", 3, 224, 64, 7, 2, 3, false},
    {"resnet50.64@56", 64, 56, 64, 3, 1, 1, false},
    {"resnet50.128@28", 128, 28, 128, 3, 1, 1, false},
    {"resnet50.256@14", 256, 14, 256, 3, 1, 1, false},
    {"resnet50.512@7", 512, 7, 512, 3, 1, 1, false},
    {"resnet50.1x1 64-256@56", 64, 56, 256, 1, 1, 0, true},
    {"resnet50.1x1 256-64@56", 256, 56, 64, 1, 1, 0, false},
    {"resnet50.1x1 512-128@28", 512, 28, 128, 1, 1, 0, false},
    {"resnet50.1x1 1024-256@14", 1024, 14, 256, 1, 1, 0, false},
    {"resnet50.1x1 256-1024@14", 256, 14, 1024, 1, 1, 0, true},
    {"resnet50.1x1 2048-512@7", 2048, 7, 512, 1, 1, 0, false},
    {"resnet50.128@56/2", 128, 56, 128, 3, 2, 1, false},
    {"fc 2048-1000", 2048, 1, 1000, 1, 1, 0, false},
    {"bert.768-768@128", 768, 1, 768, 1, 1, 0, false, 128},
    {"bert.768-3072@128", 768, 1, 3072, 1, 1, 0, false, 128},
    {"bert.3072-768@128", 3072, 1, 768, 1, 1, 0, false, 128},
    {"mobilenetv2.384@14", 384, 14, 384, 3, 1, 1, false, 0, true},
    {"mobilenetv2.144@56/2", 144, 56, 144, 3, 2, 1, false, 0, true},
    {"dynamic resnet20.32@16", 32, 16, 32, 3, 1, 1, false, 0, false, true},
    {"dynamic mobilenet.256@16", 256, 16, 256, 1, 1, 0, false, 0, false, true},
    {"dynamic mobilenet.384@14", 384, 14, 384, 3, 1, 1, false, 0, true, true},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  std::vector<double> densities;
  for (int i = 2; i < argc; ++i) densities.push_back(std::atof(argv[i]) / 100);
  if (densities.empty()) densities = {0.05, 0.1, 0.3};
  const int together = std::getenv("ROWS") ? std::atoi(std::getenv("ROWS")) : 1;
  testing::Random rng(1);
  std::printf("%s, best ISA %s\n%-26s %-32s %6s %9s %9s %8s  %s\n", cpu().name.c_str(), isa_name(selected_isa()),
              "layer", "kernel", "blocks%", "us", "predicted", "MAC/ns", "tiles");
  for (const Layer& l : kLayers) {
    if (std::string(l.name).find(only) == std::string::npos) continue;
    ConvShape s;
    s.in_c = l.in_c;
    s.in_h = s.in_w = l.size;
    s.out_c = l.out_c;
    s.kernel_h = s.kernel_w = l.kernel;
    s.stride_h = s.stride_w = l.stride;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = l.pad;
    s.groups = l.depthwise ? l.in_c : 1;
    QEpilogue e;
    e.residual = l.residual;
    if (l.rows) s.in_w = l.rows, e.output = QOutput::kF32Rows;
    if (l.dynamic) e.output = QOutput::kF32, e.dynamic = true;
    Buffer x(size_t(quads(s.in_c)) * 4 * s.in_h * s.in_w), y(size_t(quads(s.out_c)) * 16 * s.conv_h() * s.conv_w()),
        r(y);
    for (size_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<uint8_t>(rng.below(256));
    std::vector<float> scale(s.out_c, 0.001f);
    for (const QConvKernel& k : qconv_kernels()) {
      if (!isa_available(k.isa) || k.isa > selected_isa() || k.family == QConvFamily::kReference || !k.supports(s, e))
        continue;
      if (std::getenv("BEST") && k.isa != selected_isa()) continue;
      for (double density : densities) {
        if (k.family == QConvFamily::kDense) density = 1.0;
        std::vector<int8_t> w(size_t(s.weight_count()), 0);
        const int taps = s.kernel_h * s.kernel_w;
        const int per = s.in_c / s.groups;
        for (int first = 0; first < s.out_c; first += together)
          for (int q = 0; q < per; q += 4)
            for (int t = 0; t < taps; ++t) {
              if (!(rng.unit() < density)) continue;
              for (int o = first; o < std::min(first + together, s.out_c); ++o)
                for (int c = q; c < std::min(q + 4, per); ++c) w[(size_t(o) * per + c) * taps + t] = code(rng);
            }
        std::vector<int16_t> wide(w.begin(), w.end());
        for (auto& v : wide) v = static_cast<int16_t>(v ? rng.below(256) - 121 : 0);
        const QWeights qw{w.data(),     nullptr,
                          scale.data(), l.dynamic ? uint8_t{0} : uint8_t{3},
                          nullptr,      l.dynamic ? wide.data() : nullptr};
        const QDensity d = measure_density(s, e, qw);
        if (d.wide && k.family == QConvFamily::kDense && k.weight_words == 1) break;
        const auto p = k.pack(k, s, e, qw, {});
        Buffer scratch(p->scratch_bytes(1));
        QConvArgs args;
        args.x = x.data();
        args.y = y.data();
        args.residual = r.data();
        args.scratch = scratch.data();
        args.x_zero = 7;
        const double us = testing::median_us([&] { k.run(*p, args); }, 15);
        std::printf("%-26s %-32s %6.1f %9.2f %9.2f %8.1f  %s\n", l.name, k.name, 100 * density, us,
                    predict_qconv_us(k, s, e, d), 4e-3 * double(d.filled) * s.conv_h() * s.conv_w() / us,
                    p->note.c_str());
        if (k.family == QConvFamily::kDense) break;
      }
    }
  }
}
