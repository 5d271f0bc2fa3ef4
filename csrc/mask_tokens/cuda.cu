// One warp a row: matching is sequential by nature and runs on lane 0 in shared memory; loading,
// drawing, counting and writing are spread over the lanes.
#include <cuda_runtime.h>

#include "mask_tokens/mask_tokens.h"

namespace ecamp::mask_tokens {
namespace {

constexpr int kLanes = 32;
constexpr unsigned kAll = 0xFFFFFFFFu;

__device__ int total(int value) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kAll, value, offset);
  return value;
}

__global__ void mask_kernel(const Params p) {
  extern __shared__ int32_t row[];
  uint8_t* flag = reinterpret_cast<uint8_t*>(row + p.window);
  uint8_t* role = flag + p.window;
  uint8_t* mask = role + p.window;
  const int64_t b = blockIdx.x, base = b * p.window;
  const int lane = threadIdx.x;
  int64_t n = p.lengths[b];
  n = n < 0 ? 0 : (n > p.window ? p.window : n);

  for (int64_t i = lane; i < p.window; i += kLanes) {
    const int64_t token = p.ids[base + i];
    row[i] = static_cast<int32_t>(token);
    flag[i] = flag_of(p, token);
    role[i] = i > 0 && i < n && !(flag[i] & kSpecial) ? kOther : kNoRole;
    mask[i] = 0;
  }
  __syncwarp();
  bool any_entity = false;
  if (lane == 0) any_entity = assign_roles(p, row, flag, role, n);
  any_entity = __shfl_sync(kAll, any_entity, 0);
  __syncwarp();

  int templates = 0, strong = 0, other = 0;
  const int64_t last = n < p.window ? n : p.window - 1;
  for (int64_t i = 1 + lane; i < last; i += kLanes) {
    if (role[i] == kNoRole) continue;
    if (!drawn(p, flag, role, p.sample_ids[b], i, any_entity)) continue;
    mask[i] = 1;
    templates += role[i] == kTemplate;
    strong += role[i] == kEntity || role[i] == kDescriptor;
    other += role[i] == kOther;
  }
  const Weights w = balance(p.template_weight, total(templates), total(strong), total(other));
  __syncwarp();
  for (int64_t i = lane; i < p.window; i += kLanes) {
    p.out_ids[base + i] = mask[i] ? p.mask_id : p.ids[base + i];
    p.out_mask[base + i] = mask[i] != 0;
    p.out_weights[base + i] = mask[i] ? weight_of(w, role[i]) : 0.0f;
    p.out_roles[base + i] = role[i];
  }
}

}  // namespace

int mask_batch_cuda(const Params& params, void* stream) {
  if (params.batch == 0 || params.window == 0) return cudaSuccess;
  const size_t shared = params.window * (sizeof(int32_t) + 3);
  mask_kernel<<<static_cast<unsigned>(params.batch), kLanes, shared,
                static_cast<cudaStream_t>(stream)>>>(params);
  return cudaGetLastError();
}

}  // namespace ecamp::mask_tokens
