// Softmax attention over segments of packed or padded rows; the rules are in
// ecamp/ops/attention.py. Torch-free. Shapes: query [Tq, H, d], key, value [Tk, H, d] with any
// strides over rows and heads and the last axis contiguous; output, output_grad, query_grad
// [Tq, H, d] and key_grad, value_grad [Tk, H, d] contiguous; lse [Tq, H]; the layout [batch].
#pragma once

#include <cstdint>

#include "common/cast.h"
#include "common/hostdevice.h"
#include "common/lanes.h"
#include "common/philox.h"

namespace ecamp::attention {

constexpr int64_t kMaxWidth = 128;
constexpr int64_t kMaxKeys = 4 * 65535;  // the counter has 16 bits for a block of four keys

// Rows of heads: element (row, head, i) lies at data[row * row_stride + head * head_stride + i].
struct View {
  const void* data;
  int64_t row_stride, head_stride;
};

struct Params {
  Type type;
  View query, key, value;
  const int64_t *query_start, *query_length, *key_start, *key_length, *sample_ids;
  int64_t batch, heads, width, query_rows, key_rows, max_query, max_key;
  float scale;
  // Dropout: a probability is kept when its 32-bit draw is >= limit, and multiplied by keep_scale.
  uint64_t limit, seed;
  uint32_t step;
  float keep_scale;
  // Forward writes output and lse; backward reads them and output_grad and writes the other three.
  void* output;
  float* lse;
  View output_grad;
  void *query_grad, *key_grad, *value_grad;
};

// One sample's rows. A segment outside the tensors or longer than the stated maximum is empty:
// the host refuses it beforehand, a device cannot.
struct Segment {
  int64_t query_start, queries, key_start, keys;
};

ECAMP_HD bool fits(int64_t start, int64_t length, int64_t rows, int64_t most) {
  return start >= 0 && length >= 0 && length <= most && length <= rows && start <= rows - length;
}

ECAMP_HD Segment segment_of(const Params& p, int64_t b) {
  const Segment s{p.query_start[b], p.query_length[b], p.key_start[b], p.key_length[b]};
  const bool good = fits(s.query_start, s.queries, p.query_rows, p.max_query) &&
                    fits(s.key_start, s.keys, p.key_rows, p.max_key);
  return good ? s : Segment{0, 0, 0, 0};
}

// The four draws of keys 4 * block .. 4 * block + 3, for one query.
ECAMP_HD Philox draws(const Params& p, int64_t query, int64_t head, int64_t block, int64_t sample) {
  return philox(static_cast<uint32_t>(query),
                static_cast<uint32_t>(head) << 16 | static_cast<uint32_t>(block),
                static_cast<uint32_t>(sample), p.step, p.seed);
}

// Pairs [begin, end) of (head, sample), number head * batch + sample: a thread then gets
// short and long samples alike. Each pair owns its rows of every result; rows outside all segments
// are not touched.
ECAMP_LANES(void, forward_pairs, (const Params& params, int64_t begin, int64_t end))
ECAMP_LANES(void, backward_pairs, (const Params& params, int64_t begin, int64_t end))

// The whole batch on the current device; one launch forward, two backward (queries, then keys and
// values). Rows outside all segments are not touched. Returns a cudaError_t; `stream` is a
// cudaStream_t.
int forward_cuda(const Params& params, void* stream);
int backward_cuda(const Params& params, void* stream);

}  // namespace ecamp::attention
