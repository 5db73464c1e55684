#include "philox.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FASTRNN_INLINE inline __attribute__((always_inline))

namespace fastrnn {
namespace cpu {
namespace {

namespace baseline {
#define FASTRNN_LANES 2
#define FASTRNN_TARGET
#if defined(__x86_64__)
#define FASTRNN_PRODUCT(a, b) _mm_mul_epu32((__m128i)(a), (__m128i)(b))
#else
#define FASTRNN_PRODUCT(a, b) (((a) & 0xffffffffu) * ((b) & 0xffffffffu))
#endif
#include "philox_lanes.h"
#undef FASTRNN_LANES
#undef FASTRNN_TARGET
#undef FASTRNN_PRODUCT
}  // namespace baseline

#if defined(__x86_64__)
namespace avx2 {
#define FASTRNN_LANES 4
#define FASTRNN_TARGET __attribute__((target("avx2")))
#define FASTRNN_PRODUCT(a, b) _mm256_mul_epu32((__m256i)(a), (__m256i)(b))
#include "philox_lanes.h"
#undef FASTRNN_LANES
#undef FASTRNN_TARGET
#undef FASTRNN_PRODUCT
}  // namespace avx2

namespace avx512 {
#define FASTRNN_LANES 8
#define FASTRNN_TARGET __attribute__((target("avx512f")))
// With a mask of all lanes: GCC warns of what the other form leaves undefined.
#define FASTRNN_PRODUCT(a, b) _mm512_maskz_mul_epu32(0xff, (__m512i)(a), (__m512i)(b))
#include "philox_lanes.h"
#undef FASTRNN_LANES
#undef FASTRNN_TARGET
#undef FASTRNN_PRODUCT
}  // namespace avx512
#endif

using Draw = void (*)(const RoundKeys& keys, const Counter& counter, int64_t groups,
                      uint32_t* words);

Draw ForThisProcessor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return avx512::Draw;
  if (__builtin_cpu_supports("avx2")) return avx2::Draw;
#endif
  return baseline::Draw;
}

const Draw draw = ForThisProcessor();

}  // namespace

void DrawWords(const RoundKeys& keys, const Counter& counter, int64_t groups, uint32_t* words) {
  draw(keys, counter, groups, words);
}

}  // namespace cpu
}  // namespace fastrnn
