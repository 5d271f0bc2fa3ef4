// LayerNorm(dropout(x + row_bias[row_batch]) + residual) over packed rows, forward and backward;
// the rules are in ecamp/ops/residual_norm.py.
// Torch-free. Shapes: x, residual, y and their gradients [rows, width]; gamma, beta [width];
// row_bias [batch, width]; row_batch, samples, positions [rows]; mean, rstd [rows].
#pragma once

#include <cstdint>

#include "common/cast.h"
#include "common/lanes.h"
#include "common/philox.h"

namespace ecamp::residual_norm {

struct Params {
  In x, residual, gamma, beta;
  In row_bias;               // data is null without
  const int64_t* row_batch;  // null without row_bias
  const int64_t* samples;    // null when limit is 0
  const int64_t* positions;
  int64_t rows, width, batch;
  float eps;
  uint32_t limit;  // round(dropout * 2^32): a word below drops its column
  float scale;     // 1 / (1 - dropout)
  uint32_t step;
  uint64_t seed;
  Out y;
  float* mean;
  float* rstd;
};

// The backward takes Params (y and beta are not used) and:
struct Gradients {
  In grad;            // of y
  Out x, residual;    // residual.data is null when it would equal that of x
  float* partial;     // [blocks, 2, width]: dgamma and dbeta of a block of rows
  // Rows in the order of their sample, so that a block meets few samples; null without row_bias.
  const int64_t* order;      // [rows]
  const int64_t* first_run;  // [blocks]: number of the block's first run in partial_bias
  float* partial_bias;       // [runs, width]; a run: rows of one sample within one block
};

// Rows per partial sum. The partition depends on the number of rows alone, so sums have the
// same bits for any number of threads.
constexpr int64_t kBlock = 64;
constexpr int64_t kCudaBlock = 16;

// Sum of rows [first, last) of parts[.., stride], columns [0, width), to out[at, at + width).
struct Reduction {
  const float* parts;
  int64_t first, last, stride;
  Out out;
  int64_t at;
};

ECAMP_LANES(void, forward_rows, (const Params& params, int64_t begin, int64_t end))
ECAMP_LANES(void, backward_blocks, (const Params& params, const Gradients& grads, int64_t begin, int64_t end))
ECAMP_LANES(void, reduce, (const Reduction& reduction, int64_t width))

// On a GPU a thread owns four columns.
constexpr int64_t kMaxCudaWidth = 4096;

// On the current device, one launch; returns a cudaError_t.
int forward_cuda(const Params& params, void* stream);
// One launch for the rows and one that adds the partial sums in order (instead of float atomics,
// whose order changes from run to run). dgamma, dbeta [width]; dbias [batch, width] or null.
int backward_cuda(const Params& params, const Gradients& grads, Out dgamma, Out dbeta, Out dbias,
                  void* stream);

}  // namespace ecamp::residual_norm
