// exp for float, written so that compilers vectorise loops over it, unlike the call of libm.
// Range reduction by log(2) in two parts and a degree-6 polynomial (Cephes expf); within 2 ulp.
// Below -87.3 it returns 0, also for minus infinity: softmax needs no more.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/hostdevice.h"

namespace ecamp {

constexpr float kExpMost = 88.3f, kExpLeast = -87.3f, kExpLog2e = 1.44269504088896341f;

// exp(x) / 2^whole, where whole is x / log(2) to the nearest whole number. T: float, or a vector of it
// (attention/product.h); how the nearest whole number is found differs between the two.
template <class T>
ECAMP_HD T exp_fraction(T x, T whole) {
  const T r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  T p = T{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * r * r + r + 1.0f;
}

ECAMP_HD float fast_exp(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  const float clamped = x > kExpMost ? kExpMost : (x < kExpLeast ? kExpLeast : x);
  // Adding 1.5 * 2^23 rounds to the nearest whole number, which is then in the low bits. A
  // rounding with a condition would be split by the compiler into branches, and not vectorise.
  const float shifted = clamped * kExpLog2e + 12582912.0f;
  int32_t n;
  std::memcpy(&n, &shifted, sizeof n);
  n -= 0x4B400000;
  const float p = exp_fraction(clamped, shifted - 12582912.0f);
  const int32_t bits = (n + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return x < kExpLeast ? 0.0f : p * power;
#endif
}

}  // namespace ecamp
