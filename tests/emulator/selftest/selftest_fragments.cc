// Tensor core products whose fragments are filled by a statement of the layouts of its own: strides
// of a lane's two coordinates and a value's coordinates into the column-major tile, the way CuTe
// writes them, where tensor_core.h and device.cuh speak of rows and columns.
#include <cmath>
#include <random>

#include "selftest.h"

namespace selftest {
namespace {

using namespace fastrnn::cuda;  // NOLINT: the vocabulary under test

// The column-major offset of a lane's value in a tile; v is split into bits, lowest first.
struct Layout {
  int quad, group;  // strides of lane % 4 and lane / 4
  int bits[3];      // strides of the value's bits

  int Offset(int lane, int v) const {
    int offset = lane % 4 * quad + lane / 4 * group;
    for (int i = 0; i < 3; ++i) offset += (v >> i & 1) * bits[i];
    return offset;
  }
};

// A is 16 x K with column-major stride 16, B is stored as 8 x K (n first) with stride 8, and the
// result is 16 x 8 with stride 16.
constexpr Layout kResult = {32, 1, {16, 8, 0}};
constexpr Layout kA16 = {32, 1, {16, 8, 128}};
constexpr Layout kB16 = {16, 1, {8, 64, 0}};
constexpr Layout kATf32 = {16, 1, {8, 64, 0}};
constexpr Layout kBTf32 = {8, 1, {32, 0, 0}};

struct Tiles {
  float a[16][16], b[16][8], d[16][8];  // row-major; K <= 16 is used
};

inline float At(const float (*tile)[16], int offset, int rows) {
  return tile[offset % rows][offset / rows];
}

template <class Half>
uint32_t Pair(float low, float high);
template <>
uint32_t Pair<__half>(float low, float high) {
  return __half_as_ushort(__float2half(low)) |
         static_cast<uint32_t>(__half_as_ushort(__float2half(high))) << 16;
}
template <>
uint32_t Pair<__nv_bfloat16>(float low, float high) {
  return __bfloat16_as_ushort(__float2bfloat16(low)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16(high))) << 16;
}

inline float AtB(const Tiles& tiles, int offset) { return tiles.b[offset / 8][offset % 8]; }

inline void StoreResult(Tiles* tiles, const float (&d)[4]) {
  for (int v = 0; v < 4; ++v) {
    const int offset = kResult.Offset(static_cast<int>(threadIdx.x), v);
    tiles->d[offset % 16][offset / 16] = d[v];
  }
}

template <class Half, int K>
__global__ void HalfKernel(Tiles* tiles) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t a[K / 4], b[K / 8];
  for (int r = 0; r < K / 4; ++r) {
    a[r] = Pair<Half>(At(tiles->a, kA16.Offset(lane, 2 * r), 16),
                      At(tiles->a, kA16.Offset(lane, 2 * r + 1), 16));
  }
  for (int r = 0; r < K / 8; ++r) {
    b[r] = Pair<Half>(AtB(*tiles, kB16.Offset(lane, 2 * r)),
                      AtB(*tiles, kB16.Offset(lane, 2 * r + 1)));
  }
  float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  if constexpr (K == 8) {
    MmaF16M16N8K8(d, a, b, d);
  } else if constexpr (sizeof(Half) == sizeof(__half) && std::is_same<Half, __half>::value) {
    MmaF16M16N8K16(d, a, b, d);
  } else {
    MmaBf16M16N8K16(d, a, b, d);
  }
  StoreResult(tiles, d);
}

__global__ void Tf32Kernel(Tiles* tiles) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t a[4], b[2];
  for (int r = 0; r < 4; ++r) a[r] = ToTf32(At(tiles->a, kATf32.Offset(lane, r), 16));
  for (int r = 0; r < 2; ++r) b[r] = ToTf32(AtB(*tiles, kBTf32.Offset(lane, r)));
  float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  MmaTf32M16N8K8(d, a, b, d);
  StoreResult(tiles, d);
}

cudaError_t Check(void (*kernel)(Tiles*), int depth) {
  // Small integers, which every type holds exactly: the products are exact too.
  std::minstd_rand random(1);
  Tiles tiles{};
  for (auto& row : tiles.a) {
    for (float& value : row) value = static_cast<float>(static_cast<int>(random() % 31) - 15);
  }
  for (auto& row : tiles.b) {
    for (float& value : row) value = static_cast<float>(static_cast<int>(random() % 31) - 15);
  }
  const cudaError_t status = Launch(kernel, 1, kWarp, 0, nullptr, &tiles);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 8; ++c) {
      float sum = 1.0f;
      for (int k = 0; k < depth; ++k) sum += tiles.a[r][k] * tiles.b[k][c];
      Expect(tiles.d[r][c] == sum, "the tile is the product");
    }
  }
  return status;
}

cudaError_t Tf32Rounding() {
  const auto rounded = [](float x) { return emulator::FloatFromBits(ToTf32(x)); };
  Expect(rounded(1.0f + std::ldexp(1.0f, -11)) == 1.0f + std::ldexp(1.0f, -10),
         "a tie goes away from zero");
  Expect(rounded(1.0f + std::ldexp(1.0f, -12)) == 1.0f, "less than a tie goes towards zero");
  Expect(rounded(-1.0f - std::ldexp(1.0f, -11)) == -1.0f - std::ldexp(1.0f, -10),
         "a negative tie goes away from zero");
  Expect(std::isnan(rounded(NAN)) && std::isinf(rounded(INFINITY)), "NaN and infinity stay");
  return cudaSuccess;
}

}  // namespace

std::vector<Case> FragmentCases() {
  return {
      {"mma_f16_k8", Outcome::kPass, "", [] { return Check(HalfKernel<__half, 8>, 8); }},
      {"mma_f16_k16", Outcome::kPass, "", [] { return Check(HalfKernel<__half, 16>, 16); }},
      {"mma_bf16_k16", Outcome::kPass, "", [] { return Check(HalfKernel<__nv_bfloat16, 16>, 16); }},
      {"mma_tf32_k8", Outcome::kPass, "", [] { return Check(Tf32Kernel, 8); }},
      {"tf32_rounding", Outcome::kPass, "", Tf32Rounding},
  };
}

}  // namespace selftest
