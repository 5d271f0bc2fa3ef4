// Entity-aware masking with re-balanced weights; the rules are in ecamp/ops/mask_tokens.py.
// Torch-free. Shapes: ids, mask, weights, roles [batch, window], or [sum of lengths] with starts
// [batch], where each row begins; lengths, sample_ids [batch]; flags [vocabulary]; patterns
// [pattern_count, pattern_width]; pattern_start [vocabulary + 1].
#pragma once

#include <cstdint>

#include "common/hostdevice.h"
#include "common/lanes.h"
#include "common/philox.h"

namespace ecamp::mask_tokens {

constexpr uint32_t kOp = 1;  // last word of the Philox counter
enum Flag : uint8_t { kContinuation = 1, kSpecial = 2, kBoundary = 4 };
enum Role : uint8_t { kNoRole = 0, kOther = 1, kEntity = 2, kDescriptor = 3, kTemplate = 4 };

struct Params {
  const int64_t* ids;
  const int64_t* starts;  // null: padded rows
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

// Start of a row, and its number of positions.
ECAMP_HD int64_t base_of(const Params& p, int64_t b) { return p.starts ? p.starts[b] : b * p.window; }
ECAMP_HD int64_t positions_of(const Params& p, int64_t b) { return p.starts ? p.lengths[b] : p.window; }

// A token id outside the vocabulary has no meaning and counts as special: never read, never masked.
ECAMP_HD uint8_t flag_of(const Params& p, int64_t token) {
  return token < 0 || token >= p.vocabulary ? uint8_t{kSpecial} : p.flags[token];
}

// A cut can leave a `##` piece behind [CLS]: it represents its word.
ECAMP_HD bool is_head(const uint8_t* flag, int64_t at) {
  return at == 1 || (at > 1 && !(flag[at] & kContinuation));
}

// Whether a pattern's tokens appear at `at` and end where a word ends.
ECAMP_HD bool matches_at(const int32_t* pattern, const int32_t* row, const uint8_t* flag, int64_t n,
                        int64_t at) {
  const int64_t size = pattern[1];
  if (at + size > n) return false;
  for (int64_t i = 1; i < size; ++i)  // the first token is that of the table's row
    if (row[at + i] != pattern[2 + i]) return false;
  return at + size == n || is_head(flag, at + size);
}

ECAMP_HD bool is_free(const uint8_t* role, int64_t at, int64_t size) {
  for (int64_t i = 0; i < size; ++i)
    if (role[at + i] != kOther) return false;
  return true;
}

// Lengths of the longest template and the longest entity at a candidate; 0 without one.
struct Match {
  uint16_t templates, entity;
};

ECAMP_HD Match longest_matches(const Params& p, const int32_t* row, const uint8_t* flag,
                               int64_t n, int64_t at) {
  Match match{0, 0};
  const int32_t last = p.pattern_start[row[at] + 1];
  for (int32_t k = p.pattern_start[row[at]]; k < last; ++k) {  // the longest first
    const int32_t* pattern = p.patterns + k * p.pattern_width;
    if (!matches_at(pattern, row, flag, n, at)) continue;
    const uint16_t size = static_cast<uint16_t>(pattern[1]);
    if (pattern[0] == kTemplate && match.templates == 0) match.templates = size;
    if (pattern[0] == kEntity && match.entity == 0) match.entity = size;
  }
  return match;
}

// As `longest_matches` for one role, but over words that have no role yet.
ECAMP_HD int64_t longest_free_match(const Params& p, const int32_t* row, const uint8_t* flag,
                                    const uint8_t* role, int64_t n, int64_t at,
                                    int32_t wanted_role) {
  const int32_t last = p.pattern_start[row[at] + 1];
  for (int32_t k = p.pattern_start[row[at]]; k < last; ++k) {
    const int32_t* pattern = p.patterns + k * p.pattern_width;
    if (pattern[0] == wanted_role && matches_at(pattern, row, flag, n, at) &&
        is_free(role, at, pattern[1]))
      return pattern[1];
  }
  return 0;
}

// Whether a pattern may begin at `at`. Few positions are candidates; only those are examined.
ECAMP_HD bool is_candidate(const Params& p, const int32_t* row, const uint8_t* flag, int64_t at) {
  if (!is_head(flag, at) || (flag[at] & kSpecial)) return false;
  return p.pattern_start[row[at] + 1] > p.pattern_start[row[at]];
}

// Templates, then entities, then descriptors. `role` holds kOther or kNoRole before; `candidates`
// are the positions of `is_candidate`, ascending, `matches` what `longest_matches` gives there. Returns
// whether the row has an entity.
ECAMP_HD bool assign_roles(const Params& p, const int32_t* row, const uint8_t* flag, uint8_t* role,
                           int64_t n, const int32_t* candidates, const Match* matches,
                           int64_t count) {
  bool any_entity = false;
  for (int pass = 0; pass < 2; ++pass) {
    const uint8_t assigned = pass == 0 ? kTemplate : kEntity;
    int64_t free_from = 0;
    for (int64_t c = 0; c < count; ++c) {
      const int64_t at = candidates[c];
      int64_t size = pass == 0 ? matches[c].templates : matches[c].entity;
      if (at < free_from || size == 0) continue;
      // A special token within, or for an entity a template: a shorter pattern may still fit.
      if (!is_free(role, at, size)) size = longest_free_match(p, row, flag, role, n, at, assigned);
      for (int64_t i = 0; i < size; ++i) role[at + i] = assigned;
      any_entity |= size > 0 && assigned == kEntity;
      free_from = at + size;
    }
  }
  for (int64_t c = 0; any_entity && c < count; ++c) {
    const int64_t start = candidates[c];
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

// A word is masked when the draw at its head is below this limit.
ECAMP_HD uint64_t limit_of(const Params& p, uint8_t role, bool any_entity) {
  if (role == kNoRole) return 0;
  if (role == kEntity) return p.limit_entity;
  if (role == kDescriptor) return uint64_t{1} << 32;
  return any_entity ? p.limit_other : p.limit_plain;
}

// The draw of a word whose head is at `head`.
ECAMP_HD uint32_t draw(const Params& p, int64_t sample, int64_t head) {
  return philox(static_cast<uint32_t>(head), static_cast<uint32_t>(sample), p.step, kOp, p.seed)
      .word[0];
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
constexpr int64_t kMaxCudaWindow = 3072;

}  // namespace ecamp::mask_tokens
