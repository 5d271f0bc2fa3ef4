#include "window_mse/window_mse.h"

#include "common/sum.h"

namespace ecamp::window_mse::ECAMP_LANE {
namespace {

// Calls body(offset of the row in predicted, predicted, target) for every row of a strip.
template <class Body>
void each_row(const Params& p, int64_t strip, float* room, Body body) {
  const int64_t plane = strip / p.strips, n = p.width;
  const int64_t first = strip % p.strips * kStrip;
  const int64_t last = first + kStrip < p.height ? first + kStrip : p.height;
  for (int64_t y = first; y < last; ++y) {
    const int64_t at = (plane * p.height + y) * n;
    body(at, floats(p.predicted, at, n, room), floats(p.images.in, start(p, plane, y), n, room + n));
  }
}

}  // namespace

void forward_range(const Params& p, int64_t begin, int64_t end) {
  Scratch<float> room(2 * p.width);
  for (int64_t strip = begin; strip < end; ++strip) {
    double sum = 0.0;
    each_row(p, strip, room.data, [&](int64_t, const float* guess, const float* target) {
      sum += sum_of(p.width, [&](int64_t x) {
        return (guess[x] - target[x]) * (guess[x] - target[x]);
      });
    });
    p.error[strip] = sum;
  }
}

void backward_range(const Params& p, Out out, float scale, int64_t begin, int64_t end) {
  Scratch<float> room(2 * p.width), result(p.width);
  for (int64_t strip = begin; strip < end; ++strip)
    each_row(p, strip, room.data, [&](int64_t at, const float* guess, const float* target) {
      float* d = place(out, at, result.data);
      const int64_t n = p.width;  // copies: `d` could overlap what the lambda refers to
      const float factor = scale;
      for (int64_t x = 0; x < n; ++x) d[x] = (guess[x] - target[x]) * factor;
      put(out, at, n, d);
    });
}

}  // namespace ecamp::window_mse::ECAMP_LANE
