// The kernels of a layer-normalised layer's step, beside those of its cells. A block has a row: it
// needs sums over all of it.
#pragma once

#include "pointwise.cuh"

namespace fastrnn {
namespace cuda {

constexpr int kNormThreads = 128;
constexpr int64_t kMaxNormBlocks = 1 << 20;

inline unsigned NormBlocks(int64_t rows) {
  return static_cast<unsigned>(rows < kMaxNormBlocks ? rows : kMaxNormBlocks);
}

FASTRNN_DEVICE int Thread() { return static_cast<int>(threadIdx.x); }

// Calls body(row) for the block's rows. The row is unsigned in the loop, because the last sum may
// overflow an int.
template <class Body>
FASTRNN_DEVICE void ForRows(int rows, Body body) {
  for (unsigned row = blockIdx.x; row < static_cast<unsigned>(rows); row += gridDim.x) {
    body(static_cast<int>(row));
  }
}

// A row of gates: its values, and those of the first part that is normalised by itself.
struct GateRow {
  int gates, first;

  explicit GateRow(const LayerDesc& desc)
      : gates(static_cast<int>(desc.gate_rows())), first(static_cast<int>(FirstNormPart(desc))) {}
  FASTRNN_DEVICE int parts() const { return first < gates ? 2 : 1; }
  FASTRNN_DEVICE int begin(int part) const { return part == 0 ? 0 : first; }
  FASTRNN_DEVICE int end(int part) const { return part == 0 ? first : gates; }
};

// The sum of the threads' values, in a fixed order; all threads of the block get it. shared:
// [kNormThreads]
FASTRNN_DEVICE float BlockSum(float value, float* shared) {
  const int thread = Thread();
  shared[thread] = value;
  __syncthreads();
  if (thread < kWarp) {
    for (int i = thread + kWarp; i < kNormThreads; i += kWarp) value += shared[i];
    shared[thread] = value;
  }
  __syncthreads();
  float sum = shared[0];
  for (int i = 1; i < kWarp; ++i) sum += shared[i];
  __syncthreads();  // The next sum overwrites them.
  return sum;
}

// The sum over [begin, end) of value(j).
template <class Value>
FASTRNN_DEVICE float RowSum(int begin, int end, float* shared, Value value) {
  float sum = 0.0f;
  for (int j = begin + Thread(); j < end; j += kNormThreads) sum += value(j);
  return BlockSum(sum, shared);
}

// A row's gradients d * gamma beside its normalised values; and, over a row, the means of the
// former and of the products of both.
struct Along {
  float d, normalized;
};
template <class Value>
FASTRNN_DEVICE Along MeansAlong(int begin, int end, float* shared, Value value) {
  Along sums = {0.0f, 0.0f};
  for (int j = begin + Thread(); j < end; j += kNormThreads) {
    const Along own = value(j);
    sums.d += own.d;
    sums.normalized += own.d * own.normalized;
  }
  const float count = static_cast<float>(end - begin);
  return {BlockSum(sums.d, shared) / count, BlockSum(sums.normalized, shared) / count};
}

struct Moments {
  float mean, rstd;
};

FASTRNN_DEVICE Moments MomentsOf(const float* values, int begin, int end, float* shared) {
  const float count = static_cast<float>(end - begin);
  const float mean = RowSum(begin, end, shared, [&](int j) { return values[j]; }) / count;
  const float squares = RowSum(begin, end, shared, [&](int j) {
    const float distance = values[j] - mean;
    return distance * distance;
  });
  // Not the quotient of 1, which hides a variance that overflows: this one is NaN then.
  const float variance = squares / count + kNormEpsilon;
  return {mean, sqrtf(variance) / variance};
}

// ---- forward ------------------------------------------------------------------------------------

// This and the next ones are launched with NormBlocks(rows) blocks of kNormThreads.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    NormalizeKernel(const NormalizedRows<T> p, const GateRow of, int batch) {
  FASTRNN_SHARED(float, shared, kNormThreads);
  ForRows(p.rows, [&](int row) {
    const bool active = p.lengths == nullptr || p.time + row / batch < p.lengths[row % batch];
    const size_t at = static_cast<size_t>(row) * of.gates;
    float* const values = p.products + at;
    for (int part = 0; part < of.parts(); ++part) {
      const Moments moments = MomentsOf(values, of.begin(part), of.end(part), shared);
      for (int j = of.begin(part) + Thread(); j < of.end(part); j += kNormThreads) {
        const float normalized = active ? (values[j] - moments.mean) * moments.rstd : 0.0f;
        if (p.normalized != nullptr) p.normalized[at + j] = FromFloat<T>(normalized);
        values[j] = ToFloat(p.gamma[j]) * normalized;
      }
      if (p.rstd != nullptr && Thread() == 0) {
        p.rstd[static_cast<size_t>(row) * of.parts() + part] = active ? moments.rstd : 0.0f;
      }
    }
  });
}

// The output of an LSTM, after its cells (NormalizedLstmCell) have left o in h.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    NormalizedOutputKernel(const ForwardStep<T> p, const T* gamma, const T* beta) {
  FASTRNN_SHARED(float, shared, kNormThreads);
  ForRows(p.rows, [&](int row) {
    if (p.lengths != nullptr && p.time >= p.lengths[row]) return;
    const float* const c = p.c + static_cast<size_t>(row) * p.hidden;
    const Moments moments = MomentsOf(c, 0, p.hidden, shared);
    if (p.c_moments != nullptr && Thread() == 0) {
      p.c_moments[2 * static_cast<size_t>(row)] = moments.mean;
      p.c_moments[2 * static_cast<size_t>(row) + 1] = moments.rstd;
    }
    for (int unit = Thread(); unit < p.hidden; unit += kNormThreads) {
      const Place at = {row, unit, p.hidden};
      const float seen_c =
          ToFloat(gamma[unit]) * ((c[unit] - moments.mean) * moments.rstd) + ToFloat(beta[unit]);
      const T h = FromFloat<T>(NormalizedLstmCell::Output(ToFloat(p.h[at.state()]), seen_c));
      p.h[at.state()] = h;
      p.y[at.strided(p.y_stride)] = h;
    }
  });
}

// ---- backward -----------------------------------------------------------------------------------

// What a unit of an LSTM's row has to do with the normalisation of c.
struct SeenC {
  float normalized, gamma;
  NormalizedLstmCell::OutputGradients<float> d;
};
template <class T>
FASTRNN_DEVICE SeenC SeeC(const BackwardStep<T>& p, Place at, const T* gamma, const T* beta,
                          float dh) {
  const float* const moments = p.c_moments + 2 * static_cast<size_t>(at.row);
  const float normalized = (p.c[at.state()] - moments[0]) * moments[1];
  const float g = ToFloat(gamma[at.unit]);
  const float o = ToFloat(p.gates[at.template gate<LstmCell::kGates>(3)]);
  const float total = ToFloat(p.dy[at.strided(p.y_stride)]) + dh;
  return {normalized, g,
          NormalizedLstmCell::OfOutput(o, g * normalized + ToFloat(beta[at.unit]), total)};
}

// Computes a unit, given the row's means.
template <class T>
FASTRNN_DEVICE void NormalizedUnit(const BackwardStep<T>& p, Place at, Presence present,
                                   const T* gamma, const T* beta, Along means) {
  const float dh = p.dh_n != nullptr ? ToFloat(p.dh_n[at.state()]) : p.dh[at.state()];
  float dc = p.dc_n != nullptr ? ToFloat(p.dc_n[at.state()]) : p.dc[at.state()];
  GateGradients<LstmCell::kGates> d = {};
  float dc_gamma = 0.0f, dc_beta = 0.0f;
  if (present.active) {
    const SeenC seen_c = SeeC(p, at, gamma, beta, dh);
    const float rstd = p.c_moments[2 * static_cast<size_t>(at.row) + 1];
    const float through =
        seen_c.d.c * seen_c.gamma - means.d - seen_c.normalized * means.normalized;
    Seen<LstmCell::kGates> seen;
    LoadSeen<LstmCell>(p, at, present.first, &seen);
    dc = NormalizedLstmCell::OfCellState(seen, dc + rstd * through, &d);
    d.x[3] = seen_c.d.o;
    dc_beta = seen_c.d.c;
    dc_gamma = seen_c.d.c * seen_c.normalized;
  }
  if (p.dh_wanted) p.dh[at.state()] = present.active ? 0.0f : dh;
  p.dc[at.state()] = dc;
  if (p.dc_0 != nullptr) p.dc_0[at.state()] = FromFloat<T>(dc);
  p.dc_gamma[at.state()] = FromFloat<T>(dc_gamma);
  p.dc_beta[at.state()] = FromFloat<T>(dc_beta);
  StoreGradients<LstmCell>(p, at, present.first, d);
}

// The cells of a normalised LSTM.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    NormalizedLstmKernel(const BackwardStep<T> p, const T* gamma, const T* beta) {
  FASTRNN_SHARED(float, shared, kNormThreads);
  ForRows(p.rows, [&](int row) {
    const Presence present = PresenceOf(p, {row, 0, p.hidden});
    Along means = {0.0f, 0.0f};
    if (present.active) {  // All threads of the block have the same row.
      means = MeansAlong(0, p.hidden, shared, [&](int j) -> Along {
        const Place at = {row, j, p.hidden};
        const float dh = p.dh_n != nullptr ? ToFloat(p.dh_n[at.state()]) : p.dh[at.state()];
        const SeenC seen = SeeC(p, at, gamma, beta, dh);
        return {seen.d.c * seen.gamma, seen.normalized};
      });
    }
    for (int unit = Thread(); unit < p.hidden; unit += kNormThreads) {
      NormalizedUnit(p, {row, unit, p.hidden}, present, gamma, beta, means);
    }
  });
}

// The gradient of a row of gates; d and `to` may be the same. copy: a second result, or null.
template <class T>
FASTRNN_DEVICE void NormalizeGradientRow(const GateRow& of, const T* d, const T* gamma,
                                         const T* normalized, const float* rstd, T* to, T* copy,
                                         float* shared) {
  for (int part = 0; part < of.parts(); ++part) {
    const int begin = of.begin(part), end = of.end(part);
    const auto value = [&](int j) -> Along {
      return {ToFloat(d[j]) * ToFloat(gamma[j]), ToFloat(normalized[j])};
    };
    const Along means = MeansAlong(begin, end, shared, value);
    for (int j = begin + Thread(); j < end; j += kNormThreads) {
      const Along own = value(j);
      to[j] = FromFloat<T>(rstd[part] * (own.d - means.d - own.normalized * means.normalized));
      if (copy != nullptr) copy[j] = to[j];
    }
  }
}

// In a step: dgates_h from dshare_h.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    NormalizeStepGradientKernel(const BackwardStep<T> p, const GateRow of, const T* gamma) {
  FASTRNN_SHARED(float, shared, kNormThreads);
  ForRows(p.rows, [&](int row) {
    const size_t at = static_cast<size_t>(row) * of.gates;
    const bool first = PresenceOf(p, {row, 0, p.hidden}).first;
    NormalizeGradientRow(of, p.dshare_h + at, gamma, p.normalized_hidden + at,
                         p.hidden_rstd + static_cast<size_t>(row) * of.parts(), p.dgates_h + at,
                         first ? p.dgates_first + at : nullptr, shared);
  });
}

// Of a chunk's rows, in place.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    NormalizeGradientKernel(int rows, const GateRow of, const T* gamma, const T* normalized,
                            const float* rstd, T* dgates) {
  FASTRNN_SHARED(float, shared, kNormThreads);
  ForRows(rows, [&](int row) {
    const size_t at = static_cast<size_t>(row) * of.gates;
    NormalizeGradientRow(of, dgates + at, gamma, normalized + at,
                         rstd + static_cast<size_t>(row) * of.parts(), dgates + at,
                         static_cast<T*>(nullptr), shared);
  });
}

}  // namespace cuda
}  // namespace fastrnn
