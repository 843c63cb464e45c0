// What passes find out about a node and fuse into it, beside its operator and attributes. No file holds any of it:
// readers leave the defaults, writers never look.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

namespace secateur {

// min(hi, max(lo, x < 0 ? slope * x : x))
struct FusedActivation {
  float lo = -std::numeric_limits<float>::infinity(), hi = std::numeric_limits<float>::infinity();
  float slope = 1.0f;
};

// Steps of bytes: value = (q - zero) * scale with q as u8; s8 is shifted by 128.
struct Steps {
  float scale = 1;
  int64_t zero = 0;
  bool s8 = false;
};

// A result in steps, clamped in its bytes.
struct Requantized : Steps {
  int64_t lo = 0, hi = 255;
};

// Which axes of attention's operands come as [batch, rows, heads, dim].
struct RowsFirst {
  bool q = false, k = false, v = false, y = false;
};

struct PostOps {
  int64_t layer = -1;   // index of the file's node this one came from
  std::string why;      // a layer's: why it is computed as it is
  std::string refused;  // why no rule rewrote it (kRefusedDomain)

  // Of layers in float32, sums and norms: the activation behind, then (Conv) the 2x2 max pool behind that.
  std::optional<FusedActivation> act;
  bool pool = false;
  RowsFirst rows_first;         // Attention
  int64_t spatial = 0;          // Flatten: it must find this many pixels in an image; 0: any
  bool ceil_to_shrink = false;  // Resize of opset 10
  std::optional<float> most;    // DynamicQuantizeLinear: a Relu before it, with this upper bound

  // Of nodes of the domain "secateur" (passes.h), quantizers for the last two.
  enum class Result { kBytes, kFloat, kSums };
  Result result = Result::kBytes;
  bool dynamic = false;  // zero point and scale of x come while running
  bool gelu = false;     // before the result is quantized
  Steps x, other;        // operands: x; the second of a sum, or a layer's residual
  Requantized y, sum;    // the result; a layer's with its residual
  std::string op;        // ONNX's operator, where one here stands for several
  enum class Place { kPlain, kQuads, kQuadRows };
  Place place = Place::kPlain;  // how the result is to lie in memory
  bool s8 = false;              // its type, where it is to lie plain
};

// Nothing but the layer it came from.
inline PostOps from_layer(const PostOps& p) {
  PostOps kept;
  kept.layer = p.layer;
  return kept;
}

}  // namespace secateur
