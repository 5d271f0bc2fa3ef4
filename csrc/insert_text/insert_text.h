// Reports with their distilled texts inserted at a drawn boundary; the rules are in
// ecamp/ops/insert_text.py. Torch-free, host only: this is the data path, before a GPU.
#pragma once

#include <cstdint>

#include "common/lanes.h"
#include "common/philox.h"

namespace ecamp::insert_text {

constexpr uint32_t kOp = 2;  // last word of the Philox counter

struct Params {
  const int32_t* pool;  // tokens of all texts
  const int64_t* index;
  const int64_t *report_start, *report_length;  // range of a report in the pool
  const int64_t *block_start, *block_length;    // ... and its distilled text
  const int64_t *edges, *edge_start, *edge_count;  // tokens before each boundary
  int64_t batch, max_length;
  uint32_t step;
  uint64_t seed, limit;  // limit: round(p * 2^32)
  int64_t cls;
};

// Draw of a report: tokens before the block (its distilled text), and the block's length (0: none).
struct Draw {
  int64_t edge, block_length;
};

// Draws for all reports of a batch, and the lengths of their texts with [CLS].
ECAMP_LANES(void, draw_rows, (const Params& p, Draw* draws, int64_t* lengths))
// Writes the texts [begin, end) of a batch to ids, text b from starts[b] on.
ECAMP_LANES(void, write_rows, (const Params& p, const Draw* draws, const int64_t* starts,
                               const int64_t* lengths, int64_t* ids, int64_t begin, int64_t end))

}  // namespace ecamp::insert_text
