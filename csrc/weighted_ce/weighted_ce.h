// Cross-entropy of a chunk of logits, row by row, in place: the logits become their own gradient.
// Torch-free. Shapes: logits [rows, vocabulary], rows `stride` elements apart; bias [vocabulary];
// labels, weights, losses [rows].
#pragma once

#include <cstdint>

#include "common/cast.h"
#include "common/exp.h"
#include "common/hostdevice.h"
#include "common/lanes.h"

namespace ecamp::weighted_ce {

struct Params {
  Type type;          // of logits and bias
  void* logits;       // in: without the bias; out: the gradient, see `gradient`
  const void* bias;   // null without one
  const int64_t* labels;
  const float* weights;
  float* losses;      // out: log(sum(exp(x))) - x[label], not weighted
  int64_t rows, vocabulary, stride;
  float scale;    // factor of the gradient, so that small ones do not vanish in float16
  bool gradient;  // overwrite logits with (softmax - onehot) * weight * scale; else leave them
};

// Rows [begin, end) on the host. The caller has checked the labels.
ECAMP_LANES(void, ce_range, (const Params& params, int64_t begin, int64_t end))

// All rows on the current device, one launch, no allocation, no synchronisation. A row whose label
// lies outside the vocabulary gets loss and gradient 0.
// Returns a cudaError_t; `stream` is a cudaStream_t.
int ce_cuda(const Params& params, void* stream);

}  // namespace ecamp::weighted_ce
