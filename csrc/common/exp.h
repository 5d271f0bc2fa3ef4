// exp for float, written so that compilers vectorise loops over it; the libm call they do not.
// Range reduction by log(2) in two parts and a degree-6 polynomial (Cephes expf); within 2 ulp.
// Below -87.3 it returns 0, also for minus infinity: softmax needs no more.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/hostdevice.h"

namespace ecamp {

ECAMP_HD float fast_exp(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  const float clamped = x > 88.3f ? 88.3f : (x < -87.3f ? -87.3f : x);
  // Adding 1.5 * 2^23 rounds to the nearest whole number, which then stands in the low bits. A
  // rounding with a condition would be split by the compiler into branches, and not vectorise.
  const float shifted = clamped * 1.44269504088896341f + 12582912.0f;
  int32_t n;
  std::memcpy(&n, &shifted, sizeof n);
  n -= 0x4B400000;
  const float whole = shifted - 12582912.0f;
  const float r = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (n + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return x < -87.3f ? 0.0f : p * power;
#endif
}

}  // namespace ecamp
