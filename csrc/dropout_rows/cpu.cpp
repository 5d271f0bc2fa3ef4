#include "common/philox_many.h"
#include "dropout_rows/dropout_rows.h"

namespace ecamp::dropout_rows::ECAMP_LANE {
namespace {

template <class T>
void drop(const Params& p, int64_t begin, int64_t end) {
  const T* in = static_cast<const T*>(p.in);
  T* out = static_cast<T*>(p.out);
  Draws draws;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t base = row * p.width;
    for (int64_t first = 0; first < p.width; first += 4 * kDraws) {
      philox_many(static_cast<uint32_t>(p.positions[row]), static_cast<uint32_t>(first / 4),
                  static_cast<uint32_t>(p.samples[row]), p.step, p.seed, draws);
      const int64_t left = p.width - first, count = left < 4 * kDraws ? left : 4 * kDraws;
      for (int64_t c = 0; c < count; ++c) {
        const int64_t at = base + first + c;
        const bool keep = draws.word[c % 4][c / 4] >= p.limit;
        store(out[at], keep ? to_float(in[at]) * p.scale : 0.0f);
      }
    }
  }
}

}  // namespace

void drop_float(const Params& p, int64_t begin, int64_t end) { drop<float>(p, begin, end); }
void drop_bfloat16(const Params& p, int64_t begin, int64_t end) { drop<BFloat16>(p, begin, end); }
void drop_half(const Params& p, int64_t begin, int64_t end) { drop<Half>(p, begin, end); }

}  // namespace ecamp::dropout_rows::ECAMP_LANE
