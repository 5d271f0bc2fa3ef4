// Entity-aware masking with re-balanced weights; the rules stand in ecamp/ops/mask_tokens.py.
// Torch-free. Shapes: ids, mask, weights, roles [batch, window]; lengths, sample_ids [batch];
// flags [vocabulary]; patterns [pattern_count, pattern_width]; pattern_start [vocabulary + 1].
#pragma once

#include <cstdint>

#include "common/hostdevice.h"
#include "common/lanes.h"
#include "common/philox.h"

namespace ecamp::mask_tokens {

constexpr uint32_t kOp = 1;  // this op's place in the Philox counter
enum Flag : uint8_t { kContinuation = 1, kSpecial = 2, kBoundary = 4 };
enum Role : uint8_t { kNoRole = 0, kOther = 1, kEntity = 2, kDescriptor = 3, kTemplate = 4 };

struct Params {
  const int64_t* ids;
  const int64_t* lengths;
  const int64_t* sample_ids;
  const uint8_t* flags;
  const int32_t* patterns;
  const int32_t* pattern_start;
  int64_t batch, window, vocabulary, pattern_width;
  uint32_t step;
  uint64_t seed;
  int64_t mask_id;
  uint64_t limit_entity, limit_other, limit_plain;  // round(p * 2^32)
  int64_t descriptor_words;
  double template_weight;
  int64_t* out_ids;
  bool* out_mask;
  float* out_weights;
  uint8_t* out_roles;
};

// A token id outside the vocabulary has no meaning and counts as special: never read, never masked.
ECAMP_HD uint8_t flag_of(const Params& p, int64_t token) {
  return token < 0 || token >= p.vocabulary ? uint8_t{kSpecial} : p.flags[token];
}

// A cut can leave a `##` piece behind [CLS]: it stands for its word.
ECAMP_HD bool is_head(const uint8_t* flag, int64_t at) {
  return at == 1 || (at > 1 && !(flag[at] & kContinuation));
}

// Length of the longest pattern of a kind at `at` that covers whole free words; 0 without one.
ECAMP_HD int64_t match(const Params& p, const int32_t* row, const uint8_t* flag,
                       const uint8_t* role, int64_t n, int64_t at, int32_t kind) {
  if (flag[at] & kSpecial) return 0;  // also keeps ids outside the vocabulary off the table
  const int32_t last = p.pattern_start[row[at] + 1];
  for (int32_t k = p.pattern_start[row[at]]; k < last; ++k) {
    const int32_t* pattern = p.patterns + k * p.pattern_width;
    const int64_t size = pattern[1];
    if (pattern[0] != kind || at + size > n) continue;
    if (at + size < n && !is_head(flag, at + size)) continue;
    bool fits = true;
    for (int64_t i = 0; fits && i < size; ++i)
      fits = row[at + i] == pattern[2 + i] && role[at + i] == kOther;
    if (fits) return size;
  }
  return 0;
}

// Templates, then entities, then descriptors. `role` holds kOther or kNoRole before.
// Returns whether the row holds an entity.
ECAMP_HD bool assign_roles(const Params& p, const int32_t* row, const uint8_t* flag, uint8_t* role,
                           int64_t n) {
  bool any_entity = false;
  for (int pass = 0; pass < 2; ++pass) {
    const uint8_t kind = pass == 0 ? kTemplate : kEntity;
    for (int64_t at = 1; at < n;) {
      const int64_t size = is_head(flag, at) ? match(p, row, flag, role, n, at, kind) : 0;
      for (int64_t i = 0; i < size; ++i) role[at + i] = kind;
      any_entity |= size > 0 && kind == kEntity;
      at += size > 0 ? size : 1;
    }
  }
  for (int64_t start = 1; any_entity && start < n; ++start) {
    if (role[start] != kEntity || role[start - 1] == kEntity) continue;
    int64_t end = start;
    for (int64_t words = 0; words < p.descriptor_words && end > 1; ++words) {
      int64_t at = end - 1;
      while (at > 1 && !is_head(flag, at)) --at;
      if (role[at] != kOther || (flag[at] & kBoundary)) break;
      for (int64_t i = at; i < end; ++i) role[i] = kDescriptor;
      end = at;
    }
  }
  return any_entity;
}

// Whether the word that holds position `at` is drawn; the draw belongs to the word's head.
ECAMP_HD bool drawn(const Params& p, const uint8_t* flag, const uint8_t* role, int64_t sample,
                    int64_t at, bool any_entity) {
  int64_t head = at;
  while (!is_head(flag, head)) --head;
  const uint64_t rest = any_entity ? p.limit_other : p.limit_plain;
  uint64_t limit = rest;
  if (role[head] == kNoRole) limit = 0;
  if (role[head] == kEntity) limit = p.limit_entity;
  if (role[head] == kDescriptor) limit = uint64_t{1} << 32;
  const Philox draw = philox(static_cast<uint32_t>(head), static_cast<uint32_t>(sample), p.step,
                             kOp, p.seed);
  return draw.word[0] < limit;
}

struct Weights {
  float plain, templates, strong, other;
};

// Numbers of masked tokens by role -> weights by role. The division is in double, rounded once.
ECAMP_HD Weights balance(double template_weight, int64_t templates, int64_t strong, int64_t other) {
  Weights w{1.0f, 1.0f, 1.0f, 1.0f};
  const int64_t boosted = strong > 0 ? strong : other;
  if (templates == 0 || boosted == 0) return w;
  const double freed = (1.0 - template_weight) * static_cast<double>(templates);
  const float raised = static_cast<float>(1.0 + freed / static_cast<double>(boosted));
  w.templates = static_cast<float>(template_weight);
  (strong > 0 ? w.strong : w.other) = raised;
  return w;
}

ECAMP_HD float weight_of(const Weights& w, uint8_t role) {
  if (role == kTemplate) return w.templates;
  if (role == kEntity || role == kDescriptor) return w.strong;
  return role == kOther ? w.other : w.plain;
}

// Rows [begin, end) on the host.
ECAMP_LANES(void, mask_rows, (const Params& params, int64_t begin, int64_t end))

// The whole batch on the current device, one launch, no allocation, no synchronisation.
// Returns a cudaError_t. `stream` is a cudaStream_t.
int mask_batch_cuda(const Params& params, void* stream);

// Longest window that the CUDA kernel's shared memory holds.
constexpr int64_t kMaxCudaWindow = 4096;

}  // namespace ecamp::mask_tokens
