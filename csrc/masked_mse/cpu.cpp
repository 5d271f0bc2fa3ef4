#include "masked_mse/masked_mse.h"

#include "common/sum.h"

namespace ecamp::masked_mse::ECAMP_LANE {
namespace {

// The true patch i as row, column, channel. Three channels at once where there are three: with the
// stride known, compilers vectorise the interleaving.
void true_patch(const Params& p, int64_t i, float* line, float* out) {
  const int64_t channels = p.images.channels, side = p.patch;
  for (int64_t y = 0; y < side; ++y) {
    float* to = out + y * side * channels;
    if (channels == 3) {
      const float* red = floats(p.images.in, corner(p, i, 0) + y * p.images.by_row, side, line);
      const float* green =
          floats(p.images.in, corner(p, i, 1) + y * p.images.by_row, side, line + side);
      const float* blue =
          floats(p.images.in, corner(p, i, 2) + y * p.images.by_row, side, line + 2 * side);
      for (int64_t x = 0; x < side; ++x) {
        to[3 * x] = red[x];
        to[3 * x + 1] = green[x];
        to[3 * x + 2] = blue[x];
      }
      continue;
    }
    for (int64_t c = 0; c < channels; ++c) {
      const float* from = floats(p.images.in, corner(p, i, c) + y * p.images.by_row, side, line);
      for (int64_t x = 0; x < side; ++x) to[x * channels + c] = from[x];
    }
  }
}

}  // namespace

void forward_range(const Params& p, int64_t begin, int64_t end) {
  const int64_t n = p.values;
  Scratch<float> line(3 * p.patch), target(n), room(n);
  const float* t = target.data;
  for (int64_t i = begin; i < end; ++i) {
    p.error[i] = p.mean[i] = 0.0f;
    p.rstd[i] = 1.0f;
    if (!p.mask[i]) continue;
    true_patch(p, i, line.data, target.data);
    if (p.normalise) {
      const float mean = sum_of(n, [&](int64_t j) { return t[j]; }) / static_cast<float>(n);
      const float squares = sum_of(n, [&](int64_t j) { return (t[j] - mean) * (t[j] - mean); });
      p.mean[i] = mean;
      p.rstd[i] = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n - 1) + kEpsilon);
    }
    const float mean = p.mean[i], rstd = p.rstd[i];
    const float* guess = floats(p.predicted, i * n, n, room.data);
    p.error[i] = sum_of(n, [&](int64_t j) {
      const float d = guess[j] - (t[j] - mean) * rstd;
      return d * d;
    });
  }
}

void backward_range(const Params& p, Out out, float scale, int64_t begin, int64_t end) {
  const int64_t n = p.values;
  Scratch<float> line(3 * p.patch), target(n), room(n), result(n);
  const float* t = target.data;
  for (int64_t i = begin; i < end; ++i) {
    float* d = place(out, i * n, result.data);
    if (p.mask[i]) {
      true_patch(p, i, line.data, target.data);
      const float mean = p.mean[i], rstd = p.rstd[i];
      const float* guess = floats(p.predicted, i * n, n, room.data);
      for (int64_t j = 0; j < n; ++j) d[j] = (guess[j] - (t[j] - mean) * rstd) * scale;
    } else {
      for (int64_t j = 0; j < n; ++j) d[j] = 0.0f;
    }
    put(out, i * n, n, d);
  }
}

}  // namespace ecamp::masked_mse::ECAMP_LANE
