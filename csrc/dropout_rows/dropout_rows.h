// Dropout whose decisions are a function of (seed, step, sample, position, column) alone.
// Rows [rows, width]; samples, positions [rows]. The gradient is the same function of the gradient.
#pragma once

#include <cstdint>

#include "common/cast.h"
#include "common/hostdevice.h"
#include "common/lanes.h"
#include "common/philox.h"

namespace ecamp::dropout_rows {

struct Params {
  Type type;  // of input and output
  const void* in;
  void* out;
  const int64_t* samples;
  const int64_t* positions;
  int64_t rows, width;
  uint32_t step;
  uint64_t seed;
  uint64_t limit;  // round(p * 2^32): a word below it drops
  float scale;     // 1 / (1 - p)
};

// The four decisions of columns 4*block .. 4*block + 3.
ECAMP_HD Philox words(const Params& p, int64_t row, int64_t block) {
  return philox(static_cast<uint32_t>(p.positions[row]), static_cast<uint32_t>(block),
                static_cast<uint32_t>(p.samples[row]), p.step, p.seed);
}

// Rows [begin, end) on the host.
ECAMP_LANES(void, drop_rows, (const Params& params, int64_t begin, int64_t end))

// Returns a cudaError_t; `stream` is a cudaStream_t.
int drop_cuda(const Params& params, void* stream);

}  // namespace ecamp::dropout_rows
