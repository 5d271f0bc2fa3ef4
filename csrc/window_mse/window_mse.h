// Mean squared error of a prediction against one window of each image; only the window is read.
// Torch-free. Shapes: predicted and its gradient [batch, channels, height, width]; row, column
// [batch], the window's first pixel; loss one value.
#pragma once

#include <cstdint>

#include "common/lanes.h"
#include "common/pixels.h"

namespace ecamp::window_mse {

struct Params {
  In predicted;
  Pixels images;
  const int64_t* row;
  const int64_t* column;
  int64_t height, width;  // of the window
  double* error;          // forward: [batch * channels * strips] sums of squares
  int64_t strips;         // parts of a plane, a function of the window's height alone
  float* loss;
};

constexpr int64_t kStrip = 16;  // rows of a strip

ECAMP_HD int64_t clip(int64_t at, int64_t last) { return at < 0 ? 0 : (at > last ? last : at); }

// Address of row y of plane i's window in the images; a window outside is moved inside.
ECAMP_HD int64_t start(const Params& p, int64_t i, int64_t y) {
  const int64_t b = i / p.images.channels;
  return pixel(p.images, b, i % p.images.channels,
               clip(p.row[b], p.images.height - p.height) + y,
               clip(p.column[b], p.images.width - p.width));
}

// Strips [begin, end) of batch * channels * strips.
ECAMP_LANES(void, forward_range, (const Params& params, int64_t begin, int64_t end))
// Gradient of predicted; `scale` is 2 * gradient of the loss / number of values.
ECAMP_LANES(void, backward_range, (const Params& params, Out out, float scale, int64_t begin, int64_t end))

// On the current device; return a cudaError_t. Forward: one launch for the strips, one that adds
// their sums in order. `grad` is the gradient of the loss, one value on the device.
int forward_cuda(const Params& params, void* stream);
int backward_cuda(const Params& params, In grad, Out out, void* stream);

}  // namespace ecamp::window_mse
