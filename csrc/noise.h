// Zoneout and dropout of the state (rnn.h, Noise): the masks of a step.
//
// Philox's words are drawn for the units of a row in groups of 32: unit 8 * w + l of a group has
// the word w of the counter
//   (8 * group + l, row, time, mask + 4 * (direction + 2 * layer))
// so that a vector holds neighbours. The key is the call's seed.
#pragma once

#include <cmath>
#include <cstdint>

#include "random.h"
#include "rnn.h"

namespace fastrnn {

constexpr int kSeedBits = 64;
constexpr int kUnitsOfGroup = 32;
constexpr int kUnitsOfWord = kUnitsOfGroup / 4;

// What is drawn: which units of h and of c keep their value, and which of h are read as zero.
enum class Mask : uint32_t { kKeptH, kKeptC, kRead };

// A seed (rnn.h) as a number.
struct Key {
  uint32_t low = 0, high = 0;
  bool draws = false;  // whether masks are drawn; otherwise each is replaced by its mean
};

FASTRNN_HOST_DEVICE Key KeyOf(const float* seed) {
  Key key;
  if (seed == nullptr) return key;
  for (int bit = 0; bit < kSeedBits / 2; ++bit) {
    const float low = seed[bit], high = seed[bit + kSeedBits / 2];
    key.low |= (low != 0.0f ? 1u : 0u) << bit;
    key.high |= (high != 0.0f ? 1u : 0u) << bit;
    key.draws = key.draws || low != 1.0f || high != 1.0f;
  }
  return key;
}

// The masks of one direction of a layer. Real is the type of its arithmetic.
template <class Real>
struct Masks {
  // A unit's number in a mask: where the upper 24 bits of its word are below the limit, elsewhere,
  // and if nothing is drawn. The limit is that of the rate in float32, whatever Real is.
  struct Values {
    uint32_t limit;
    Real below, above, mean;

    FASTRNN_HOST_DEVICE Real Of(uint32_t word) const { return word >> 8 < limit ? below : above; }
  };
  Values values[3];  // by Mask
  uint32_t stream;   // the counter's last word, without the mask

  Masks(const Noise& noise, int64_t layer, int64_t direction)
      : values{Kept(noise.zoneout_outputs), Kept(noise.zoneout_states), Read(noise.drop_states)},
        stream(4 * static_cast<uint32_t>(direction + kMaxDirections * layer)) {}

  FASTRNN_HOST_DEVICE const Values& Of(Mask mask) const { return values[static_cast<int>(mask)]; }

  // For the first unit of a row.
  FASTRNN_HOST_DEVICE Counter CounterOf(Mask mask, int64_t row, int64_t time) const {
    const int64_t step = mask == Mask::kRead ? 0 : time;  // which has one mask for all steps
    return {{0, static_cast<uint32_t>(row), static_cast<uint32_t>(step),
             stream + static_cast<uint32_t>(mask)}};
  }

  // A unit's number.
  FASTRNN_HOST_DEVICE Real Draw(const Key& key, Mask mask, int64_t row, int64_t time,
                                int unit) const {
    const Values& of = Of(mask);
    if (!key.draws) return of.mean;
    Counter counter = CounterOf(mask, row, time);
    counter.words[0] =
        static_cast<uint32_t>(unit / kUnitsOfGroup * kUnitsOfWord + unit % kUnitsOfWord);
    Philox(key.low, key.high, &counter);
    return of.Of(counter.words[unit / kUnitsOfWord % 4]);
  }

 private:
  static uint32_t LimitOf(double rate) {
    return static_cast<uint32_t>(std::ceil(static_cast<float>(rate) * (1 << 24)));
  }
  static Values Kept(double rate) { return {LimitOf(rate), 1, 0, static_cast<Real>(rate)}; }
  static Values Read(double rate) {
    return {LimitOf(rate), 0, static_cast<Real>(rate < 1 ? 1 / (1 - rate) : 0), 1};
  }
};

// A state after a step, of which a share is kept. What is not used may be NaN.
template <class Real>
FASTRNN_HOST_DEVICE Real Mixed(Real kept, Real before, Real after) {
  const Real mean = kept * before + (1 - kept) * after;
  return kept == 1 ? before : kept == 0 ? after : mean;
}

}  // namespace fastrnn
