// The rounds of Philox (random.h) on vectors. philox.cc includes this once for each instruction
// set, in a namespace of its own, with
//   FASTRNN_LANES     the 64-bit numbers of a vector
//   FASTRNN_TARGET    the attribute of functions that use the instruction set
//   FASTRNN_PRODUCT   multiplies the low halves of two vectors' 64-bit numbers: the compiler uses
//                     three products for the whole numbers, whatever it knows of the high halves
// Every lane computes one counter, its words in the low halves. (No guard: it is included more than
// once.)

typedef uint64_t Lanes __attribute__((vector_size(8 * FASTRNN_LANES)));
typedef uint32_t Halves __attribute__((vector_size(8 * FASTRNN_LANES)));

struct Words {
  Lanes words[4];
};

FASTRNN_TARGET FASTRNN_INLINE Lanes Filled(uint64_t value) { return Lanes{} + value; }

// From the counter's words, the first of them in lanes.
FASTRNN_TARGET FASTRNN_INLINE Words Rounds(const Key& key, Lanes first, const Counter& counter) {
  const Lanes factor_a = Filled(kPhiloxFactorA), factor_b = Filled(kPhiloxFactorB);
  Lanes w0 = first, w1 = Filled(counter.words[1]);
  Lanes w2 = Filled(counter.words[2]), w3 = Filled(counter.words[3]);
  uint32_t low = key.low, high = key.high;
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const Lanes a = (Lanes)FASTRNN_PRODUCT(w0, factor_a), b = (Lanes)FASTRNN_PRODUCT(w2, factor_b);
    w0 = (b >> 32) ^ w1 ^ Filled(low);
    w2 = (a >> 32) ^ w3 ^ Filled(high);
    w1 = b;
    w3 = a;
    low += kPhiloxStepLow;
    high += kPhiloxStepHigh;
  }
  return {{w0, w1, w2, w3}};
}

// The low halves of both vectors.
FASTRNN_TARGET FASTRNN_INLINE Halves Joined(Lanes first, Lanes second) {
  Halves places;
  for (int i = 0; i < 2 * FASTRNN_LANES; ++i) places[i] = static_cast<uint32_t>(2 * i);
  return __builtin_shuffle((Halves)first, (Halves)second, places);
}

FASTRNN_TARGET inline void Draw(const Key& key, const Counter& counter, int64_t groups,
                                uint32_t* words) {
  Lanes lane;
  for (int i = 0; i < FASTRNN_LANES; ++i) lane[i] = static_cast<uint64_t>(i);
  for (int64_t group = 0; group < groups; ++group, words += kUnitsOfGroup) {
    for (int unit = 0; unit < kUnitsOfWord; unit += 2 * FASTRNN_LANES) {
      const uint64_t block = counter.words[0] + static_cast<uint64_t>(group * kUnitsOfWord + unit);
      const Words first = Rounds(key, lane + block, counter);
      const Words second = Rounds(key, lane + (block + FASTRNN_LANES), counter);
#pragma GCC unroll 4
      for (int w = 0; w < 4; ++w) {
        const Halves joined = Joined(first.words[w], second.words[w]);
        std::memcpy(words + w * kUnitsOfWord + unit, &joined, sizeof joined);
      }
    }
  }
}
