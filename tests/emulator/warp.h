// Shuffles and votes.
#pragma once

#include <cstring>

#include "emulator.h"

namespace emulator {

enum class ShuffleMode { kIndex, kUp, kDown, kXor };

// The lane that `lane` reads from, in groups of `width` lanes (CUDA C++ Programming Guide, warp
// shuffle functions): outside its group a lane reads itself.
inline int ShuffleSource(ShuffleMode mode, int lane, int argument, int width) {
  const int group = lane & ~(width - 1), rank = lane & (width - 1);
  switch (mode) {
    case ShuffleMode::kIndex:
      return group + (argument & (width - 1));
    case ShuffleMode::kUp:
      return rank >= argument ? lane - argument : lane;
    case ShuffleMode::kDown:
      return rank + argument < width ? lane + argument : lane;
    case ShuffleMode::kXor:
      return (lane ^ argument) < group + width ? lane ^ argument : lane;
  }
  return lane;
}

template <class T>
struct ShuffleData {
  T in, out;
  ShuffleMode mode;
  int argument, width;
};

template <class T>
void ShuffleLanes(void* const* data, unsigned mask) {
  for (int lane = 0; lane < warpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto* self = static_cast<ShuffleData<T>*>(data[lane]);
    const int source = ShuffleSource(self->mode, lane, self->argument, self->width);
    if (mask >> source & 1) {
      self->out = static_cast<ShuffleData<T>*>(data[source])->in;
    } else {
      std::memset(static_cast<void*>(&self->out), 0xff, sizeof(T));  // undefined on a GPU
    }
  }
}

template <class T>
T Shuffle(unsigned mask, T value, ShuffleMode mode, int argument, int width, Site site) {
  ShuffleData<T> data{value, value, mode, argument, width};
  ExchangeInWarp(mask, &data, &ShuffleLanes<T>, site);
  return data.out;
}

struct BallotData {
  bool predicate;
  unsigned result;
};

inline void BallotLanes(void* const* data, unsigned mask) {
  unsigned result = 0;
  for (int lane = 0; lane < warpSize; ++lane) {
    if ((mask >> lane & 1) && static_cast<BallotData*>(data[lane])->predicate) result |= 1u << lane;
  }
  for (int lane = 0; lane < warpSize; ++lane) {
    if (mask >> lane & 1) static_cast<BallotData*>(data[lane])->result = result;
  }
}

inline unsigned Ballot(unsigned mask, bool predicate, Site site) {
  BallotData data{predicate, 0};
  ExchangeInWarp(mask, &data, &BallotLanes, site);
  return data.result;
}

}  // namespace emulator
