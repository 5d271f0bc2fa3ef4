// Pixels of the patches to keep, each patch in the order of a convolution's weight (channel, row,
// column), and the backward that writes their gradients into an image of zeros.
// Torch-free. Shapes: keep [batch, kept], patches [batch, kept, channels * patch * patch].
#pragma once

#include <cstdint>

#include "common/lanes.h"
#include "common/pixels.h"

namespace ecamp::patch_select {

struct Params {
  Pixels images;
  const int64_t* keep;
  int64_t kept, patch;
  int64_t across, patches;  // patches of one row of the grid, of the whole grid
  Out out;
};

// The gradient of images, contiguous.
struct Gradient {
  In grad;  // of the patches
  const int64_t* keep;
  int64_t batch, channels, height, width, kept, patch, across, patches;
  Out out;
};

// Patches [begin, end) of batch * kept.
ECAMP_LANES(void, select_range, (const Params& params, int64_t begin, int64_t end))
// Planes [begin, end) of batch * channels.
ECAMP_LANES(void, spread_range, (const Gradient& gradient, int64_t begin, int64_t end))

// On the current device; a patch outside the grid gives zeros and gets no gradient.
// Return a cudaError_t.
int select_cuda(const Params& params, void* stream);
int spread_cuda(const Gradient& gradient, void* stream);

}  // namespace ecamp::patch_select
