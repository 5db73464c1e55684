// Philox's words for a row of units, vectorised for the processor at hand.
#pragma once

#include <cstdint>

#include "../../noise.h"

namespace fastrnn {
namespace cpu {

// The key of each round, in numbers of 64 bits as vectors take them.
struct RoundKeys {
  uint64_t low[kPhiloxRounds], high[kPhiloxRounds];
  bool draws;

  explicit RoundKeys(Key key) : draws(key.draws) {
    for (int round = 0; round < kPhiloxRounds; ++round) {
      low[round] = key.low;
      high[round] = key.high;
      key.low += kPhiloxStepLow;
      key.high += kPhiloxStepHigh;
    }
  }
};

// Writes the words of whole groups of units (noise.h). counter: of the first group's first unit.
void DrawWords(const RoundKeys& keys, const Counter& counter, int64_t groups, uint32_t* words);

}  // namespace cpu
}  // namespace fastrnn
