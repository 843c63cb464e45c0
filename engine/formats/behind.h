// Values behind the arithmetic stream, at memory speed: a symbol each by rANS and, packed, bits as they are. While the
// stream is read the places of the values are marked; the values then fill them in.
#pragma once

#include "formats/rans.h"
#include "formats/stream.h"

namespace secateur::sct {

// The values of a body that only says where they are.
template <class C>
struct Marks {
  static constexpr bool kBehind = true, kMixes = false;
  TensorStream<C>& s;
  void code(int64_t i) { s.mark(i); }
};

struct Behind {
  std::vector<uint32_t> frequencies;
  uint64_t nbytes = 0;  // of the rANS part

  // `symbol(i, x)`: of the kept element i, whose pattern is x; read when encoding.
  template <class C, class Symbol>
  void header(TensorStream<C>& s, const Kept& kept, size_t symbols, Symbol&& symbol) {
    if constexpr (C::kEncoding) write(s, kept, symbols, symbol);
    frequencies.resize(symbols);
    Uint model;
    uint64_t sum = 0;
    for (uint32_t& f : frequencies) {
      const uint64_t x = model.code(s.coder(), f);
      if (x > kRansTotal) s.damaged("a frequency is too large");
      f = static_cast<uint32_t>(x);
      sum += x;
    }
    if (sum != kRansTotal) s.damaged("frequencies do not add up");
    nbytes = Uint{}.code(s.coder(), nbytes);
  }

  // Fills in each marked element, `value(symbol, the element's bits)`; returns how many of `bytes` it took.
  template <class Value>
  size_t read(TensorStream<Decoder>& s, const Kept& kept, std::span<const uint8_t> bytes, int bits,
              Value&& value) const {
    const uint64_t packed = (static_cast<uint64_t>(kept.nnz) * static_cast<uint64_t>(bits) + 7) / 8;
    if (nbytes > bytes.size() || packed > bytes.size() - nbytes) throw FormatError("truncated: split values end early");
    RansReader r(frequencies, bytes.first(nbytes));
    const uint8_t* from = bytes.data() + nbytes;
    const uint64_t mask = (uint64_t{1} << bits) - 1;
    const bool all = kept.all();
    uint64_t hold = 0, k = 0;
    int held = 0;
    for (int64_t i = 0; i < s.numel(); ++i) {
      if (!all && !s.marked(i)) continue;
      for (; held < bits; held += 8) hold |= uint64_t{*from++} << held;
      s.set(i, value(r.get(k++), hold & mask));
      hold >>= bits;
      held -= bits;
    }
    if (!r.clean()) s.damaged("split values do not end where they should");
    return nbytes + packed;
  }

 private:
  template <class C, class Symbol>
  void write(TensorStream<C>& s, const Kept& kept, size_t symbols, Symbol&& symbol) {
    std::vector<uint64_t> counts(symbols);
    for (int64_t i = 0; i < s.numel(); ++i) {
      const uint64_t x = s.get(i);
      if (kept.has(i, x)) ++counts[symbol(i, x)];
    }
    frequencies = rans_frequencies(counts);
    RansWriter w(frequencies);
    uint64_t k = static_cast<uint64_t>(kept.nnz);
    for (int64_t i = s.numel(); i-- > 0;) {
      const uint64_t x = s.get(i);
      if (kept.has(i, x)) w.put(--k, symbol(i, x));
    }
    s.tail = w.finish();
    nbytes = s.tail.size();
  }
};

}  // namespace secateur::sct
