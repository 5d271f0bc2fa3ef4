#include "dropout_rows/dropout_rows.h"

namespace ecamp::dropout_rows::ECAMP_LANE {
namespace {

constexpr int64_t kBlocks = 64;  // counters drawn at once, so that the compiler vectorises the rounds

template <class T>
void drop(const Params& p, int64_t begin, int64_t end) {
  const T* in = static_cast<const T*>(p.in);
  T* out = static_cast<T*>(p.out);
  alignas(64) uint32_t word[4][kBlocks];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t base = row * p.width;
    for (int64_t first = 0; first * 4 < p.width; first += kBlocks) {
      for (int64_t i = 0; i < kBlocks; ++i) {
        const Philox draw = words(p, row, first + i);
        for (int k = 0; k < 4; ++k) word[k][i] = draw.word[k];
      }
      const int64_t left = p.width - first * 4, count = left < kBlocks * 4 ? left : kBlocks * 4;
      for (int64_t c = 0; c < count; ++c) {
        const int64_t at = base + first * 4 + c;
        const bool keep = word[c % 4][c / 4] >= p.limit;
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
