#include "crop_resize/crop_resize.h"

namespace ecamp::crop_resize::ECAMP_LANE {
namespace {

struct Taps {
  explicit Taps(int64_t n) : first(n), second(n), weight(n) {}
  Scratch<int32_t> first, second;
  Scratch<float> weight;
};

// A row of bytes as floats, channel after channel, then resampled: out [channels, size].
void across(const Params& p, const uint8_t* bytes, const Taps& taps, float* plain, float* out) {
  const int64_t n = p.size, width = p.width;
  for (int64_t c = 0; c < p.channels; ++c) {
    if (p.channels == 1)
      for (int64_t x = 0; x < width; ++x) plain[x] = bytes[x];
    else
      for (int64_t x = 0; x < width; ++x) plain[x] = bytes[x * p.channels + c];
    const int32_t* first = taps.first.data;
    const int32_t* second = taps.second.data;
    const float* weight = taps.weight.data;
    float* to = out + c * n;
    for (int64_t x = 0; x < n; ++x) to[x] = blend(plain[first[x]], plain[second[x]], weight[x]);
  }
}

}  // namespace

void crop_images(const Params& p, int64_t begin, int64_t end) {
  const int64_t n = p.size, line = p.channels * n, few = n / p.pool;
  if (n == 0) return;
  Taps taps(n);
  // The two resampled rows in use; consecutive output rows share theirs.
  Scratch<float> plain(p.width), rows(2 * line), sums(line);
  for (int64_t b = begin; b < end; ++b) {
    const float* crop = p.crop + 4 * b;
    const uint8_t* image = p.images + b * p.height * p.width * p.channels;
    for (int64_t x = 0; x < n; ++x) {
      const Tap t = tap(crop[0], crop[2], p.flip[b] ? n - 1 - x : x, n, p.width);
      taps.first[x] = t.first;
      taps.second[x] = t.second;
      taps.weight[x] = t.weight;
    }
    int32_t held[2] = {-1, -1};
    const auto row_of = [&](int32_t y, int32_t other) {
      for (int k = 0; k < 2; ++k)
        if (held[k] == y) return rows.data + k * line;
      const int k = held[0] == other ? 1 : 0;
      across(p, image + y * p.width * p.channels, taps, plain.data, rows.data + k * line);
      held[k] = y;
      return rows.data + k * line;
    };
    for (int64_t y = 0; y < n; ++y) {
      const Tap t = tap(crop[1], crop[3], y, n, p.height);
      const float* above = row_of(t.first, t.second);
      const float* below = row_of(t.second, t.first);
      const float weight = t.weight;
      for (int64_t c = 0; c < p.channels; ++c) {
        float* out = p.large + ((b * p.channels + c) * n + y) * n;
        const float *a = above + c * n, *z = below + c * n;
        const float scale = p.scale[c], shift = p.shift[c];
        for (int64_t x = 0; x < n; ++x) out[x] = blend(a[x], z[x], weight) * scale + shift;
        if (p.pool == 1) continue;
        float* sum = sums.data + c * n;
        if (y % p.pool == 0)
          for (int64_t x = 0; x < n; ++x) sum[x] = out[x];
        else
          for (int64_t x = 0; x < n; ++x) sum[x] += out[x];
        if (y % p.pool != p.pool - 1) continue;
        float* small = p.small + ((b * p.channels + c) * few + y / p.pool) * few;
        const float share = 1.0f / static_cast<float>(p.pool * p.pool);
        if (p.pool == 2) {
          for (int64_t x = 0; x < few; ++x) small[x] = (sum[2 * x] + sum[2 * x + 1]) * share;
        } else {
          for (int64_t x = 0; x < few; ++x) {
            float total = sum[p.pool * x];
            for (int64_t k = 1; k < p.pool; ++k) total += sum[p.pool * x + k];
            small[x] = total * share;
          }
        }
      }
    }
  }
}

}  // namespace ecamp::crop_resize::ECAMP_LANE
