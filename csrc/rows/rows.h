// Rows by index: gather (out[i] = x[index[i]], zeros for -1) and scatter (out[index[i]] = x[i],
// zeros elsewhere). Rows are bytes, so every dtype is served by the same code.
// Torch-free. Shapes: x [rows_in, bytes]; out [rows_out, bytes]; index [rows_out] for gather,
// [rows_in] for scatter.
#pragma once

#include <cstdint>

#include "common/lanes.h"

namespace ecamp::rows {

struct Params {
  const char* x;
  const int64_t* index;
  char* out;
  int64_t rows_in, rows_out, bytes;
};

// Rows [begin, end) of the result. A scatter on the host comes here too, with its index inverted:
// each row of the result is then written once, by one thread.
ECAMP_LANES(void, gather_range, (const Params& params, int64_t begin, int64_t end))

// On the current device; an index outside the range counts as -1. Returns a cudaError_t.
int gather_cuda(const Params& params, void* stream);
int scatter_cuda(const Params& params, void* stream);

}  // namespace ecamp::rows
