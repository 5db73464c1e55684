// What a step's exchange costs with each way for blocks to wait for each other: every block hands
// on a part, and reads those of all. csrc/cuda/persistent/exchange.cuh is kFlags; the others are
// what it was chosen among. Built and called by synchronization.py.
#include <cooperative_groups.h>

#include "../../csrc/cuda/runtime/device.cuh"

namespace {

using namespace fastrnn::cuda;

// 8 bytes that are seen whole or not at all, and say nothing of any other memory: for data that
// carries its own sign of being there. Aligned to 8.
#if defined(FASTRNN_EMULATE)
inline uint2 LoadRelaxed8(const uint2* p, EMULATOR_SITE) {
  ::emulator::Poll({"LoadRelaxed8", file, line});
  const uint64_t value = __atomic_load_n(reinterpret_cast<const uint64_t*>(p), __ATOMIC_RELAXED);
  return make_uint2(static_cast<unsigned>(value), static_cast<unsigned>(value >> 32));
}
inline void StoreRelaxed8(uint2* p, uint2 value, EMULATOR_SITE) {
  ::emulator::PerhapsYield({"StoreRelaxed8", file, line});
  ::emulator::NoteProgress();
  __atomic_store_n(reinterpret_cast<uint64_t*>(p), static_cast<uint64_t>(value.y) << 32 | value.x,
                   __ATOMIC_RELAXED);
}
#else
FASTRNN_DEVICE uint2 LoadRelaxed8(const uint2* p) {
  uint64_t value;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(value) : "l"(p) : "memory");
  return make_uint2(static_cast<unsigned>(value), static_cast<unsigned>(value >> 32));
}
FASTRNN_DEVICE void StoreRelaxed8(uint2* p, uint2 value) {
  const uint64_t whole = static_cast<uint64_t>(value.y) << 32 | value.x;
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(p), "l"(whole) : "memory");
}
#endif

constexpr int kThreads = 256;
// Flags a sector apart: pollers of one do not get in the way of another's.
constexpr int kSector = 32 / sizeof(unsigned);

enum Variant : int {
  kFlags,        // a flag for each block, side by side
  kSpacedFlags,  // a flag for each block, in a sector of its own
  kCounter,      // one counter, to which every block adds
  kGridSync,     // cooperative groups' grid.sync()
  kTags,         // no signal: each word carries the number of its step beside 4 bytes of data
  kVariants
};

struct Arguments {
  unsigned* flags;  // [blocks * kSector], zeros
  void* parts;      // [2][blocks][words of a part], 8 bytes each, zeros
  unsigned* sums;   // [blocks], receives the sum of all that the block has read
  int words;        // of a part, even
  unsigned steps;
};

// What block `block` hands on in a step, and word by word what that is.
FASTRNN_DEVICE unsigned Value(unsigned step, unsigned block, int word) {
  return step + 3 * block + 5 * static_cast<unsigned>(word);
}

template <Variant kVariant>
FASTRNN_DEVICE void Signal(const Arguments& a, unsigned step) {
  if (kVariant == kGridSync) return cooperative_groups::this_grid().sync();
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (kVariant == kCounter) {
    __threadfence();  // with the addition behind it, a release
    atomicAdd(a.flags, 1u);
  } else {
    StoreRelease(a.flags + blockIdx.x * (kVariant == kSpacedFlags ? kSector : 1), step);
  }
}

template <Variant kVariant>
FASTRNN_DEVICE void WaitForAll(const Arguments& a, unsigned step) {
  if (kVariant == kGridSync) return;
  if (kVariant == kCounter) {
    if (threadIdx.x == 0) {
      while (LoadAcquire(a.flags) < step * gridDim.x) {
      }
    }
  } else {
    for (unsigned other = threadIdx.x; other < gridDim.x; other += kThreads) {
      while (LoadAcquire(a.flags + other * (kVariant == kSpacedFlags ? kSector : 1)) < step) {
      }
    }
  }
  __syncthreads();
}

template <Variant kVariant>
__global__ void __launch_bounds__(kThreads) Exchange(const Arguments a) {
  unsigned sum = 0;
  const int all = static_cast<int>(gridDim.x) * a.words, thread = static_cast<int>(threadIdx.x);
  for (unsigned step = 1; step <= a.steps; ++step) {
    auto* parts = static_cast<uint2*>(a.parts) + step % 2 * static_cast<size_t>(all);
    for (int i = thread; i < a.words; i += kThreads) {
      uint2* word = parts + static_cast<int>(blockIdx.x) * a.words + i;
      if (kVariant == kTags) {
        StoreRelaxed8(word, make_uint2(Value(step, blockIdx.x, i), step));
      } else {
        *word = make_uint2(Value(step, blockIdx.x, i), step);
      }
    }
    if (kVariant == kTags) {
      for (int i = thread; i < all; i += kThreads) {
        uint2 word = LoadRelaxed8(parts + i);
        while (word.y != step) word = LoadRelaxed8(parts + i);
        sum += word.x;
      }
      __syncthreads();  // A part is written again only when all threads have read what is there.
    } else {
      Signal<kVariant>(a, step);
      WaitForAll<kVariant>(a, step);
      for (int i = thread; i < all / 2; i += kThreads) {
        const uint4 words = LoadExchanged16(parts + 2 * i);
        sum += words.x + words.z;
      }
    }
  }
  FASTRNN_SHARED(unsigned, sums, kThreads);
  sums[thread] = sum;
  __syncthreads();
  if (thread == 0) {
    for (int i = 1; i < kThreads; ++i) sum += sums[i];
    a.sums[blockIdx.x] = sum;
  }
}

}  // namespace

// Enqueues the exchanges, on the current device; flags and parts have to be zero. Returns CUDA's
// status, 0 if all is well, and -1 where there is no such variant.
extern "C" __attribute__((visibility("default"))) int BenchSynchronization(
    int variant, unsigned* flags, void* parts, unsigned* sums, int blocks, int words,
    unsigned steps, void* stream) {
  const Arguments arguments = {flags, parts, sums, words, steps};
  const auto launch = [&](auto kernel) {
    return static_cast<int>(LaunchCooperative(kernel, 1, dim3(static_cast<unsigned>(blocks)),
                                              dim3(kThreads), 0, static_cast<cudaStream_t>(stream),
                                              arguments));
  };
  switch (variant) {
    case kFlags:
      return launch(Exchange<kFlags>);
    case kSpacedFlags:
      return launch(Exchange<kSpacedFlags>);
    case kCounter:
      return launch(Exchange<kCounter>);
    case kGridSync:
      return launch(Exchange<kGridSync>);
    case kTags:
      return launch(Exchange<kTags>);
    default:
      return -1;
  }
}
