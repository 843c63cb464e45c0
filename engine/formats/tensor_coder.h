// One tensor's stream, written once for both directions: which layout and codec, their headers, the body
// (docs/format.md, 4).
#pragma once

#include "formats/plan.h"

namespace secateur::sct {

// Layouts from here on have an escape before them: two bits are not enough.
inline constexpr uint32_t kFirstFurther = 4;
inline constexpr uint32_t kFurther = 7;  // as a codec's number: something of the other codec or layout follows

// Layout and codec of what small files hold: a mixed codebook, sparse or dense.
template <class C>
bool code_small_kind(TensorStream<C>& s, Plan& p) {
  const auto* dense = std::get_if<layouts::Dense>(&p.layout);
  const bool sparse = std::holds_alternative<layouts::Sparse>(p.layout);
  const bool small = std::holds_alternative<codecs::Codebook>(p.codec) && (sparse || (dense && dense->mixed));
  if (!s.coder().bit(small, 49152)) return false;
  const bool is_sparse = s.coder().bit(sparse, 32768);
  if constexpr (!C::kEncoding) {
    p.codec.emplace<codecs::Codebook>();
    if (is_sparse) p.layout.emplace<layouts::Sparse>();
    else p.layout.emplace<layouts::Dense>().mixed = true;
  }
  return true;
}

// A layout behind the escape: room for 64, and as many codecs.
template <class C>
void code_further_kind(TensorStream<C>& s, Plan& p, uint32_t near) {
  if (s.version < 3) s.damaged("unknown codec");
  if (near != 0) s.damaged("a further layout beside another");
  const uint32_t layout = kFirstFurther + s.coder().bits(number_of(p.layout) - kFirstFurther, 6);
  const uint32_t codec = s.coder().bits(number_of(p.codec), 6);
  if constexpr (C::kEncoding) return;
  if (!choose(p.layout, layout) || version_of(p.layout) > s.version) s.damaged("unknown layout");
  if (!choose(p.codec, codec) || is_whole(p.codec)) s.damaged(std::string("unknown codec of ") + name_of(p.layout));
}

template <class C>
void code_kind(TensorStream<C>& s, Plan& p) {
  if (code_small_kind(s, p)) return;
  C& c = s.coder();
  const bool far = C::kEncoding && number_of(p.layout) >= kFirstFurther;
  const uint32_t layout = c.bits(far ? 0 : number_of(p.layout), 2);
  const uint32_t codec = c.bits(far ? kFurther : number_of(p.codec), 3);
  if (codec > codecs::Split::kNumber && s.version == 1) s.damaged("unknown codec");
  if (codec == kFurther && !c.bit(!far, 57344)) return code_further_kind(s, p, layout);
  if constexpr (!C::kEncoding) {
    choose(p.layout, layout);
    choose(p.codec, codec);
  }
}

// What may follow once layout and codec are known.
template <class C>
void check_kind(TensorStream<C>& s, const Plan& p) {
  std::visit(
      [&]<class Row>(const Row& codec) {
        if constexpr (Row::kWhole) {
          if (!std::holds_alternative<layouts::Dense>(p.layout))
            s.damaged(std::string(Row::kName) + " values need the dense layout");
        } else if (const char* why = codec.refuses(s.dtype, may_lie_behind(p.layout))) {
          s.damaged(why);
        }
      },
      p.codec);
}

// Codes the whole stream but what lies behind it: that is in `s.tail`, or read by read_tail() with what this returns.
template <class C>
Kept code_tensor(TensorStream<C>& s, Plan& p) {
  Kept kept;
  if (s.numel() == 0) return kept;
  code_kind(s, p);
  check_kind(s, p);
  std::visit(
      [&]<class Row>(Row& codec) {
        if constexpr (Row::kWhole) {
          codec.code(s);
        } else {
          kept = std::visit([&](auto& layout) { return layout.header(s); }, p.layout);
          if (kept.nnz == 0) return;
          codec.header(s, kept);
          codec.values(s, kept, [&](auto& values) {
            std::visit([&](const auto& layout) { layout.body(s, kept, values); }, p.layout);
          });
        }
      },
      p.codec);
  return kept;
}

// Reads what lies behind the arithmetic stream; returns how many bytes it took.
inline size_t read_tail(TensorStream<Decoder>& s, const Plan& p, const Kept& kept, std::span<const uint8_t> bytes) {
  return std::visit(
      [&]<class Row>(const Row& codec) -> size_t {
        if constexpr (requires { codec.read_tail(s, kept, bytes); }) {
          return Row::kWhole || kept.nnz > 0 ? codec.read_tail(s, kept, bytes) : 0;
        } else {
          return 0;
        }
      },
      p.codec);
}

// The tensor's stream by this plan, with its report's layout, codec, version, n and nbytes.
CodedTensor encode_as(Plan p, DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data,
                      const Earlier& earlier);

}  // namespace secateur::sct
