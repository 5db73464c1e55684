// How much of time is a chunk on CUDA. No CUDA header: plans depend on it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../layout.h"
#include "../rnn.h"

namespace fastrnn {
namespace cuda {

// Bytes of workspace that the gates of a chunk may take: enough that the products over a chunk run
// at full rate, and far from the 2 GiB that MXNet can give. Emulated builds set it lower, so that
// small tests have chunks too.
#if !defined(FASTRNN_CUDA_CHUNK_BYTES)
#define FASTRNN_CUDA_CHUNK_BYTES (128 << 20)
#endif
constexpr int64_t kChunkBytes = FASTRNN_CUDA_CHUNK_BYTES;

// The most rows that a chunk has; gate_bytes: what its arrays take for each gate of each row.
inline int64_t MaxChunkRows(const LayerDesc& desc, int64_t gate_bytes) {
  return std::max<int64_t>(1, kChunkBytes / (gate_bytes * desc.gate_rows()));
}
inline int64_t ForwardChunkRows(const LayerDesc& desc) { return MaxChunkRows(desc, sizeof(float)); }
inline int64_t BackwardChunkRows(const LayerDesc& desc) {
  return MaxChunkRows(desc, SizeOf(desc.dtype) * (desc.cell().split_shares ? 2 : 1));
}

// Backward, both directions can only run at once where this is so: their chunks come in opposite
// orders, and the second one adds to the dx that the first has written.
inline bool BackwardIsOneChunk(const LayerDesc& desc) {
  return Walk(desc, 0, BackwardChunkRows(desc)).chunk_steps == desc.steps;
}

}  // namespace cuda
}  // namespace fastrnn
