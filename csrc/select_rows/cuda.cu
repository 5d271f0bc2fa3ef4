// One block walks the mask, 16,384 bytes per turn: each thread counts its 16 bytes, the block adds
// the counts up, and each thread writes after the threads before it. A batch of 256 x 256 is 4 turns.
#include <cuda_runtime.h>

#include "select_rows/select_rows.h"

namespace ecamp::select_rows {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kEach = 16;
constexpr unsigned kAll = 0xFFFFFFFFu;

__device__ int sum_up_to(int value) {  // over the lanes up to this one
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(kAll, value, offset);
    if (threadIdx.x % 32 >= static_cast<unsigned>(offset)) value += other;
  }
  return value;
}

__global__ void __launch_bounds__(kThreads)
    select_kernel(const uint8_t* mask, int64_t size, int64_t* out, int64_t count) {
  __shared__ int warp_sum[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t done = 0;
  for (int64_t start = 0; start < size; start += kThreads * kEach) {
    const int64_t own = start + threadIdx.x * kEach;
    unsigned bits = 0;
    for (int k = 0; k < kEach; ++k)
      if (own + k < size && mask[own + k] != 0) bits |= 1u << k;
    const int upto = sum_up_to(__popc(bits));
    if (lane == 31) warp_sum[warp] = upto;
    __syncthreads();
    if (warp == 0) warp_sum[lane] = sum_up_to(warp_sum[lane]);
    __syncthreads();
    int64_t place = done + upto - __popc(bits) + (warp > 0 ? warp_sum[warp - 1] : 0);
    for (; bits != 0; bits &= bits - 1, ++place)
      if (place < count) out[place] = own + __ffs(bits) - 1;
    done += warp_sum[kWarps - 1];
    __syncthreads();  // the next turn overwrites warp_sum
  }
  for (int64_t place = done + threadIdx.x; place < count; place += kThreads) out[place] = -1;
}

}  // namespace

int select_cuda(const uint8_t* mask, int64_t size, int64_t* out, int64_t count, void* stream) {
  if (count == 0) return cudaSuccess;
  select_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(mask, size, out, count);
  return cudaGetLastError();
}

}  // namespace ecamp::select_rows
