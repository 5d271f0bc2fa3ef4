#include "mask_tokens/mask_tokens.h"

#include <cstring>

namespace ecamp::mask_tokens::ECAMP_LANE {

void mask_rows(const Params& p, int64_t begin, int64_t end) {
  Scratch<int32_t> row(p.window), candidates(p.window);
  Scratch<Match> matches(p.window);
  Scratch<uint32_t> draws(p.window);
  Scratch<uint8_t> flag(p.window);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t base = base_of(p, b), positions = positions_of(p, b), n = p.lengths[b];
    if (positions == 0) continue;  // empty tensors have no address
    const int64_t* ids = p.ids + base;
    uint8_t* role = p.out_roles + base;
    bool* mask = p.out_mask + base;
    float* weight = p.out_weights + base;
    int64_t* out = p.out_ids + base;
    std::memcpy(out, ids, positions * sizeof *out);
    std::memset(mask, 0, positions * sizeof *mask);
    std::memset(weight, 0, positions * sizeof *weight);
    std::memset(role, kNoRole, positions * sizeof *role);
    for (int64_t i = 0; i < n; ++i) {
      row[i] = static_cast<int32_t>(ids[i]);
      flag[i] = flag_of(p, ids[i]);
    }
    int64_t count = 0;
    for (int64_t i = 1; i < n; ++i) {
      role[i] = flag[i] & kSpecial ? kNoRole : kOther;
      candidates[count] = static_cast<int32_t>(i);
      count += is_candidate(p, row.data, flag.data, i);
    }
    int64_t kept = 0;  // without candidates there is nothing to assign
    for (int64_t c = 0; c < count; ++c) {
      const Match f = longest_matches(p, row.data, flag.data, n, candidates[c]);
      candidates[kept] = candidates[c];
      matches[kept] = f;
      kept += (f.templates | f.entity) != 0;
    }
    const bool any_entity =
        assign_roles(p, row.data, flag.data, role, n, candidates.data, matches.data, kept);

    const int64_t last = n < p.window ? n : p.window - 1;  // the window's last is never masked
    const int64_t sample = p.sample_ids[b];
    // Draws at every position, though only heads count: without a branch the rounds vectorise.
    for (int64_t i = 0; i < last; ++i) draws[i] = draw(p, sample, i);
    uint64_t limit[kTemplate + 1];
    for (uint8_t r = 0; r <= kTemplate; ++r) limit[r] = limit_of(p, r, any_entity);
    // Masking is random, so branch prediction would fail: no branches.
    int64_t masked[kTemplate + 1] = {};
    bool hit = false;
    for (int64_t i = 1; i < last; ++i) {
      const uint8_t r = role[i];
      hit = is_head(flag.data, i) ? draws[i] < limit[r] : hit;
      const bool m = hit & (r != kNoRole);
      mask[i] = m;
      out[i] = m ? p.mask_id : out[i];
      masked[r] += m;
    }
    const Weights w = balance(p.template_weight, masked[kTemplate],
                              masked[kEntity] + masked[kDescriptor], masked[kOther]);
    float by_role[kTemplate + 1];
    for (uint8_t r = 0; r <= kTemplate; ++r) by_role[r] = weight_of(w, r);
    for (int64_t i = 1; i < last; ++i) weight[i] = mask[i] ? by_role[role[i]] : 0.0f;
  }
}

}  // namespace ecamp::mask_tokens::ECAMP_LANE
