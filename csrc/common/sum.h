// Sums whose order is fixed and whose loop compilers vectorise: 32 partial sums, then a tree. The
// same bits in every lane and for every number of threads.
#pragma once

#include <cstdint>

namespace ecamp {

constexpr int kWays = 32;

static inline float tree(float (&part)[kWays]) {
  for (int half = kWays / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}

// Sum of term(j) over j in [0, n).
template <class Term>
static inline float sum_of(int64_t n, Term term) {
  float part[kWays] = {};
  int64_t j = 0;
  for (; j + kWays <= n; j += kWays)
    for (int i = 0; i < kWays; ++i) part[i] += term(j + i);
  for (int i = 0; j < n; ++i, ++j) part[i] += term(j);
  return tree(part);
}

}  // namespace ecamp
