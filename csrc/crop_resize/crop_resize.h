// One crop per image, bilinear, mirrored or not, normalised, at two sizes in one pass.
// Torch-free. Shapes: images [batch, height, width, channels] bytes; crop [batch, 4] x0, y0, x1, y1
// in 0..1; flip [batch]; scale, shift [channels]; large [batch, channels, size, size]; small the
// same with size / pool, the mean of pool x pool pixels of large.
#pragma once

#include <cstdint>

#include "common/hostdevice.h"
#include "common/lanes.h"

namespace ecamp::crop_resize {

struct Params {
  const uint8_t* images;
  const float* crop;
  const bool* flip;
  const float *scale, *shift;  // value = byte * scale + shift
  int64_t batch, height, width, channels, size, pool;
  float *large, *small;
};

// Two neighbours and the weight of the second.
struct Tap {
  int32_t first, second;
  float weight;
};

// Position of output pixel `i` of `size` among `count` pixels, of which low..high (0..1) is cropped.
// Beyond the outer pixels' centres their value continues.
ECAMP_HD Tap tap(float low, float high, int64_t i, int64_t size, int64_t count) {
  const float part = (static_cast<float>(i) + 0.5f) / static_cast<float>(size);
  const float last = static_cast<float>(count - 1);
  float at = (low + part * (high - low)) * static_cast<float>(count) - 0.5f;
  at = at > 0.0f ? at : 0.0f;  // a NaN becomes 0: no crop reads outside
  at = at < last ? at : last;
  const int32_t first = static_cast<int32_t>(at);
  const int32_t second = first + 1 < count ? first + 1 : first;
  return {first, second, at - static_cast<float>(first)};
}

ECAMP_HD float blend(float a, float b, float weight) { return a * (1.0f - weight) + b * weight; }

// Images [begin, end) on the host.
ECAMP_LANES(void, crop_images, (const Params& params, int64_t begin, int64_t end))

// On the current device, one launch; returns a cudaError_t.
int crop_cuda(const Params& params, void* stream);

}  // namespace ecamp::crop_resize
