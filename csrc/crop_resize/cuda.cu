// One thread per pixel of the small image: it computes the pool x pool pixels of the large one, too.
#include <cuda_runtime.h>

#include "crop_resize/crop_resize.h"

namespace ecamp::crop_resize {
namespace {

constexpr int kThreads = 256;

__device__ float sample(const Params& p, const uint8_t* image, int64_t c, const Tap& y, const Tap& x) {
  const auto at = [&](int32_t row, int32_t column) {
    return static_cast<float>(image[(row * p.width + column) * p.channels + c]);
  };
  const float above = blend(at(y.first, x.first), at(y.first, x.second), x.weight);
  const float below = blend(at(y.second, x.first), at(y.second, x.second), x.weight);
  return blend(above, below, y.weight);
}

__global__ void crop_kernel(const Params p) {
  const int64_t few = p.size / p.pool, plane = few * few;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.batch * p.channels * plane) return;
  const int64_t c = i / plane % p.channels, b = i / plane / p.channels;
  const int64_t top = i % plane / few * p.pool, left = i % few * p.pool;
  const float* crop = p.crop + 4 * b;
  const uint8_t* image = p.images + b * p.height * p.width * p.channels;
  float* large = p.large + (b * p.channels + c) * p.size * p.size;
  // Columns first, as on the host: the same bits.
  float sum = 0.0f;
  for (int64_t dx = 0; dx < p.pool; ++dx) {
    const int64_t x = left + dx;
    const Tap across = tap(crop[0], crop[2], p.flip[b] ? p.size - 1 - x : x, p.size, p.width);
    float column = 0.0f;
    for (int64_t dy = 0; dy < p.pool; ++dy) {
      const Tap down = tap(crop[1], crop[3], top + dy, p.size, p.height);
      const float v = sample(p, image, c, down, across) * p.scale[c] + p.shift[c];
      large[(top + dy) * p.size + x] = v;
      column = dy == 0 ? v : column + v;
    }
    sum = dx == 0 ? column : sum + column;
  }
  if (p.pool > 1) p.small[i] = sum * (1.0f / static_cast<float>(p.pool * p.pool));
}

}  // namespace

int crop_cuda(const Params& p, void* stream) {
  const int64_t threads = p.batch * p.channels * (p.size / p.pool) * (p.size / p.pool);
  if (threads == 0) return cudaSuccess;
  crop_kernel<<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(p);
  return cudaGetLastError();
}

}  // namespace ecamp::crop_resize
