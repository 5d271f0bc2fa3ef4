// Flash-style without tensor cores: a warp owns a row, the other side passes through shared memory
// in tiles of 32 rows, one per lane. Scores take one dot product per lane; sums over the tile are
// kept in registers, kColumns per lane. No atomics: gradients of queries and of keys are two kernels.
#include <cuda_runtime.h>

#include "attention/attention.h"
#include "common/exp.h"

namespace ecamp::attention {
namespace {

constexpr int kWarp = 32, kWarps = 8, kThreads = kWarp * kWarps;
constexpr int kColumns = static_cast<int>(kMaxWidth) / kWarp;
constexpr unsigned kAll = 0xFFFFFFFFu;

struct Place {
  int b, head, first;  // first: the block's first row within its segment
};

// 32-bit division: a 64-bit one is a function call on a device.
__device__ Place place_of(const Params& p, unsigned blocks) {
  const unsigned pair = blockIdx.x / blocks, heads = static_cast<unsigned>(p.heads);
  return {static_cast<int>(pair / heads), static_cast<int>(pair % heads),
          static_cast<int>(blockIdx.x % blocks) * kWarps};
}

__device__ float sum(float x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, x, offset);
  return x;
}

__device__ float most(float x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(kAll, x, offset));
  return x;
}

template <class T>
__device__ const T* row_of(const View& view, int64_t row, int head) {
  return static_cast<const T*>(view.data) + row * view.row_stride + head * view.head_stride;
}

// One row to shared memory, by one warp.
template <class T>
__device__ void load_row(const View& view, int64_t row, int head, int width, float* to) {
  const T* from = row_of<T>(view, row, head);
  for (int i = threadIdx.x % kWarp; i < width; i += kWarp) to[i] = to_float(from[i]);
}

// Up to 32 rows to shared memory, by the block; rows lie width + 1 apart, so that 32 lanes that
// read 32 rows meet 32 banks. Missing rows are zero.
template <class T>
__device__ void load_tile(const View& view, int64_t start, int count, int head, int width,
                          float* to) {
  for (int i = threadIdx.x; i < kWarp * width; i += kThreads) {
    const int r = i / width, c = i % width;
    to[r * (width + 1) + c] = r < count ? to_float(row_of<T>(view, start + r, head)[c]) : 0.0f;
  }
}

__device__ float dot(const float* a, const float* b, int width) {
  float total = 0.0f;
  for (int i = 0; i < width; ++i) total = fmaf(a[i], b[i], total);
  return total;
}

// acc[i] += sum over the tile's rows of weight(row) * tile(row, lane + 32 i).
__device__ void accumulate(float weight, const float* tile, int width, float* acc) {
  const int lane = threadIdx.x % kWarp;
  for (int j = 0; j < kWarp; ++j) {
    const float w = __shfl_sync(kAll, weight, j);
#pragma unroll
    for (int i = 0; i < kColumns; ++i)
      if (lane + i * kWarp < width) acc[i] = fmaf(w, tile[j * (width + 1) + lane + i * kWarp], acc[i]);
  }
}

template <class T>
__device__ void write_row(const float* acc, const Params& p, void* data, int64_t row, int head,
                          float factor) {
  T* to = static_cast<T*>(data) + (row * p.heads + head) * p.width;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kColumns; ++i)
    if (lane + i * kWarp < p.width) store(to[lane + i * kWarp], acc[i] * factor);
}

// keep_scale where the probability is kept, 0 where it is dropped.
__device__ float keep_of(const Params& p, int query, int head, int key, int64_t sample) {
  if (p.limit == 0) return p.keep_scale;
  const Philox draw = draws(p, query, head, key >> 2, sample);
  // Selected by comparing: an index known only at run time would send the words to memory.
  const uint32_t front = key & 1 ? draw.word[1] : draw.word[0];
  const uint32_t back = key & 1 ? draw.word[3] : draw.word[2];
  return (key & 2 ? back : front) >= p.limit ? p.keep_scale : 0.0f;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 4) forward_kernel(const Params p, unsigned blocks) {
  extern __shared__ float shared[];
  const int width = static_cast<int>(p.width), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* keys = shared;
  float* values = keys + kWarp * (width + 1);
  float* query = values + kWarp * (width + 1) + warp * width;
  const Place at = place_of(p, blocks);
  const Segment s = segment_of(p, at.b);
  if (at.first >= s.queries) return;  // the whole block at once
  const int i = at.first + warp, count = static_cast<int>(s.keys);
  const int64_t row = s.query_start + i;
  const bool mine = i < s.queries;
  if (mine) load_row<T>(p.query, row, at.head, width, query);
  float acc[kColumns] = {}, top = -INFINITY, total = 0.0f;
  for (int j = 0; j < count; j += kWarp) {
    __syncthreads();
    load_tile<T>(p.key, s.key_start + j, count - j, at.head, width, keys);
    load_tile<T>(p.value, s.key_start + j, count - j, at.head, width, values);
    __syncthreads();
    if (!mine) continue;
    float score = -INFINITY;
    if (j + lane < count) score = dot(query, keys + lane * (width + 1), width) * p.scale;
    const float next = fmaxf(top, most(score));
    const float shrink = fast_exp(top - next);  // 0 at the first tile
    const float weight = fast_exp(score - next);
    total = total * shrink + sum(weight);
    top = next;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) acc[c] *= shrink;
    const float keep = keep_of(p, i, at.head, j + lane, p.sample_ids[at.b]);
    accumulate(weight * keep, values, width, acc);
  }
  if (!mine) return;
  write_row<T>(acc, p, p.output, row, at.head, count > 0 ? 1.0f / total : 0.0f);
  if (lane == 0) p.lse[row * p.heads + at.head] = count > 0 ? top + logf(total) : 0.0f;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 4) query_kernel(const Params p, unsigned blocks) {
  extern __shared__ float shared[];
  const int width = static_cast<int>(p.width), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* keys = shared;
  float* values = keys + kWarp * (width + 1);
  float* query = values + kWarp * (width + 1) + 2 * warp * width;
  float* grad = query + width;
  const Place at = place_of(p, blocks);
  const Segment s = segment_of(p, at.b);
  if (at.first >= s.queries) return;
  const int i = at.first + warp, count = static_cast<int>(s.keys);
  const int64_t row = s.query_start + i;
  const bool mine = i < s.queries;
  float lse = 0.0f, mean = 0.0f;
  if (mine) {
    load_row<T>(p.query, row, at.head, width, query);
    load_row<T>(p.output_grad, row, at.head, width, grad);
    __syncwarp();
    const T* output = static_cast<const T*>(p.output) + (row * p.heads + at.head) * p.width;
    for (int c = lane; c < width; c += kWarp) mean = fmaf(grad[c], to_float(output[c]), mean);
    mean = sum(mean);
    lse = p.lse[row * p.heads + at.head];
  }
  float acc[kColumns] = {};
  for (int j = 0; j < count; j += kWarp) {
    __syncthreads();
    load_tile<T>(p.key, s.key_start + j, count - j, at.head, width, keys);
    load_tile<T>(p.value, s.key_start + j, count - j, at.head, width, values);
    __syncthreads();
    if (!mine) continue;
    float score_grad = 0.0f;
    if (j + lane < count) {
      const float score = dot(query, keys + lane * (width + 1), width) * p.scale;
      const float kept_grad = dot(grad, values + lane * (width + 1), width) *
                              keep_of(p, i, at.head, j + lane, p.sample_ids[at.b]);
      score_grad = fast_exp(score - lse) * (kept_grad - mean);
    }
    accumulate(score_grad, keys, width, acc);
  }
  if (mine) write_row<T>(acc, p, p.query_grad, row, at.head, p.scale);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 4) key_kernel(const Params p, unsigned blocks) {
  extern __shared__ float shared[];
  const int width = static_cast<int>(p.width), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* queries = shared;
  float* grads = queries + kWarp * (width + 1);
  float* means = grads + kWarp * (width + 1);
  float* key = means + kWarp + 2 * warp * width;
  float* value = key + width;
  const Place at = place_of(p, blocks);
  const Segment s = segment_of(p, at.b);
  if (at.first >= s.keys) return;
  const int j = at.first + warp, count = static_cast<int>(s.queries);
  const int64_t row = s.key_start + j;
  const bool mine = j < s.keys;
  if (mine) {
    load_row<T>(p.key, row, at.head, width, key);
    load_row<T>(p.value, row, at.head, width, value);
  }
  float key_acc[kColumns] = {}, value_acc[kColumns] = {};
  for (int i = 0; i < count; i += kWarp) {
    __syncthreads();
    load_tile<T>(p.query, s.query_start + i, count - i, at.head, width, queries);
    load_tile<T>(p.output_grad, s.query_start + i, count - i, at.head, width, grads);
    __syncthreads();
    for (int r = warp; r < kWarp && i + r < count; r += kWarps) {
      const int64_t from = ((s.query_start + i + r) * p.heads + at.head) * p.width;
      const T* output = static_cast<const T*>(p.output) + from;
      float mean = 0.0f;
      for (int c = lane; c < width; c += kWarp)
        mean = fmaf(grads[r * (width + 1) + c], to_float(output[c]), mean);
      mean = sum(mean);
      if (lane == 0) means[r] = mean;
    }
    __syncthreads();
    if (!mine) continue;
    float kept = 0.0f, score_grad = 0.0f;
    if (i + lane < count) {
      const float score = dot(key, queries + lane * (width + 1), width) * p.scale;
      const float lse = p.lse[(s.query_start + i + lane) * p.heads + at.head];
      const float weight = fast_exp(score - lse);
      const float keep = keep_of(p, i + lane, at.head, j, p.sample_ids[at.b]);
      kept = weight * keep;
      score_grad = weight * (dot(value, grads + lane * (width + 1), width) * keep - means[lane]);
    }
    accumulate(kept, grads, width, value_acc);
    accumulate(score_grad, queries, width, key_acc);
  }
  if (!mine) return;
  write_row<T>(key_acc, p, p.key_grad, row, at.head, p.scale);
  write_row<T>(value_acc, p, p.value_grad, row, at.head, 1.0f);
}

// `own` floats per warp in addition to the two tiles, and the row sums of one tile.
template <class Kernel>
int launch(Kernel kernel, const Params& p, int64_t most_rows, int64_t own, void* stream) {
  const int64_t blocks = (most_rows + kWarps - 1) / kWarps, grid = blocks * p.batch * p.heads;
  if (grid == 0) return cudaSuccess;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  const size_t floats = 2 * kWarp * (p.width + 1) + kWarp + kWarps * own;
  kernel<<<static_cast<unsigned>(grid), kThreads, floats * sizeof(float),
           static_cast<cudaStream_t>(stream)>>>(p, static_cast<unsigned>(blocks));
  return cudaGetLastError();
}

template <class T>
int backward(const Params& p, void* stream) {
  const int status = launch(query_kernel<T>, p, p.max_query, 2 * p.width, stream);
  return status != cudaSuccess ? status
                               : launch(key_kernel<T>, p, p.max_key, 2 * p.width, stream);
}

}  // namespace

int forward_cuda(const Params& p, void* stream) {
  return with_type(p.type, [&](auto zero) {
    return launch(forward_kernel<decltype(zero)>, p, p.max_query, p.width, stream);
  });
}

int backward_cuda(const Params& p, void* stream) {
  return with_type(p.type, [&](auto zero) { return backward<decltype(zero)>(p, stream); });
}

}  // namespace ecamp::attention
