// One block per strip of 16 rows; neighbouring threads take neighbouring pixels.
#include <cuda_runtime.h>

#include "common/block.cuh"
#include "window_mse/window_mse.h"

namespace ecamp::window_mse {
namespace {

constexpr int kThreads = 256, kFinishThreads = 1024;

__device__ int64_t last_row(const Params& p, int64_t first) {
  return first + kStrip < p.height ? first + kStrip : p.height;
}

__global__ void forward_kernel(const Params p) {
  __shared__ float warps[kWarp];
  const int64_t plane = blockIdx.x / p.strips, first = blockIdx.x % p.strips * kStrip;
  float sum = 0.0f;
  for (int64_t y = first; y < last_row(p, first); ++y) {
    const int64_t from = start(p, plane, y), at = (plane * p.height + y) * p.width;
    for (int64_t x = threadIdx.x; x < p.width; x += kThreads) {
      const float d = value(p.predicted, at + x) - value(p.images.in, from + x);
      sum += d * d;
    }
  }
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) p.error[blockIdx.x] = sum;
}

// One block: every thread adds its part in order, then the block does.
__global__ void finish_kernel(const Params p, int64_t strips, double values) {
  __shared__ double warps[kWarp];
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < strips; i += kFinishThreads) sum += p.error[i];
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) *p.loss = static_cast<float>(sum / values);
}

__global__ void backward_kernel(const Params p, In grad, Out out, float values) {
  const int64_t plane = blockIdx.x / p.strips, first = blockIdx.x % p.strips * kStrip;
  const float scale = 2.0f * value(grad, 0) / values;
  for (int64_t y = first; y < last_row(p, first); ++y) {
    const int64_t from = start(p, plane, y), at = (plane * p.height + y) * p.width;
    for (int64_t x = threadIdx.x; x < p.width; x += kThreads)
      set(out, at + x, (value(p.predicted, at + x) - value(p.images.in, from + x)) * scale);
  }
}

int64_t planes(const Params& p) { return p.images.batch * p.images.channels; }

}  // namespace

int forward_cuda(const Params& p, void* stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  const int64_t strips = planes(p) * p.strips;
  if (strips > 0) forward_kernel<<<static_cast<unsigned>(strips), kThreads, 0, s>>>(p);
  finish_kernel<<<1, kFinishThreads, 0, s>>>(
      p, strips, static_cast<double>(planes(p) * p.height * p.width));
  return cudaGetLastError();
}

int backward_cuda(const Params& p, In grad, Out out, void* stream) {
  const int64_t strips = planes(p) * p.strips;
  if (strips == 0) return cudaSuccess;
  backward_kernel<<<static_cast<unsigned>(strips), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      p, grad, out, static_cast<float>(planes(p) * p.height * p.width));
  return cudaGetLastError();
}

}  // namespace ecamp::window_mse
