#include "common/dropout.h"
#include "dropout_rows/dropout_rows.h"

namespace ecamp::dropout_rows::ECAMP_LANE {
namespace {

template <class T>
void drop(const Params& p, int64_t begin, int64_t end) {
  const int64_t width = p.width;
  Scratch<float> factor((width + kDrawn - 1) / kDrawn * kDrawn);
  for (int64_t row = begin; row < end; ++row) {
    draw_factors({static_cast<uint32_t>(p.positions[row]), 0, static_cast<uint32_t>(p.samples[row]),
                  p.step, p.seed, p.limit, p.scale},
                 (width + kDrawn - 1) / kDrawn * kDrawn, factor.data);
    const T* in = static_cast<const T*>(p.in) + row * width;
    T* out = static_cast<T*>(p.out) + row * width;
    for (int64_t c = 0; c < width; ++c) {
      const float kept = to_float(in[c]) * factor[c];
      store(out[c], factor[c] == 0.0f ? 0.0f : kept);  // infinity times 0 is NaN
    }
  }
}

}  // namespace

void drop_rows(const Params& p, int64_t begin, int64_t end) {
  with_type(p.type, [&](auto zero) { drop<decltype(zero)>(p, begin, end); });
}

}  // namespace ecamp::dropout_rows::ECAMP_LANE
