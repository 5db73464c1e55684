// Words that carry the round of their number, so that blocks exchange an array without flags.
//
// A word has 4 bytes: the number above, the tag below. TF32 leaves 13 bits of a float unused; a
// number of 16 bits fills the upper half. A block writes its words of a round and goes on. Readers
// load the words themselves until all have the round's tag: there is no fence, no flag, and no
// second trip for the numbers. In 16 bits, a round has twice the bytes.
//
// Why a reader sees a number: it is in the word whose tag the reader has seen. PTX's strong
// operations are single-copy atomic for scalars of up to 64 bits. A load of a vector is a load of
// each of its elements, in any order; so every element has a tag. Relaxed operations suffice, since
// nothing else is handed over.
//
// Why a buffer may be written again: rounds alternate between two buffers, and a block's word of
// round r + 2 is computed from all numbers of round r + 1. Those of another block are computed from
// all that this one has read in round r, its warps joined by the step's barriers. So no word of
// round r + 2 exists before each word of round r has been read by all. It is the numbers' own
// dependencies that order this, which PTX keeps also for relaxed operations (no value out of thin
// air), and not a release and an acquire, which would be fences again.
//
// Tags: a reader that waits for r finds r or an earlier round's tag there, r - 2 or the zero that
// the words have before the launch. Rounds count from 1 in every launch and never wrap around, for
// a launch has fewer steps than there are tags (persistent_launch.h).
#pragma once

#include "product_words.cuh"

namespace fastrnn {
namespace cuda {

template <class Math>
struct TaggedWords {
  using Value = typename Math::Value;
  static constexpr bool kIsTf32 = std::is_same<Math, Tf32Math>::value;
  static constexpr uint32_t kTagBits = kIsTf32 ? kMostTag : 0xffff;
  static constexpr int kSliceK = kSliceBytes / sizeof(Value);
  static constexpr int kVectors = kSliceK / 16;  // of 16 bytes, that a lane reads of a slice

  static FASTRNN_DEVICE uint32_t Word(float value, unsigned tag) {
    if constexpr (kIsTf32) {
      return (__float_as_uint(ForExchange<Math>(value)) & ~kTagBits) | tag;
    } else {
      return cuda::Word(FromFloat<Value>(0.0f), ForExchange<Math>(value)) | tag;
    }
  }

  // The index of number k along K, of a row of the batch; rows: of the array. A row's part of a
  // slice is [kVectors][lanes of the row][4].
  static FASTRNN_DEVICE int Index(int k, int row, int rows) {
    const int of_slice = k % kSliceK, vector = of_slice / 4 % kVectors;
    const int lane = of_slice / (4 * kVectors);
    return (k / kSliceK * rows + row) * kSliceK + vector * 16 + lane * 4 + k % 4;
  }

  // A lane's numbers of a slice, in the words that product.cuh multiplies. Bits of *wrong are set
  // where tags differ.
  static FASTRNN_DEVICE uint4 Unpack(const uint4 (&words)[kVectors], unsigned tag,
                                     uint32_t* wrong) {
    uint32_t differs = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const uint4 w = words[v];
      differs |= (w.x ^ tag) | (w.y ^ tag) | (w.z ^ tag) | (w.w ^ tag);
    }
    *wrong |= differs & kTagBits;
    if constexpr (kIsTf32) {
      const uint4 w = words[0];
      return make_uint4(w.x & ~kTagBits, w.y & ~kTagBits, w.z & ~kTagBits, w.w & ~kTagBits);
    } else {
      const uint4 a = words[0], b = words[1];
      return make_uint4(Pair(a.x, a.y), Pair(a.z, a.w), Pair(b.x, b.y), Pair(b.z, b.w));
    }
  }

 private:
  static FASTRNN_DEVICE uint32_t Pair(uint32_t first, uint32_t second) {
    return first >> 16 | (second & 0xffff0000);
  }
};

}  // namespace cuda
}  // namespace fastrnn
