// One warp per row, copied in the largest unit that addresses and row length allow.
#include <cuda_runtime.h>

#include "rows/rows.h"

namespace ecamp::rows {
namespace {

constexpr int kWarp = 32, kRowsABlock = 8;

// gather: row r of the result from index[r]; scatter: row r of x to index[r].
template <class Unit>
__global__ void copy_kernel(const Params p, bool scatter) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kRowsABlock + threadIdx.y;
  if (r >= (scatter ? p.rows_in : p.rows_out)) return;
  const int64_t units = p.bytes / static_cast<int64_t>(sizeof(Unit)), at = p.index[r];
  const bool named = at >= 0 && at < (scatter ? p.rows_out : p.rows_in);
  if (scatter && !named) return;
  const Unit* from = reinterpret_cast<const Unit*>(p.x) + (scatter ? r : at) * units;
  Unit* to = reinterpret_cast<Unit*>(p.out) + (scatter ? at : r) * units;
  for (int64_t i = threadIdx.x; i < units; i += kWarp) to[i] = named ? from[i] : Unit{};
}

template <class Unit>
bool fits(const Params& p) {
  const uintptr_t all = reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.out) |
                        static_cast<uintptr_t>(p.bytes);
  return all % sizeof(Unit) == 0;
}

int launch(const Params& p, bool scatter, void* stream) {
  const int64_t rows = scatter ? p.rows_in : p.rows_out;
  if (rows == 0 || p.bytes == 0) return cudaSuccess;
  const dim3 threads(kWarp, kRowsABlock);
  const unsigned blocks = static_cast<unsigned>((rows + kRowsABlock - 1) / kRowsABlock);
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  if (fits<uint4>(p)) copy_kernel<uint4><<<blocks, threads, 0, s>>>(p, scatter);
  else if (fits<uint16_t>(p)) copy_kernel<uint16_t><<<blocks, threads, 0, s>>>(p, scatter);
  else copy_kernel<uint8_t><<<blocks, threads, 0, s>>>(p, scatter);
  return cudaGetLastError();
}

}  // namespace

int gather_cuda(const Params& p, void* stream) { return launch(p, false, stream); }

int scatter_cuda(const Params& p, void* stream) {
  const cudaError_t cleared =
      cudaMemsetAsync(p.out, 0, p.rows_out * p.bytes, static_cast<cudaStream_t>(stream));
  return cleared == cudaSuccess ? launch(p, true, stream) : cleared;
}

}  // namespace ecamp::rows
