#include "weighted_ce/weighted_ce.h"

#include <math.h>  // logf; <cmath> would bring inline functions with external linkage

namespace ecamp::weighted_ce::ECAMP_LANE {
namespace {

// Partial maxima and sums of this many columns are kept side by side: they vectorise without
// reordering additions, so every lane adds in the same order.
constexpr int64_t kWide = 64;

// Adds the bias, writes the row as float, padded to whole blocks; returns its maximum.
template <class T, bool kBias>
float load_row(const T* in, const T* bias, float* row, int64_t count) {
  float top[kWide];
  for (int64_t k = 0; k < kWide; ++k) top[k] = -INFINITY;
  const int64_t whole = count / kWide * kWide;
  for (int64_t i = 0; i < whole; i += kWide)
    for (int64_t k = 0; k < kWide; ++k) {
      const float x = kBias ? to_float(in[i + k]) + to_float(bias[i + k]) : to_float(in[i + k]);
      row[i + k] = x;
      top[k] = x > top[k] ? x : top[k];  // a NaN is ignored here; the sum propagates it
    }
  for (int64_t i = whole; i < count; ++i) {
    row[i] = kBias ? to_float(in[i]) + to_float(bias[i]) : to_float(in[i]);
    top[i - whole] = row[i] > top[i - whole] ? row[i] : top[i - whole];
  }
  for (int64_t i = count; i < whole + kWide; ++i) row[i] = -INFINITY;
  for (int64_t k = 1; k < kWide; ++k) top[0] = top[k] > top[0] ? top[k] : top[0];
  return top[0];
}

// row = exp(row - top); returns the sum.
float exp_row(float* row, float top, int64_t blocks) {
  float sum[kWide] = {};
  for (int64_t i = 0; i < blocks * kWide; i += kWide)
    for (int64_t k = 0; k < kWide; ++k) {
      const float e = fast_exp(row[i + k] - top);
      row[i + k] = e;
      sum[k] += e;
    }
  for (int64_t width = kWide / 2; width > 0; width /= 2)
    for (int64_t k = 0; k < width; ++k) sum[k] += sum[k + width];
  return sum[0];
}

template <class T>
void ce_rows(const Params& p, int64_t begin, int64_t end) {
  const T* bias = static_cast<const T*>(p.bias);
  const int64_t blocks = p.vocabulary / kWide + 1;
  Scratch<float> row(blocks * kWide);  // one row fits a core's second-level cache
  for (int64_t i = begin; i < end; ++i) {
    T* logits = static_cast<T*>(p.logits) + i * p.stride;
    const int64_t label = p.labels[i];
    const float top = bias == nullptr ? load_row<T, false>(logits, bias, row.data, p.vocabulary)
                                      : load_row<T, true>(logits, bias, row.data, p.vocabulary);
    const float target = row[label];
    const float sum = exp_row(row.data, top, blocks);
    p.losses[i] = logf(sum) + (top - target);
    if (!p.gradient) continue;
    const float weight = p.weights[i] * p.scale, factor = weight / sum;
    const float hit = (row[label] / sum - 1.0f) * weight;
    for (int64_t j = 0; j < p.vocabulary; ++j) store(logits[j], row.data[j] * factor);
    store(logits[label], hit);
  }
}

}  // namespace

void ce_range(const Params& p, int64_t begin, int64_t end) {
  with_type(p.type, [&](auto zero) { ce_rows<decltype(zero)>(p, begin, end); });
}

}  // namespace ecamp::weighted_ce::ECAMP_LANE
