#include "patch_select/patch_select.h"

namespace ecamp::patch_select::ECAMP_LANE {

void select_range(const Params& p, int64_t begin, int64_t end) {
  const int64_t values = p.images.channels * p.patch * p.patch;
  Scratch<float> line(p.patch), room(values);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t top = p.keep[i] / p.across * p.patch, left = p.keep[i] % p.across * p.patch;
    float* out = place(p.out, i * values, room.data);
    for (int64_t c = 0, at = 0; c < p.images.channels; ++c)
      for (int64_t y = 0; y < p.patch; ++y, at += p.patch) {
        const int64_t from = pixel(p.images, i / p.kept, c, top + y, left);
        const float* row = floats(p.images.in, from, p.patch, line.data);
        for (int64_t x = 0; x < p.patch; ++x) out[at + x] = row[x];
      }
    put(p.out, i * values, values, out);
  }
}

void spread_range(const Gradient& g, int64_t begin, int64_t end) {
  const int64_t square = g.patch * g.patch, plane = g.height * g.width;
  const int64_t size = g.out.type == Type::f32 ? 4 : 2;
  Scratch<float> room(square);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t b = i / g.channels, c = i % g.channels;
    __builtin_memset(static_cast<char*>(g.out.data) + i * plane * size, 0, plane * size);
    for (int64_t k = 0; k < g.kept; ++k) {
      const int64_t at = g.keep[b * g.kept + k];
      const int64_t corner = i * plane + at / g.across * g.patch * g.width + at % g.across * g.patch;
      const int64_t first = ((b * g.kept + k) * g.channels + c) * square;
      const float* from = floats(g.grad, first, square, room.data);
      for (int64_t y = 0; y < g.patch; ++y)
        put(g.out, corner + y * g.width, g.patch, from + y * g.patch);
    }
  }
}

}  // namespace ecamp::patch_select::ECAMP_LANE
