// One block per patch. Pixels are read again for mean, variance and error: a patch fits the L1 cache.
#include <cuda_runtime.h>

#include "common/block.cuh"
#include "masked_mse/masked_mse.h"

namespace ecamp::masked_mse {
namespace {

constexpr int kThreads = 256, kFinishThreads = 1024;

// Value j (row, column, channel) of the true patch whose corner of channel 0 is `first`.
__device__ float truth(const Params& p, int64_t first, int j) {
  const int channels = static_cast<int>(p.images.channels), patch = static_cast<int>(p.patch);
  const int c = j % channels, x = j / channels % patch, y = j / channels / patch;
  return value(p.images.in, first + c * p.images.by_channel + y * p.images.by_row + x);
}

__global__ void forward_kernel(const Params p) {
  __shared__ float warps[kWarp];
  const int64_t i = blockIdx.x, first = corner(p, i, 0);
  const int n = static_cast<int>(p.values);
  float mean = 0.0f, rstd = 1.0f, error = 0.0f;
  if (p.mask[i]) {
    if (p.normalise) {
      float sum = 0.0f, squares = 0.0f;
      for (int j = threadIdx.x; j < n; j += kThreads) sum += truth(p, first, j);
      mean = block_sum(sum, warps) / static_cast<float>(n);
      for (int j = threadIdx.x; j < n; j += kThreads) {
        const float d = truth(p, first, j) - mean;
        squares += d * d;
      }
      rstd = 1.0f / sqrtf(block_sum(squares, warps) / static_cast<float>(n - 1) + kEpsilon);
    }
    for (int j = threadIdx.x; j < n; j += kThreads) {
      const float d = value(p.predicted, i * n + j) - (truth(p, first, j) - mean) * rstd;
      error += d * d;
    }
    error = block_sum(error, warps);
  }
  if (threadIdx.x != 0) return;
  p.error[i] = error;
  p.mean[i] = mean;
  p.rstd[i] = rstd;
}

// One block: every thread adds its part in order, then the block does.
__global__ void finish_kernel(const Params p, int64_t total) {
  __shared__ double warps[kWarp];
  double sum = 0.0, count = 0.0;
  for (int64_t i = threadIdx.x; i < total; i += kFinishThreads) {
    sum += p.error[i];
    count += p.mask[i] ? 1.0 : 0.0;
  }
  sum = block_sum(sum, warps);
  count = block_sum(count, warps);
  if (threadIdx.x != 0) return;
  *p.count = static_cast<float>(count > 1.0 ? count : 1.0);
  *p.loss = count > 0.0 ? static_cast<float>(sum / (count * static_cast<double>(p.values))) : 0.0f;
}

__global__ void backward_kernel(const Params p, In grad, Out out) {
  const int64_t i = blockIdx.x, first = corner(p, i, 0);
  const int n = static_cast<int>(p.values);
  const bool masked = p.mask[i];
  const float mean = p.mean[i], rstd = p.rstd[i];
  const float scale = 2.0f * value(grad, 0) / (*p.count * static_cast<float>(p.values));
  for (int j = threadIdx.x; j < n; j += kThreads) {
    float d = 0.0f;
    if (masked) d = (value(p.predicted, i * n + j) - (truth(p, first, j) - mean) * rstd) * scale;
    set(out, i * n + j, d);
  }
}

}  // namespace

int forward_cuda(const Params& p, void* stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  const int64_t total = p.images.batch * p.patches;
  if (total > 0) forward_kernel<<<static_cast<unsigned>(total), kThreads, 0, s>>>(p);
  finish_kernel<<<1, kFinishThreads, 0, s>>>(p, total);
  return cudaGetLastError();
}

int backward_cuda(const Params& p, In grad, Out out, void* stream) {
  const int64_t total = p.images.batch * p.patches;
  if (total == 0) return cudaSuccess;
  backward_kernel<<<static_cast<unsigned>(total), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      p, grad, out);
  return cudaGetLastError();
}

}  // namespace ecamp::masked_mse
