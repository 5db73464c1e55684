#include "philox.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrnn {
namespace cpu {
namespace {

#define FASTRNN_VECTOR_CODE "cpu/vectors/philox_lanes.h"
#include "instruction_sets.h"

void (*const draw)(const RoundKeys& keys, const Counter& counter, int64_t groups,
                   uint32_t* words) = FASTRNN_FOR_THIS_PROCESSOR(Draw);

}  // namespace

void DrawWords(const RoundKeys& keys, const Counter& counter, int64_t groups, uint32_t* words) {
  draw(keys, counter, groups, words);
}

}  // namespace cpu
}  // namespace fastrnn
