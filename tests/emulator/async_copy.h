// cp.async. A copy may land at any time between its start and the wait for it: here it lands at the
// wait, or in a random schedule sometimes at once, so that both mistakes show.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "emulator.h"

namespace emulator {

inline void Land(const PendingCopy& copy) {
  std::memcpy(copy.destination, copy.source, copy.valid);
  std::memset(static_cast<char*>(copy.destination) + copy.valid, 0, copy.bytes - copy.valid);
}

// The bytes past `valid` become zero and are not read.
inline void StartCopy(void* destination, const void* source, int bytes, int valid, Site site) {
  const auto misaligned = [bytes](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % bytes != 0;
  };
  if (misaligned(destination) || misaligned(source)) {
    Fail("an asynchronous copy is not aligned to its size", site);
  }
  const PendingCopy copy{destination, source, bytes, valid, Copies().group};
  if (FlipCoin()) {
    Land(copy);
  } else {
    Copies().copies.push_back(copy);
  }
}

inline void CommitCopies() { ++Copies().group; }

// Waits for all groups but the last `pending` ones.
inline void WaitForCopies(int pending) {
  CopyQueue& queue = Copies();
  std::vector<PendingCopy> later;
  for (const PendingCopy& copy : queue.copies) {
    if (copy.group < queue.group - pending) {
      Land(copy);
    } else {
      later.push_back(copy);
    }
  }
  queue.copies.swap(later);
}

}  // namespace emulator
