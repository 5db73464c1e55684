// mma.sync with the fragment layouts of the PTX ISA: which elements of the tile each lane's
// registers hold. selftest_fragments.cc states the layouts a second time, in another way.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "emulator.h"

namespace emulator {

enum class MmaType { kTf32, kBf16, kF16 };

inline float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The tensor cores do not look at the low 13 bits of a TF32 operand.
inline float Tf32FromRegister(uint32_t bits) { return FloatFromBits(bits & 0xffffe000u); }

template <MmaType kType>
float HalfFromRegister(uint32_t pair, int element) {
  const auto bits = static_cast<uint16_t>(pair >> (16 * element));
  if (kType == MmaType::kBf16) return FloatFromBits(static_cast<uint32_t>(bits) << 16);
  return __half2float(__ushort_as_half(bits));
}

struct MmaData {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
  const float* c;
};

// D[16, 8] = A[16, K] * B[K, 8] + C. Lane = 4 * group + index in group; each register of A and B
// holds one TF32 number, or two neighbours along k.
template <MmaType kType, int K>
void MmaLanes(void* const* data, unsigned) {
  constexpr int kPerRegister = kType == MmaType::kTf32 ? 1 : 2;
  constexpr int kQuad = 4 * kPerRegister;  // values along k that four lanes hold
  const auto value = [](uint32_t bits, int e) {
    return kType == MmaType::kTf32 ? Tf32FromRegister(bits) : HalfFromRegister<kType>(bits, e);
  };
  float a[16][K], b[K][8];
  for (int lane = 0; lane < warpSize; ++lane) {
    const auto& registers = *static_cast<MmaData*>(data[lane]);
    const int group = lane / 4, first = lane % 4 * kPerRegister;
    for (int e = 0; e < kPerRegister; ++e) {
      for (int r = 0; r < 2 * K / kQuad; ++r) {
        a[group + 8 * (r % 2)][first + e + kQuad * (r / 2)] = value(registers.a[r], e);
      }
      for (int r = 0; r < K / kQuad; ++r) {
        b[first + e + kQuad * r][group] = value(registers.b[r], e);
      }
    }
  }
  for (int lane = 0; lane < warpSize; ++lane) {
    const auto& registers = *static_cast<MmaData*>(data[lane]);
    for (int r = 0; r < 4; ++r) {
      const int half = IsPlanted(kExchangedRows) ? 1 - r / 2 : r / 2;
      const int row = lane / 4 + 8 * half, column = 2 * (lane % 4) + r % 2;
      float sum = 0.0f;
      for (int k = 0; k < K; ++k) sum += a[row][k] * b[k][column];
      registers.d[r] = registers.c[r] + sum;
    }
  }
}

template <MmaType kType, int K>
void Mma(float* d, const uint32_t* a, const uint32_t* b, const float* c, Site site) {
  MmaData data{d, a, b, c};
  ExchangeInWarp(kFullWarp, &data, &MmaLanes<kType, K>, site);
}

}  // namespace emulator
