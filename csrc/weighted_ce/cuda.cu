// One block per row, two passes: maximum and sum together, then the gradient over the logits. The
// second pass finds most of the row in a cache.
#include <cuda_runtime.h>

#include "weighted_ce/weighted_ce.h"

namespace ecamp::weighted_ce {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xFFFFFFFFu;
constexpr float kLowest = -3.402823466e38f;  // not minus infinity: differences stay numbers

struct Sum {
  float top, sum;  // sum of exp(x - top)
};

__device__ Sum join(Sum a, Sum b) {
  const float top = fmaxf(a.top, b.top);
  return {top, a.sum * fast_exp(a.top - top) + b.sum * fast_exp(b.top - top)};
}

// The same value in every thread, joined in a fixed order.
__device__ Sum join_block(Sum own) {
  __shared__ Sum part[kWarps];
  for (int offset = 16; offset > 0; offset /= 2)
    own = join(own, {__shfl_xor_sync(kAll, own.top, offset), __shfl_xor_sync(kAll, own.sum, offset)});
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = own;
  __syncthreads();
  Sum all = part[0];
  for (int i = 1; i < kWarps; ++i) all = join(all, part[i]);
  return all;
}

// kWidth elements read or written at once where rows are aligned.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T at[kWidth];
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) ce_kernel(const Params p) {
  using Vector = Pack<T, kWidth>;
  const int64_t row = blockIdx.x, packs = p.vocabulary / kWidth;
  T* logits = static_cast<T*>(p.logits) + row * p.stride;
  const T* bias = static_cast<const T*>(p.bias);
  Vector* wide = reinterpret_cast<Vector*>(logits);
  const int64_t label = p.labels[row];
  const bool valid = label >= 0 && label < p.vocabulary;
  const float target =
      valid ? to_float(logits[label]) + (bias == nullptr ? 0.0f : to_float(bias[label])) : 0.0f;

  Sum own{kLowest, 0.0f};
  for (int64_t i = threadIdx.x; i < packs; i += kThreads) {
    const Vector v = wide[i];
    float x[kWidth], top = own.top;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      x[k] = to_float(v.at[k]) + (bias == nullptr ? 0.0f : to_float(bias[i * kWidth + k]));
      top = fmaxf(top, x[k]);
    }
    own.sum *= fast_exp(own.top - top);
    own.top = top;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) own.sum += fast_exp(x[k] - top);
  }
  for (int64_t i = packs * kWidth + threadIdx.x; i < p.vocabulary; i += kThreads) {
    const float x = to_float(logits[i]) + (bias == nullptr ? 0.0f : to_float(bias[i]));
    own = join(own, {x, 1.0f});
  }
  const Sum all = join_block(own);  // also: every thread has read its target
  if (threadIdx.x == 0) p.losses[row] = valid ? logf(all.sum) + (all.top - target) : 0.0f;
  if (!p.gradient) return;

  const float weight = valid ? p.weights[row] * p.scale : 0.0f, factor = weight / all.sum;
  for (int64_t i = threadIdx.x; i < packs; i += kThreads) {
    const Vector v = wide[i];
    Vector out;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const int64_t at = i * kWidth + k;
      const float x = to_float(v.at[k]) + (bias == nullptr ? 0.0f : to_float(bias[at]));
      const float d = valid ? fast_exp(x - all.top) * factor : 0.0f;
      store(out.at[k], at == label ? d - weight : d);
    }
    wide[i] = out;
  }
  for (int64_t i = packs * kWidth + threadIdx.x; i < p.vocabulary; i += kThreads) {
    const float x = to_float(logits[i]) + (bias == nullptr ? 0.0f : to_float(bias[i]));
    const float d = valid ? fast_exp(x - all.top) * factor : 0.0f;
    store(logits[i], i == label ? d - weight : d);
  }
}

template <class T>
int launch(const Params& p, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool aligned = reinterpret_cast<uintptr_t>(p.logits) % 16 == 0 && p.stride % kWidth == 0;
  const unsigned blocks = static_cast<unsigned>(p.rows);
  if (aligned)
    ce_kernel<T, kWidth><<<blocks, kThreads, 0, stream>>>(p);
  else
    ce_kernel<T, 1><<<blocks, kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace

int ce_cuda(const Params& params, void* stream) {
  if (params.rows == 0) return cudaSuccess;
  return with_type(params.type, [&](auto zero) {
    return launch<decltype(zero)>(params, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace ecamp::weighted_ce
