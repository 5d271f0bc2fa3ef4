// The three floating types of tensors as plain storage; kernels compute in float.
// Rounding is to nearest even and NaN stays NaN, as in torch.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/hostdevice.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ecamp {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

ECAMP_HD float to_float(float x) { return x; }

ECAMP_HD float to_float(BFloat16 x) {
  const uint32_t wide = static_cast<uint32_t>(x.bits) << 16;
#ifdef __CUDA_ARCH__
  return __uint_as_float(wide);
#else
  float out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
#endif
}

ECAMP_HD float to_float(Half x) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(x.bits));
#else
  _Float16 narrow;
  std::memcpy(&narrow, &x.bits, sizeof narrow);
  return static_cast<float>(narrow);
#endif
}

ECAMP_HD void store(float& out, float x) { out = x; }

ECAMP_HD void store(BFloat16& out, float x) {
#ifdef __CUDA_ARCH__
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  uint32_t wide;
  std::memcpy(&wide, &x, sizeof wide);
  const uint32_t rounded = (wide + 0x7FFFu + ((wide >> 16) & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(x != x ? 0x7FC0u : rounded);
#endif
}

ECAMP_HD void store(Half& out, float x) {
#if defined(__CUDACC__)
  out.bits = __half_as_ushort(__float2half_rn(x));
#else
  const _Float16 narrow = static_cast<_Float16>(x);
  std::memcpy(&out.bits, &narrow, sizeof narrow);
#endif
}

}  // namespace ecamp
