// One block per row, one thread per four columns (one Philox draw): the row stays in registers, and mean and
// variance are two sums over the block.
#include <cuda_runtime.h>

#include "common/block.cuh"
#include "residual_norm/residual_norm.h"

namespace ecamp::residual_norm {
namespace {

// Four values from `at` on, or as many as `count` allows. `whole`: aligned, and all four are there.
__device__ void load4(const In& in, int64_t at, int count, bool whole, float (&out)[4]) {
  if (!whole) {
    for (int i = 0; i < 4; ++i) out[i] = i < count ? value(in, at + i) : 0.0f;
  } else if (in.type == Type::f32) {
    const float4 v = *reinterpret_cast<const float4*>(cells<float>(in, at));
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  } else {
    const ushort4 v = *reinterpret_cast<const ushort4*>(cells<uint16_t>(in, at));
    const bool half = in.type == Type::f16;
    out[0] = half ? to_float(Half{v.x}) : to_float(BFloat16{v.x});
    out[1] = half ? to_float(Half{v.y}) : to_float(BFloat16{v.y});
    out[2] = half ? to_float(Half{v.z}) : to_float(BFloat16{v.z});
    out[3] = half ? to_float(Half{v.w}) : to_float(BFloat16{v.w});
  }
}

__device__ uint16_t narrow(float x, bool half) {
  Half h{};
  BFloat16 b{};
  if (half) store(h, x);
  else store(b, x);
  return half ? h.bits : b.bits;
}

__device__ void store4(const Out& out, int64_t at, int count, bool whole, const float (&x)[4]) {
  if (!whole) {
    for (int i = 0; i < 4; ++i)
      if (i < count) set(out, at + i, x[i]);
  } else if (out.type == Type::f32) {
    *reinterpret_cast<float4*>(cells<float>(out, at)) = make_float4(x[0], x[1], x[2], x[3]);
  } else {
    const bool half = out.type == Type::f16;
    *reinterpret_cast<ushort4*>(cells<uint16_t>(out, at)) = make_ushort4(
        narrow(x[0], half), narrow(x[1], half), narrow(x[2], half), narrow(x[3], half));
  }
}

// z = dropout(x + bias) + residual of this thread's columns; `factor` is that of dropout.
__device__ void add_up(const Params& p, int64_t t, int column, int count, bool whole,
                       float (&z)[4], float (&factor)[4]) {
  float residual[4];
  load4(p.x, t * p.width + column, count, whole, z);
  load4(p.residual, t * p.width + column, count, whole, residual);
  if (p.row_bias.data != nullptr && p.row_batch[t] >= 0 && p.row_batch[t] < p.batch) {
    float bias[4];
    load4(p.row_bias, p.row_batch[t] * p.width + column, count, whole, bias);
    for (int i = 0; i < 4; ++i) z[i] += bias[i];
  }
  for (int i = 0; i < 4; ++i) factor[i] = 1.0f;
  if (p.limit > 0) {
    const Philox draw = philox(static_cast<uint32_t>(p.positions[t]), column / 4,
                               static_cast<uint32_t>(p.samples[t]), p.step, p.seed);
    for (int i = 0; i < 4; ++i) factor[i] = draw.word[i] >= p.limit ? p.scale : 0.0f;
  }
  for (int i = 0; i < 4; ++i) z[i] = z[i] * factor[i] + residual[i];
}

__device__ int columns_of(const Params& p, int column) {
  const int64_t left = p.width - column;
  return left <= 0 ? 0 : (left < 4 ? static_cast<int>(left) : 4);
}

__global__ void forward_kernel(const Params p, bool whole) {
  __shared__ float warps[kWarp];
  const int64_t t = blockIdx.x;
  const int column = 4 * threadIdx.x, count = columns_of(p, column);
  whole = whole && count == 4;
  float z[4] = {}, factor[4], gamma[4], beta[4];
  if (count > 0) add_up(p, t, column, count, whole, z, factor);
  const float n = static_cast<float>(p.width);
  const float mean = block_sum((z[0] + z[1]) + (z[2] + z[3]), warps) / n;
  float squares = 0.0f;
  for (int i = 0; i < 4; ++i) squares += i < count ? (z[i] - mean) * (z[i] - mean) : 0.0f;
  const float rstd = 1.0f / sqrtf(block_sum(squares, warps) / n + p.eps);
  if (threadIdx.x == 0) {
    p.mean[t] = mean;
    p.rstd[t] = rstd;
  }
  if (count == 0) return;
  load4(p.gamma, column, count, whole, gamma);
  load4(p.beta, column, count, whole, beta);
  for (int i = 0; i < 4; ++i) z[i] = (z[i] - mean) * rstd * gamma[i] + beta[i];
  store4(p.y, t * p.width + column, count, whole, z);
}

// kCudaBlock rows per block, one after another; dgamma and dbeta of its columns stay in registers.
__global__ void backward_kernel(const Params p, const Gradients g, bool whole) {
  __shared__ float warps[kWarp];
  const int column = 4 * threadIdx.x, count = columns_of(p, column);
  whole = whole && count == 4;
  float gamma[4] = {}, dgamma[4] = {}, dbeta[4] = {};
  if (count > 0) load4(p.gamma, column, count, whole, gamma);
  const float share = 1.0f / static_cast<float>(p.width);
  const int64_t first = blockIdx.x * kCudaBlock;
  const int64_t last = first + kCudaBlock < p.rows ? first + kCudaBlock : p.rows;
  for (int64_t t = first; t < last; ++t) {
    float z[4] = {}, factor[4] = {}, dy[4] = {};
    if (count > 0) {
      add_up(p, t, column, count, whole, z, factor);
      load4(g.grad, t * p.width + column, count, whole, dy);
    }
    const float mean = p.mean[t], rstd = p.rstd[t];
    float along_one = 0.0f, along_z = 0.0f;
    for (int i = 0; i < 4; ++i) {
      z[i] = (z[i] - mean) * rstd;
      dgamma[i] += dy[i] * z[i];
      dbeta[i] += dy[i];
      dy[i] *= gamma[i];  // zero beyond the row's end
      along_one += dy[i];
      along_z += dy[i] * z[i];
    }
    along_one = block_sum(along_one, warps) * share;
    along_z = block_sum(along_z, warps) * share;
    if (count == 0) continue;
    for (int i = 0; i < 4; ++i) dy[i] = (dy[i] - along_one - z[i] * along_z) * rstd;
    if (g.residual.data != nullptr) store4(g.residual, t * p.width + column, count, whole, dy);
    for (int i = 0; i < 4; ++i) dy[i] *= factor[i];
    store4(g.x, t * p.width + column, count, whole, dy);
  }
  for (int i = 0; i < count; ++i) {
    g.partial[2 * blockIdx.x * p.width + column + i] = dgamma[i];
    g.partial[(2 * static_cast<int64_t>(blockIdx.x) + 1) * p.width + column + i] = dbeta[i];
  }
}

constexpr int kColumns = 32, kStrips = 8;

// Blocks y = 0 and 1: dgamma and dbeta from their partial sums; y = 2 + b: dbias of sample b from
// the rows of dx that belong to it, found by a scan of row_batch. Strips are added in order.
__global__ void finish_kernel(const Params p, const Gradients g, int64_t blocks, Out dgamma,
                              Out dbeta, Out dbias) {
  __shared__ float strips[kStrips][kColumns];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  const int64_t target = blockIdx.y;
  float total = 0.0f;
  if (column < p.width && target < 2) {
    for (int64_t i = threadIdx.y; i < blocks; i += kStrips)
      total += g.partial[(2 * i + target) * p.width + column];
  } else if (column < p.width) {
    const In dx{g.x.data, g.x.type};
    for (int64_t t = threadIdx.y; t < p.rows; t += kStrips)
      if (p.row_batch[t] == target - 2) total += value(dx, t * p.width + column);
  }
  strips[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || column >= p.width) return;
  for (int s = 1; s < kStrips; ++s) total += strips[s][threadIdx.x];
  if (target == 0) set(dgamma, column, total);
  else if (target == 1) set(dbeta, column, total);
  else set(dbias, (target - 2) * p.width + column, total);
}

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

bool all_aligned(const Params& p) {
  return p.width % 4 == 0 && aligned(p.x.data) && aligned(p.residual.data) &&
         aligned(p.gamma.data) && aligned(p.row_bias.data);
}

unsigned threads_for(int64_t width) {
  return static_cast<unsigned>(((width + 3) / 4 + kWarp - 1) / kWarp * kWarp);
}

}  // namespace

int forward_cuda(const Params& p, void* stream) {
  if (p.rows == 0) return cudaSuccess;
  const bool whole = all_aligned(p) && aligned(p.beta.data) && aligned(p.y.data);
  forward_kernel<<<static_cast<unsigned>(p.rows), threads_for(p.width), 0,
                   static_cast<cudaStream_t>(stream)>>>(p, whole);
  return cudaGetLastError();
}

int backward_cuda(const Params& p, const Gradients& g, Out dgamma, Out dbeta, Out dbias,
                  void* stream) {
  const int64_t blocks = (p.rows + kCudaBlock - 1) / kCudaBlock;
  const bool whole = all_aligned(p) && aligned(g.grad.data) && aligned(g.x.data) &&
                     aligned(g.residual.data);
  if (blocks > 0)
    backward_kernel<<<static_cast<unsigned>(blocks), threads_for(p.width), 0,
                      static_cast<cudaStream_t>(stream)>>>(p, g, whole);
  const int64_t targets = 2 + (dbias.data == nullptr ? 0 : p.batch);
  if (targets > 65535) return cudaErrorInvalidConfiguration;
  const dim3 grid(static_cast<unsigned>((p.width + kColumns - 1) / kColumns),
                  static_cast<unsigned>(targets));
  finish_kernel<<<grid, dim3(kColumns, kStrips), 0, static_cast<cudaStream_t>(stream)>>>(
      p, g, blocks, dgamma, dbeta, dbias);
  return cudaGetLastError();
}

}  // namespace ecamp::residual_norm
