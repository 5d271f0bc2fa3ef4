// One block per patch; neighbouring threads take neighbouring pixels of an image row.
#include <cuda_runtime.h>

#include "patch_select/patch_select.h"

namespace ecamp::patch_select {
namespace {

constexpr int kThreads = 256;

__global__ void select_kernel(const Params p) {
  const int64_t i = blockIdx.x, at = p.keep[i];
  const int64_t values = p.images.channels * p.patch * p.patch;
  const bool named = at >= 0 && at < p.patches;
  const int64_t top = at / p.across * p.patch, left = at % p.across * p.patch;
  for (int j = threadIdx.x; j < values; j += kThreads) {
    const int patch = static_cast<int>(p.patch);
    const int x = j % patch, y = j / patch % patch, c = j / (patch * patch);
    set(p.out, i * values + j,
        named ? value(p.images.in, pixel(p.images, i / p.kept, c, top + y, left + x)) : 0.0f);
  }
}

__global__ void spread_kernel(const Gradient g) {
  const int64_t i = blockIdx.x, at = g.keep[i];
  if (at < 0 || at >= g.patches) return;
  const int64_t values = g.channels * g.patch * g.patch;
  const int64_t top = at / g.across * g.patch, left = at % g.across * g.patch;
  for (int j = threadIdx.x; j < values; j += kThreads) {
    const int patch = static_cast<int>(g.patch);
    const int x = j % patch, y = j / patch % patch, c = j / (patch * patch);
    const int64_t plane = i / g.kept * g.channels + c;
    set(g.out, (plane * g.height + top + y) * g.width + left + x, value(g.grad, i * values + j));
  }
}

}  // namespace

int select_cuda(const Params& p, void* stream) {
  const int64_t count = p.images.batch * p.kept;
  if (count == 0 || p.images.channels == 0) return cudaSuccess;
  select_kernel<<<static_cast<unsigned>(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  return cudaGetLastError();
}

int spread_cuda(const Gradient& g, void* stream) {
  const int64_t bytes =
      g.batch * g.channels * g.height * g.width * (g.out.type == Type::f32 ? 4 : 2);
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  const cudaError_t cleared = cudaMemsetAsync(g.out.data, 0, bytes, s);
  const int64_t count = g.batch * g.kept;
  if (cleared != cudaSuccess || count == 0 || g.channels == 0) return cleared;
  spread_kernel<<<static_cast<unsigned>(count), kThreads, 0, s>>>(g);
  return cudaGetLastError();
}

}  // namespace ecamp::patch_select
