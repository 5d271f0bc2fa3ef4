// Indices of the true entries of a mask, in order. Torch-free. mask [size] bytes, out [count].
#pragma once

#include <cstdint>

#include "common/hostdevice.h"
#include "common/lanes.h"

namespace ecamp::select_rows {

// Number of non-zero bytes in [begin, end).
ECAMP_LANES(int64_t, count_true, (const uint8_t* mask, int64_t begin, int64_t end))

// Writes the indices in [begin, end) of non-zero bytes to out[0], out[1], ... in order. `out` has
// room for exactly as many as count_true found there.
ECAMP_LANES(void, write_true, (const uint8_t* mask, int64_t begin, int64_t end, int64_t* out,
                               int64_t count))

// The whole mask on the current device, one launch, no allocation, no synchronisation. Indices
// beyond `count` are dropped, and missing ones become -1. Returns a cudaError_t.
int select_cuda(const uint8_t* mask, int64_t size, int64_t* out, int64_t count, void* stream);

}  // namespace ecamp::select_rows
