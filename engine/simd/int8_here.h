// The Q of the level that this file is compiled for (engine/CMakeLists.txt); the contract is in int8.h.
#pragma once

#if SECATEUR_VECTOR_BITS == 512
#include "simd/int8_avx512.h"
#elif SECATEUR_VECTOR_BITS == 256
#include "simd/int8_avx2.h"
#else
#include "simd/int8_portable.h"
#endif
