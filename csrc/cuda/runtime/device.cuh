// The vocabulary of the kernels: the only file of csrc with PTX, apart from the sigmoid's in
// cells/math.h. A host compiler with FASTRNN_EMULATE finds the same names in the emulator's
// device_emulated.h, where every CUDA thread is a fiber.
//
// Rules for kernels, so that both can run them:
// - Use only the names below, those in the emulator's cuda_names.h (threadIdx, __syncthreads,
//   integer atomicAdd, ...), the C library's functions on float, and plain C++.
// - Launch and LaunchCooperative, never <<<>>>. FASTRNN_SHARED and FASTRNN_DYNAMIC_SHARED, never
//   __shared__: the emulator gives every block its own, filled with NaN.
// - Branch on FASTRNN_ARCH, never on __CUDA_ARCH__. It is 0 in nvcc's host pass.
// - Arithmetic in float; half and bfloat16 are for storage and for the tensor cores. No float
//   atomics, since their order would change the result.
// - Poll a flag with LoadAcquire only: in the emulator, it yields to the other threads. Set it with
//   StoreRelease. Words that are polled themselves: StoreTagged, LoadTagged16, HasArrived.
// - Do not return before a barrier that other threads reach. All lanes of a mask must reach the
//   same warp function.
// - No const __restrict__ on memory that other blocks write during the launch: the compiler could
//   then read it through the cache that is not kept coherent.
#pragma once

#include <cstddef>
#include <cstdint>

#include "launch.cuh"
#include "number.cuh"
#include "runtime.h"
#include "shared_carver.h"

namespace fastrnn {
namespace cuda {

constexpr int kWarp = 32;

}  // namespace cuda
}  // namespace fastrnn

#if defined(FASTRNN_EMULATE)
#include "device_emulated.h"
#else

#define FASTRNN_SHARED(T, name, count) __shared__ T name[count]
#define FASTRNN_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

namespace fastrnn {
namespace cuda {

// Ends the grid with an error. For kernels that must not be launched.
FASTRNN_DEVICE void Trap() { asm volatile("trap;"); }

// The same address, for one that is used in a loop: the compiler keeps it in registers, rather than
// compute it again in every round.
template <class T>
FASTRNN_DEVICE T* KeepAddress(T* address) {
  auto bits = reinterpret_cast<uint64_t>(address);
  asm volatile("" : "+l"(bits));
  return reinterpret_cast<T*>(bits);
}

// ---- signals between blocks ---------------------------------------------------------------------

// Everything that the signalling thread had seen or written before its release is visible after the
// acquire that reads it.
FASTRNN_DEVICE unsigned LoadAcquire(const unsigned* p) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
FASTRNN_DEVICE void StoreRelease(unsigned* p, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

// Loads what another block has written during this launch and signalled. They bypass the L1 cache,
// which would keep old values. Addresses of 16 bytes are aligned to 16.
FASTRNN_DEVICE uint4 LoadExchanged16(const void* p) {
  uint4 value;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(p)
               : "memory");
  return value;
}

// Stores 16 bytes that another block loads so, in one instruction; the compiler splits such stores.
// This orders nothing.
FASTRNN_DEVICE void StoreExchanged16(void* p, uint4 value) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
}

FASTRNN_DEVICE float LoadExchanged(const float* p) {
  float value;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(value) : "l"(p) : "memory");
  return value;
}

// Words that themselves say whether they are there (tagged_words.cuh). Each word of 4 bytes is read
// and written whole; its tag says nothing of other memory. LoadTagged16 loads four of them, aligned
// to 16 bytes, in any order. HasArrived, called by all lanes of a warp: whether no tag that they
// have read differs from what it should be. Until then they load again, together.
FASTRNN_DEVICE void StoreTagged(uint32_t* p, uint32_t word) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(word) : "memory");
}
FASTRNN_DEVICE uint4 LoadTagged16(const uint32_t* p) {
  uint4 words;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(p)
               : "memory");
  return words;
}
FASTRNN_DEVICE bool HasArrived(uint32_t difference) {
  return __all_sync(0xffffffffu, difference == 0) != 0;
}

// ---- clusters -----------------------------------------------------------------------------------

// A barrier for all threads of a cluster. After it, all of them see what any of them wrote before
// it, in the shared memory of its own block or another. Before sm_90 there are no clusters.
FASTRNN_DEVICE void ClusterBarrier() {
#if FASTRNN_ARCH >= 900
  __syncwarp();  // A warp arrives as one.
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A barrier of bytes (mbarrier): 8 bytes of shared memory in which a block counts, phase by phase,
// what other blocks of its cluster store into its shared memory. A phase ends when the block has
// said how many bytes it expects, and so many have arrived, in any order.
//
//   InitByteBarrier   one thread of the block; a cluster barrier must follow
//   ExpectBytes       one thread of the block, once in each phase
//   StoreToCluster    stores 16 bytes at the address that `to` is in this block, but in the block
//                     `rank` of the cluster, and counts them at that block's `barrier`. That block
//                     must have started, and must not have ended
//   WaitForBytes      waits until a phase has ended: 0 for the first, 1 for the second, 0 again...
//
// A thread that has waited sees the bytes: their count is a release in the scope of the cluster (in
// PTX: the complete-tx operation of st.async), and the wait an acquire. It is one for other threads
// of the block behind a __syncthreads.
#if FASTRNN_ARCH >= 900 && CUDART_VERSION >= FASTRNN_CLUSTER_CUDART
constexpr bool kHasClusters = true;

FASTRNN_DEVICE unsigned SharedAddress(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
FASTRNN_DEVICE void InitByteBarrier(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(SharedAddress(barrier)) : "memory");
}
FASTRNN_DEVICE void ExpectBytes(uint64_t* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
FASTRNN_DEVICE void StoreToCluster(float* to, unsigned rank, float4 value, uint64_t* barrier) {
  unsigned address = SharedAddress(to), counted = SharedAddress(barrier);
  asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
  asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(counted) : "r"(rank));
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(address),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(counted)
      : "memory");
}
FASTRNN_DEVICE void WaitForBytes(uint64_t* barrier, unsigned phase) {
  unsigned ended = 0;
  while (ended == 0) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(ended)
        : "r"(SharedAddress(barrier)), "r"(phase)
        : "memory");
  }
}
#else
constexpr bool kHasClusters = false;  // These are not called.

FASTRNN_DEVICE void InitByteBarrier(uint64_t*) {}
FASTRNN_DEVICE void ExpectBytes(uint64_t*, unsigned) {}
FASTRNN_DEVICE void StoreToCluster(float*, unsigned, float4, uint64_t*) {}
FASTRNN_DEVICE void WaitForBytes(uint64_t*, unsigned) {}
#endif

// ---- tensor cores -------------------------------------------------------------------------------
//
// D[16, 8] = A[16, K] * B[K, 8] + C in one warp, all 32 lanes taking part; d and c may be the same.
// With g = lane / 4 and q = lane % 4, the registers hold
//   C, D  [g, 2q], [g, 2q + 1], [g + 8, 2q], [g + 8, 2q + 1]
//   A     K = 8 TF32: [g, q], [g + 8, q], [g, q + 4], [g + 8, q + 4]
//         16 bit: pairs at column 2q of rows g and g + 8, then the same at columns 2q + 8 (K = 16)
//   B     K = 8 TF32: [q, g], [q + 4, g]
//         16 bit: pairs at rows 2q, 2q + 1 of column g, then at rows 2q + 8, 2q + 9 (K = 16)
// A pair's first element is in the low half.

#if FASTRNN_ARCH >= 750
FASTRNN_DEVICE void MmaF16M16N8K8(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1],
                                  const float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
#endif

// The nearest TF32 number, ties away from zero. Before sm_80 there is no TF32.
FASTRNN_DEVICE uint32_t ToTf32(float value) {
#if FASTRNN_ARCH >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  return __float_as_uint(value);
#endif
}

#if FASTRNN_ARCH >= 800
#define FASTRNN_MMA(Name, shape_and_types)                                                      \
  FASTRNN_DEVICE void Name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],       \
                           const float (&c)[4]) {                                               \
    asm volatile("mma.sync.aligned." shape_and_types                                            \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"         \
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), \
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));                                            \
  }
FASTRNN_MMA(MmaTf32M16N8K8, "m16n8k8.row.col.f32.tf32.tf32.f32")
FASTRNN_MMA(MmaF16M16N8K16, "m16n8k16.row.col.f32.f16.f16.f32")
FASTRNN_MMA(MmaBf16M16N8K16, "m16n8k16.row.col.f32.bf16.bf16.f32")
#undef FASTRNN_MMA
#endif

}  // namespace cuda
}  // namespace fastrnn

#endif
