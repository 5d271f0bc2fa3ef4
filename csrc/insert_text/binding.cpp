// Checks, draws, allocates the drawn lengths, and hands rows to threads. Stable ABI only.
#include <algorithm>
#include <tuple>
#include <vector>

#include "common/register.h"
#include "common/torch.h"
#include "insert_text/insert_text.h"

namespace ecamp::insert_text {
namespace {

const int64_t* longs(const Tensor& t, const char* name, int64_t size) {
  check(t, "insert_text", name, ScalarType::Long, 1);
  STD_TORCH_CHECK(size < 0 || t.size(0) == size, "insert_text: ", name, " must have ", size,
                  " entries, has ", t.size(0));
  return t.const_data_ptr<int64_t>();
}

std::tuple<Tensor, Tensor> insert_text_cpu(
    Tensor index, Tensor pool, Tensor report_start, Tensor report_length, Tensor block_start,
    Tensor block_length, Tensor edges, Tensor edge_start, Tensor edge_count, int64_t step,
    int64_t seed, int64_t limit, int64_t max_length, int64_t cls) {
  const int64_t texts = report_start.size(0);
  check(pool, "insert_text", "pool", ScalarType::Int, 1);
  const Params p{pool.const_data_ptr<int32_t>(),
                 longs(index, "index", -1),
                 longs(report_start, "report_start", texts),
                 longs(report_length, "report_length", texts),
                 longs(block_start, "block_start", texts),
                 longs(block_length, "block_length", texts),
                 longs(edges, "edges", -1),
                 longs(edge_start, "edge_start", texts),
                 longs(edge_count, "edge_count", texts),
                 index.size(0),
                 max_length,
                 static_cast<uint32_t>(step),
                 static_cast<uint64_t>(seed),
                 static_cast<uint64_t>(limit),
                 cls};
  STD_TORCH_CHECK(max_length >= 1, "insert_text: max_length must be at least 1");
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t i = p.index[b];
    STD_TORCH_CHECK(i >= 0 && i < texts, "insert_text: an index lies outside 0..", texts - 1);
    const auto inside = [](int64_t start, int64_t length, const Tensor& t) {
      return start >= 0 && length >= 0 && start <= t.size(0) - length;
    };
    STD_TORCH_CHECK(inside(p.report_start[i], p.report_length[i], pool) &&
                        inside(p.block_start[i], p.block_length[i], pool) &&
                        p.edge_count[i] > 0 && inside(p.edge_start[i], p.edge_count[i], edges),
                    "insert_text: the tables of text ", i, " lead outside the pool");
  }
  const Tensor lengths = new_like(index, ScalarType::Long);
  int64_t* length = lengths.mutable_data_ptr<int64_t>();
  std::vector<Draw> draws(p.batch);
  ECAMP_LANE_CALL(draw_rows)(p, draws.data(), length);
  std::vector<int64_t> starts(p.batch + 1, 0);
  for (int64_t b = 0; b < p.batch; ++b) {
    STD_TORCH_CHECK(draws[b].edge >= 0 && draws[b].edge <= p.report_length[p.index[b]],
                    "insert_text: an edge of text ", p.index[b], " lies outside it");
    starts[b + 1] = starts[b] + length[b];
  }
  const Tensor ids = torch::stable::new_empty(index, {starts[p.batch]}, ScalarType::Long);
  int64_t* out = ids.mutable_data_ptr<int64_t>();
  torch::stable::parallel_for(0, p.batch, 256, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(write_rows)(p, draws.data(), starts.data(), length, out, begin, end);
  });
  return {ids, lengths};
}

ECAMP_REGISTER_ON(CPU, "insert_text", insert_text_cpu)

}  // namespace
}  // namespace ecamp::insert_text
