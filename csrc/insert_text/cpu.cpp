#include "insert_text/insert_text.h"

namespace ecamp::insert_text::ECAMP_LANE {
namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace

void draw_rows(const Params& p, Draw* draws, int64_t* lengths) {
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t sample = p.index[b];
    const Philox random = philox(0, static_cast<uint32_t>(sample), p.step, kOp, p.seed);
    const uint64_t edge_index =
        (uint64_t{random.word[1]} * static_cast<uint64_t>(p.edge_count[sample])) >> 32;
    draws[b].edge = p.edges[p.edge_start[sample] + static_cast<int64_t>(edge_index)];
    draws[b].block_length = random.word[0] < p.limit ? p.block_length[sample] : 0;
    lengths[b] = 1 + smaller(p.report_length[sample] + draws[b].block_length, p.max_length - 1);
  }
}

void write_rows(const Params& p, const Draw* draws, const int64_t* starts, const int64_t* lengths,
                int64_t* ids, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    const int64_t sample = p.index[b], size = lengths[b] - 1;
    const int32_t* report = p.pool + p.report_start[sample];
    const int32_t* block = p.pool + p.block_start[sample];
    int64_t* out = ids + starts[b];
    *out++ = p.cls;
    // The report before the edge, the block, the rest of the report; all truncated at `size` tokens.
    const int64_t edge = smaller(draws[b].edge, size);
    const int64_t inserted = smaller(edge + draws[b].block_length, size);
    for (int64_t i = 0; i < edge; ++i) out[i] = report[i];
    for (int64_t i = edge; i < inserted; ++i) out[i] = block[i - edge];
    for (int64_t i = inserted; i < size; ++i) out[i] = report[i - draws[b].block_length];
  }
}

}  // namespace ecamp::insert_text::ECAMP_LANE
