// Philox4x32-7, the counter-based generator of Salmon et al. 2011 ("Parallel random numbers: as
// easy as 1, 2, 3") with as many rounds as it needs to pass their tests, for host and device. A
// word is a function of the key and of its place alone, so that masks need not be stored and do not
// depend on how work is divided.
#pragma once

#include <cstdint>

#include "cells/math.h"

namespace fastrnn {

struct Counter {
  uint32_t words[4];
};

constexpr int kPhiloxRounds = 7;
constexpr uint32_t kPhiloxFactorA = 0xD2511F53u, kPhiloxFactorB = 0xCD9E8D57u;
// Added to the key after each round: parts of the golden ratio and of the root of 3.
constexpr uint32_t kPhiloxStepLow = 0x9E3779B9u, kPhiloxStepHigh = 0xBB67AE85u;

// Four random words from a counter, which they replace.
FASTRNN_HOST_DEVICE void Philox(uint32_t key_low, uint32_t key_high, Counter* counter) {
  uint32_t* const w = counter->words;
#if defined(__CUDA_ARCH__)  // the host's compiler does not know it
#pragma unroll
#endif
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t a = static_cast<uint64_t>(kPhiloxFactorA) * w[0];
    const uint64_t b = static_cast<uint64_t>(kPhiloxFactorB) * w[2];
    w[0] = static_cast<uint32_t>(b >> 32) ^ w[1] ^ key_low;
    w[1] = static_cast<uint32_t>(b);
    w[2] = static_cast<uint32_t>(a >> 32) ^ w[3] ^ key_high;
    w[3] = static_cast<uint32_t>(a);
    key_low += kPhiloxStepLow;
    key_high += kPhiloxStepHigh;
  }
}

}  // namespace fastrnn
