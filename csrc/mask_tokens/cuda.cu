// One warp per row: assigning roles is sequential and runs on lane 0 in shared memory;
// loading, finding patterns, drawing, counting and writing are spread over the lanes.
#include <cuda_runtime.h>

#include "mask_tokens/mask_tokens.h"

namespace ecamp::mask_tokens {
namespace {

constexpr int kLanes = 32;
// Per position: token, candidate, match, flag, role, mask.
constexpr size_t kSharedBytes = 2 * sizeof(int32_t) + sizeof(Match) + 3;
static_assert(kMaxCudaWindow * kSharedBytes <= 48 * 1024, "more needs an opt-in at launch");
constexpr unsigned kAll = 0xFFFFFFFFu;

__device__ int total(int value) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kAll, value, offset);
  return value;
}

__global__ void mask_kernel(const Params p) {
  extern __shared__ int32_t row[];
  int32_t* candidates = row + p.window;
  Match* matches = reinterpret_cast<Match*>(candidates + p.window);
  uint8_t* flag = reinterpret_cast<uint8_t*>(matches + p.window);
  uint8_t* role = flag + p.window;
  uint8_t* mask = role + p.window;
  const int64_t b = blockIdx.x, base = base_of(p, b);
  const int lane = threadIdx.x;
  int64_t n = p.lengths[b];
  n = n < 0 ? 0 : (n > p.window ? p.window : n);
  const int64_t positions = p.starts ? n : p.window;

  for (int64_t i = lane; i < positions; i += kLanes) {
    const int64_t token = p.ids[base + i];
    row[i] = static_cast<int32_t>(token);
    flag[i] = flag_of(p, token);
    role[i] = i > 0 && i < n && !(flag[i] & kSpecial) ? kOther : kNoRole;
    mask[i] = 0;
  }
  __syncwarp();
  int count = 0;
  for (int64_t first = 0; first < n; first += kLanes) {
    const int64_t i = first + lane;
    const bool is = i > 0 && i < n && is_candidate(p, row, flag, i);
    const unsigned all = __ballot_sync(kAll, is);
    if (is) candidates[count + __popc(all & ((1u << lane) - 1u))] = static_cast<int32_t>(i);
    count += __popc(all);
  }
  __syncwarp();
  for (int c = lane; c < count; c += kLanes) matches[c] = longest_matches(p, row, flag, n, candidates[c]);
  __syncwarp();
  bool any_entity = false;
  if (lane == 0) any_entity = assign_roles(p, row, flag, role, n, candidates, matches, count);
  any_entity = __shfl_sync(kAll, any_entity, 0);
  __syncwarp();

  int templates = 0, strong = 0, other = 0;
  const int64_t last = n < p.window ? n : p.window - 1;
  for (int64_t i = 1 + lane; i < last; i += kLanes) {
    if (role[i] == kNoRole) continue;
    int64_t head = i;
    while (!is_head(flag, head)) --head;
    if (draw(p, p.sample_ids[b], head) >= limit_of(p, role[head], any_entity)) continue;
    mask[i] = 1;
    templates += role[i] == kTemplate;
    strong += role[i] == kEntity || role[i] == kDescriptor;
    other += role[i] == kOther;
  }
  const Weights w = balance(p.template_weight, total(templates), total(strong), total(other));
  __syncwarp();
  for (int64_t i = lane; i < positions; i += kLanes) {
    p.out_ids[base + i] = mask[i] ? p.mask_id : p.ids[base + i];
    p.out_mask[base + i] = mask[i] != 0;
    p.out_weights[base + i] = mask[i] ? weight_of(w, role[i]) : 0.0f;
    p.out_roles[base + i] = role[i];
  }
}

}  // namespace

int mask_batch_cuda(const Params& params, void* stream) {
  if (params.batch == 0 || params.window == 0) return cudaSuccess;
  const size_t shared = params.window * kSharedBytes;
  mask_kernel<<<static_cast<unsigned>(params.batch), kLanes, shared,
                static_cast<cudaStream_t>(stream)>>>(params);
  return cudaGetLastError();
}

}  // namespace ecamp::mask_tokens
