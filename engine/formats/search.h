// The writer's choice: which layouts and codecs are tried for a tensor, and which is kept.
#pragma once

#include "formats/seen.h"
#include "formats/tensor.h"

namespace secateur::sct {

// Layout, codec and version of the best coding found, its bytes; `own`: the tensor's sketch.
CodedTensor shortest(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, const Past& past,
                     const Sketch& own, const Values& values, double ideal_bits);

}  // namespace secateur::sct
