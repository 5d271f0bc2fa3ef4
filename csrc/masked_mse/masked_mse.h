// Mean squared error over the pixels of masked patches, the target read directly from the images.
// Torch-free. Shapes: predicted and its gradient [batch, patches, patch * patch * channels] (row,
// column, channel); mask, mean, rstd, error [batch, patches]; loss, count one value.
#pragma once

#include <cstdint>

#include "common/lanes.h"
#include "common/pixels.h"

namespace ecamp::masked_mse {

constexpr float kEpsilon = 1e-6f;  // of normalise_patches in ecamp/pretext/images.py

struct Params {
  In predicted;
  Pixels images;
  const bool* mask;
  int64_t patch, across, patches;  // side; patches of one row of the grid, of the whole grid
  int64_t values;                  // of one patch
  bool normalise;
  float* error;  // forward: sum of squares of a patch, 0 where not masked
  float* mean;   // of the true patch, 0 and 1 without normalise
  float* rstd;
  float* loss;
  float* count;  // max(1, masked patches)
};

// Address of the first pixel of patch i of batch * patches.
ECAMP_HD int64_t corner(const Params& p, int64_t i, int64_t channel) {
  const int64_t at = i % p.patches;
  return pixel(p.images, i / p.patches, channel, at / p.across * p.patch, at % p.across * p.patch);
}

// Patches [begin, end) of batch * patches.
ECAMP_LANES(void, forward_range, (const Params& params, int64_t begin, int64_t end))
// Gradient of predicted; `scale` is 2 * gradient of the loss / (count * values).
ECAMP_LANES(void, backward_range, (const Params& params, Out out, float scale, int64_t begin, int64_t end))

// On the current device; return a cudaError_t. Forward: one launch for the patches, one that adds
// their sums in order. `grad` is the gradient of the loss, one value on the device.
int forward_cuda(const Params& params, void* stream);
int backward_cuda(const Params& params, In grad, Out out, void* stream);

}  // namespace ecamp::masked_mse
