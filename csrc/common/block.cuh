// Sums over a block of threads in a fixed order, the same value for every thread.
#pragma once

namespace ecamp {

constexpr int kWarp = 32;

// `warps` holds 32 values in shared memory; the block has whole warps.
template <class T>
__device__ __forceinline__ T block_sum(T x, T* warps) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, x, offset);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (lane == 0) warps[warp] = x;
  __syncthreads();
  T total = lane < static_cast<int>(blockDim.x) / kWarp ? warps[lane] : T{0};
  for (int offset = kWarp / 2; offset > 0; offset /= 2) total += __shfl_xor_sync(kAll, total, offset);
  __syncthreads();  // `warps` may be written again
  return total;
}

}  // namespace ecamp
