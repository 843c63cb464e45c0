#include "formats/prime.h"

#include "formats/pack.h"

namespace secateur::sct {
namespace {

constexpr uint8_t kPrime[] = {
#include "formats/prime.inc"
};
constexpr int kNetworks =
#include "formats/prime_count.inc"
    ;

GraphModels read_prime() {
  GraphModels models;
  Decoder d(kPrime);
  for (int i = 0; i < kNetworks; ++i) {
    Graph g;
    std::vector<Tensor*> tensors;
    code_graph(d, models, g, tensors);
  }
  return models;
}

}  // namespace

const GraphModels& primed_models() {
  static const GraphModels models = read_prime();
  return models;
}

std::vector<uint8_t> encode_prime(const std::vector<Graph>& networks) {
  GraphModels models;
  Encoder e;
  for (const Graph& network : networks) {
    Graph g = canonical(network);
    std::vector<Tensor*> tensors;
    code_graph(e, models, g, tensors);
  }
  return e.finish();
}

}  // namespace secateur::sct
