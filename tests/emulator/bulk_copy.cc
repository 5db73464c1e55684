// Copies to the blocks of a cluster. One may land in each of them at any time between its start and
// the end of the wait for it: here it lands when somebody waits, or in a random schedule sometimes
// at once, so that a wait that is missing shows as well as a source or target that is still in use.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "emulator.h"
#include "sanitizers.h"
#include "scheduler.h"

namespace emulator {
namespace {

constexpr uint16_t kMark = 0x4d42;

Thread* Self() { return Worker::Get().current; }

void ExpectBarrier(const CopyBarrier* barrier, Site site) {
  if (barrier->mark != kMark) Fail("a copy barrier that was not initialised", site);
}

void EndPhaseWhereDone(CopyBarrier* barrier) {
  if (barrier->arrived == 0 || barrier->missing_bytes != 0) return;
  barrier->arrived = 0;
  barrier->phase ^= 1;
  NoteProgress();
}

// What ThreadSanitizer sees is neither the thread that started the copy nor the one that waits, but
// one that comes after the start and before the end of the wait.
void Land(const BulkCopy& copy) {
  void* self = TsanCurrentFiber();
  void* hardware = TsanCreateFiber();
  TsanSwitch(hardware);
  TsanAcquire(copy.destination);
  std::memcpy(copy.destination, copy.source, copy.bytes);
  TsanRelease(copy.barrier);
  TsanSwitch(self);
  TsanDestroyFiber(hardware);
  copy.barrier->missing_bytes -= static_cast<int32_t>(copy.bytes);
  EndPhaseWhereDone(copy.barrier);
}

}  // namespace

void InitCopyBarrier(CopyBarrier* barrier, Site site) {
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0) Fail("a misaligned copy barrier", site);
  *barrier = {0, 0, 0, kMark};
}

void ArriveExpecting(CopyBarrier* barrier, unsigned bytes, Site site) {
  ExpectBarrier(barrier, site);
  if (barrier->arrived != 0) Fail("a second arrival in a phase of a copy barrier", site);
  TsanRelease(barrier);
  barrier->arrived = 1;
  barrier->missing_bytes += static_cast<int32_t>(bytes);
  EndPhaseWhereDone(barrier);
}

void FenceForBulkCopies() { Self()->fenced_for_bulk_copies = true; }

void StartBulkCopy(void* shared, const void* global, unsigned bytes, CopyBarrier* barrier,
                   unsigned ranks, Site site) {
  const auto misaligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 != 0; };
  if (misaligned(shared) || misaligned(global) || bytes % 16 != 0) {
    Fail("a copy to a cluster that is not aligned to 16 bytes", site);
  }
  Thread* self = Self();
  if (!self->fenced_for_bulk_copies) Fail("a copy to a cluster without a fence before", site);
  for (unsigned rank = 0; ranks >> rank != 0; ++rank) {
    if ((ranks >> rank & 1) == 0) continue;
    void* destination = ClusterShared(shared, rank, site);
    auto* theirs = static_cast<CopyBarrier*>(ClusterShared(barrier, rank, site));
    ExpectBarrier(theirs, site);
    const BulkCopy copy{destination, global, bytes, theirs, FlipCoin()};
    TsanRelease(destination);
    if (copy.landed) Land(copy);
    const TsanIgnore bookkeeping;
    self->block->cluster->blocks[rank]->bulk_copies.push_back(copy);
  }
}

void WaitForBulkCopies(CopyBarrier* barrier, unsigned phase, Site site) {
  ExpectBarrier(barrier, site);
  std::vector<BulkCopy>& copies = Self()->block->bulk_copies;
  const auto lands_here = [barrier](const BulkCopy& copy) { return copy.barrier == barrier; };
  while (true) {
    for (const BulkCopy& copy : copies) {
      if (lands_here(copy) && !copy.landed) Land(copy);
    }
    copies.erase(std::remove_if(copies.begin(), copies.end(), lands_here), copies.end());
    if (barrier->phase != phase % 2) break;
    Poll(site);
  }
  TsanAcquire(barrier);
}

}  // namespace emulator
