// The Vec of the level that this file is compiled for (engine/CMakeLists.txt); the contract is in vec.h.
#pragma once

#if SECATEUR_VECTOR_BITS == 512
#include "simd/avx512.h"
#elif SECATEUR_VECTOR_BITS == 256
#include "simd/avx2.h"
#else
#include "simd/portable.h"
#endif
