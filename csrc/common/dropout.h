// Dropout of a row's columns on the host, several Philox counters per vector. The words are those of
// philox.h; tests compare both through the references. Why: docs/decisions.md#dropout-draws-in-whole-registers.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "common/vector.h"

namespace ecamp {
namespace {  // one copy per lane

// Each 64-bit element holds one 32-bit word of a counter; the upper half may hold anything.
constexpr int kCounters = kLanes / 2;
constexpr int kDrawn = 4 * kCounters;  // columns decided by one vector of counters
typedef uint64_t Wide __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));

// Products of the lower halves. The compiler does not select the instruction by itself.
inline Wide low_product(Wide a, Wide b) {
#if defined(__AVX512F__)
  return (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);  // gcc warns about the unmasked one
#elif defined(__AVX2__)
  return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// Elements a0 b0 a1 b1 ... of the lower or upper halves.
inline Wide interleave_low(Wide a, Wide b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#else
  return __builtin_shufflevector(a, b, 0, 2);
#endif
}
inline Wide interleave_high(Wide a, Wide b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
  return __builtin_shufflevector(a, b, 1, 3);
#endif
}

// Key of the draws, and their effect: columns 4 * i .. 4 * i + 3 of a row draw the four words of the
// counter (c0, c1 | i, c2, c3) under `seed`; one below `limit` drops its column.
struct Dropout {
  uint32_t c0, c1, c2, c3;
  uint64_t seed, limit;  // limit: the probability times 2^32, up to 2^32 itself
  float scale;           // factor of kept values
};

// factor[j] = scale where column j is kept, 0 where it is dropped; `count` is a multiple of kDrawn.
void draw_factors(const Dropout& d, int64_t count, float* factor) {
  const Wide zero{}, low = zero + 0xFFFFFFFFu;
  const Wide m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
  const Words last = Words{} + static_cast<uint32_t>(d.limit - 1);  // limit may be 2^32
  const Words kept = reinterpret_cast<Words>(Vec{} + d.scale);
  const Words all = Words{} - (d.limit == 0 ? 1u : 0u);
  Wide first = zero;
  for (int i = 0; i < kCounters; ++i) first[i] = static_cast<uint64_t>(i);
  for (int64_t j = 0; j < count; j += kDrawn) {
    Wide c0 = zero + d.c0;
    Wide c1 = (first + static_cast<uint64_t>(j / 4)) | static_cast<uint64_t>(d.c1);
    Wide c2 = zero + d.c2;
    Wide c3 = zero + d.c3;
    uint32_t k0 = static_cast<uint32_t>(d.seed), k1 = static_cast<uint32_t>(d.seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Wide p0 = low_product(c0, m0), p1 = low_product(c2, m1);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const Wide front = (c0 & low) | (c1 << 32), back = (c2 & low) | (c3 << 32);
    const Words word[2] = {reinterpret_cast<Words>(interleave_low(front, back)),
                           reinterpret_cast<Words>(interleave_high(front, back))};
    for (int i = 0; i < 2; ++i)
      save(factor + j + i * kLanes,
           reinterpret_cast<Vec>((reinterpret_cast<Words>(word[i] > last) | all) & kept));
  }
}

}  // namespace
}  // namespace ecamp
