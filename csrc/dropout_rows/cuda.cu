// One thread draws one Philox block and writes its four columns.
#include <cuda_runtime.h>

#include "dropout_rows/dropout_rows.h"

namespace ecamp::dropout_rows {
namespace {

template <class T>
__global__ void drop_kernel(const Params p) {
  const int64_t blocks = (p.width + 3) / 4;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < p.rows * blocks; i += stride) {
    const int64_t row = i / blocks, block = i % blocks;
    const Philox draw = words(p, row, block);
    const T* in = static_cast<const T*>(p.in) + row * p.width;
    T* out = static_cast<T*>(p.out) + row * p.width;
    for (int k = 0; k < 4 && block * 4 + k < p.width; ++k) {
      const int64_t at = block * 4 + k;
      store(out[at], draw.word[k] >= p.limit ? to_float(in[at]) * p.scale : 0.0f);
    }
  }
}

}  // namespace

int drop_cuda(const Params& p, void* stream) {
  const int64_t work = p.rows * ((p.width + 3) / 4);
  if (work == 0) return cudaSuccess;
  const int64_t wanted = (work + 255) / 256;
  const unsigned grid = static_cast<unsigned>(wanted < 65535 ? wanted : 65535);
  with_type(p.type, [&](auto zero) {
    drop_kernel<decltype(zero)><<<grid, 256, 0, static_cast<cudaStream_t>(stream)>>>(p);
  });
  return cudaGetLastError();
}

}  // namespace ecamp::dropout_rows
