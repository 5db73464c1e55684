// The rounds of Philox (random.h), compiled for each instruction set (instruction_sets.h). Every
// lane computes one counter, its words in the low halves.

constexpr int kLanes = FASTRNN_BYTES / sizeof(uint64_t);
typedef uint64_t Lanes __attribute__((vector_size(FASTRNN_BYTES)));
typedef uint32_t Halves __attribute__((vector_size(FASTRNN_BYTES)));

// The products of the low halves of 64-bit numbers. The compiler would compute whole products, in
// three instructions, whatever it knows of the high halves.
FASTRNN_TARGET FASTRNN_INLINE Lanes Product(Lanes a, Lanes b) {
#if !defined(__x86_64__)
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#elif FASTRNN_BYTES == 16
  return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif FASTRNN_BYTES == 32
  return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  // With a mask of all lanes: GCC warns of what the other form leaves undefined.
  return (Lanes)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#endif
}

struct Words {
  Lanes words[4];
};

FASTRNN_TARGET FASTRNN_INLINE Lanes Filled(uint64_t value) { return Lanes{} + value; }

// From the counter's words, the first of them in lanes.
FASTRNN_TARGET FASTRNN_INLINE Words Rounds(const RoundKeys& keys, Lanes first,
                                           const Counter& counter) {
  const Lanes factor_a = Filled(kPhiloxFactorA), factor_b = Filled(kPhiloxFactorB);
  Lanes w0 = first, w1 = Filled(counter.words[1]);
  Lanes w2 = Filled(counter.words[2]), w3 = Filled(counter.words[3]);
#pragma GCC unroll 7
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const Lanes a = Product(w0, factor_a), b = Product(w2, factor_b);
    w0 = (b >> 32) ^ w1 ^ Filled(keys.low[round]);
    w2 = (a >> 32) ^ w3 ^ Filled(keys.high[round]);
    w1 = b;
    w3 = a;
  }
  return {{w0, w1, w2, w3}};
}

// The low halves of both vectors.
FASTRNN_TARGET FASTRNN_INLINE Halves Joined(Lanes first, Lanes second) {
  Halves places;
  for (int i = 0; i < 2 * kLanes; ++i) places[i] = static_cast<uint32_t>(2 * i);
  return __builtin_shuffle((Halves)first, (Halves)second, places);
}

FASTRNN_TARGET inline void Draw(const RoundKeys& keys, const Counter& counter, int64_t groups,
                                uint32_t* words) {
  Lanes lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<uint64_t>(i);
  const auto put = [](Lanes first, Lanes second, uint32_t* to) FASTRNN_TARGET {
    const Halves joined = Joined(first, second);
    std::memcpy(to, &joined, sizeof joined);
  };
  for (int64_t group = 0; group < groups; ++group, words += kUnitsOfGroup) {
    const Lanes block = lane + (counter.words[0] + static_cast<uint64_t>(group * kUnitsOfWord));
    if constexpr (kLanes == kUnitsOfWord) {
      const Words of = Rounds(keys, block, counter);
      put(of.words[0], of.words[1], words);
      put(of.words[2], of.words[3], words + 2 * kUnitsOfWord);
      continue;
    }
    for (int unit = 0; unit < kUnitsOfWord; unit += 2 * kLanes) {
      const uint64_t first = static_cast<uint64_t>(unit);
      const Words of = Rounds(keys, block + first, counter);
      const Words next = Rounds(keys, block + (first + kLanes), counter);
#pragma GCC unroll 4
      for (int w = 0; w < 4; ++w) put(of.words[w], next.words[w], words + w * kUnitsOfWord + unit);
    }
  }
}
