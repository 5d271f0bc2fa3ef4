// Dropout of one query's probabilities over all its keys, several Philox counters a vector. The same
// words as common/philox.h gives; tests compare both through the reference.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "attention/attention.h"
#include "attention/product.h"

namespace ecamp::attention {
namespace {  // one copy a lane

// Each 64-bit element holds one 32-bit word of a counter; the upper half may hold anything.
constexpr int kCounters = kLanes / 2;
constexpr int kDrawn = 4 * kCounters;  // keys that one vector of counters decides
typedef uint64_t Wide __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));

// Products of the lower halves. The compiler does not find the instruction by itself.
inline Wide low_product(Wide a, Wide b) {
#if defined(__AVX512F__)
  return (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);  // gcc warns of the plain one
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

// keep[j] = keep_scale where key j is kept for this query, 0 where it is dropped; `count` is a
// multiple of kDrawn, limit is above 0.
void decide(const Params& p, int64_t query, int64_t head, int64_t sample, int64_t count,
            float* keep) {
  const Wide zero{}, low = zero + 0xFFFFFFFFu;
  const Wide m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
  const Words last = Words{} + static_cast<uint32_t>(p.limit - 1);  // limit may be 2^32
  const Words kept = reinterpret_cast<Words>(Vec{} + p.keep_scale);
  Wide first = zero;
  for (int i = 0; i < kCounters; ++i) first[i] = static_cast<uint64_t>(i);
  const uint64_t tag = static_cast<uint64_t>(head) << 16;
  for (int64_t j = 0; j < count; j += kDrawn) {
    Wide c0 = zero + static_cast<uint32_t>(query);
    Wide c1 = (first + static_cast<uint64_t>(j / 4)) | tag;
    Wide c2 = zero + static_cast<uint32_t>(sample);
    Wide c3 = zero + p.step;
    uint32_t k0 = static_cast<uint32_t>(p.seed), k1 = static_cast<uint32_t>(p.seed >> 32);
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
      save(keep + j + i * kLanes,
           reinterpret_cast<Vec>(reinterpret_cast<Words>(word[i] > last) & kept));
  }
}

}  // namespace
}  // namespace ecamp::attention
