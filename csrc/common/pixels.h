// Images [batch, channels, height, width] of any floating type, strided; only pixels of one image
// row must lie side by side, so that a crop of a larger image needs no copy.
#pragma once

#include "common/cast.h"

namespace ecamp {

struct Pixels {
  In in;
  int64_t batch, channels, height, width;
  int64_t by_image, by_channel, by_row;  // strides
};

ECAMP_HD int64_t pixel(const Pixels& p, int64_t b, int64_t c, int64_t y, int64_t x) {
  return b * p.by_image + c * p.by_channel + y * p.by_row + x;
}

}  // namespace ecamp
