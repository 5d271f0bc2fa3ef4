#include "mask_tokens/mask_tokens.h"

namespace ecamp::mask_tokens::ECAMP_LANE {

void mask_rows(const Params& p, int64_t begin, int64_t end) {
  Scratch<int32_t> row(p.window);
  Scratch<uint8_t> flag(p.window);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t* ids = p.ids + b * p.window;
    uint8_t* role = p.out_roles + b * p.window;
    bool* mask = p.out_mask + b * p.window;
    float* weight = p.out_weights + b * p.window;
    int64_t* out = p.out_ids + b * p.window;
    const int64_t n = p.lengths[b];
    for (int64_t i = 0; i < p.window; ++i) {
      out[i] = ids[i];
      mask[i] = false;
      weight[i] = 0.0f;
      role[i] = kNoRole;
      if (i >= n) continue;
      row[i] = static_cast<int32_t>(ids[i]);
      flag[i] = flag_of(p, ids[i]);
      if (i > 0 && !(flag[i] & kSpecial)) role[i] = kOther;
    }
    const bool any_entity = assign_roles(p, row.data, flag.data, role, n);
    int64_t templates = 0, strong = 0, other = 0;
    bool hit = false;
    const int64_t last = n < p.window ? n : p.window - 1;  // the window's last is never masked
    for (int64_t i = 1; i < last; ++i) {
      if (is_head(flag.data, i))
        hit = drawn(p, flag.data, role, p.sample_ids[b], i, any_entity);
      if (!hit || role[i] == kNoRole) continue;
      mask[i] = true;
      out[i] = p.mask_id;
      templates += role[i] == kTemplate;
      strong += role[i] == kEntity || role[i] == kDescriptor;
      other += role[i] == kOther;
    }
    const Weights w = balance(p.template_weight, templates, strong, other);
    for (int64_t i = 1; i < last; ++i)
      if (mask[i]) weight[i] = weight_of(w, role[i]);
  }
}

}  // namespace ecamp::mask_tokens::ECAMP_LANE
