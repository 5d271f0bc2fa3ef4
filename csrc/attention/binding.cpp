// Checks, allocates, and hands pairs of (head, sample) to threads or the batch to the device.
// Stable ABI only.
#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "attention/attention.h"
#include "common/cast_torch.h"
#include "common/register.h"

namespace ecamp::attention {
namespace {

constexpr const char* kForward = "attention_forward";
constexpr const char* kBackward = "attention_backward";

View view_of(const Tensor& t, const char* op, const char* name, const Tensor& like) {
  STD_TORCH_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", name,
                  " must have the dtype of query");
  STD_TORCH_CHECK(t.dim() == 3, op, ": ", name, " must have 3 axes, has ", t.dim());
  STD_TORCH_CHECK(t.size(1) == like.size(1) && t.size(2) == like.size(2), op, ": ", name,
                  " must have the heads and the width of query");
  STD_TORCH_CHECK(t.stride(2) == 1 || t.numel() == 0, op, ": ", name,
                  " must be contiguous in its last axis");
  return {t.const_data_ptr(), t.stride(0), t.stride(1)};
}

struct Layout {
  const Tensor &query_start, &query_length, &key_start, &key_length, &sample_ids;
  int64_t max_query, max_key;
};
struct Numbers {
  int64_t limit;
  double keep_scale;
  int64_t seed, step;
  double scale;
};

Params prepare(const char* op, const Tensor& query, const Tensor& key, const Tensor& value,
               const Layout& layout, const Numbers& n) {
  Params p{};
  p.type = type_of(query, op, "query");
  STD_TORCH_CHECK(query.dim() == 3, op, ": query must have 3 axes, has ", query.dim());
  p.query = view_of(query, op, "query", query);
  p.key = view_of(key, op, "key", query);
  p.value = view_of(value, op, "value", query);
  p.heads = query.size(1);
  p.width = query.size(2);
  p.query_rows = query.size(0);
  p.key_rows = key.size(0);
  STD_TORCH_CHECK(value.size(0) == p.key_rows, op, ": value must have the rows of key");
  STD_TORCH_CHECK(p.width % 16 == 0 && p.width > 0 && p.width <= kMaxWidth, op,
                  ": the width of a head must be a multiple of 16 up to ", kMaxWidth, ", got ",
                  p.width);
  STD_TORCH_CHECK(p.heads <= 65535, op, ": at most 65535 heads");
  p.batch = layout.query_start.size(0);
  const std::pair<const char*, const Tensor*> parts[] = {
      {"query_start", &layout.query_start}, {"query_length", &layout.query_length},
      {"key_start", &layout.key_start},     {"key_length", &layout.key_length},
      {"sample_ids", &layout.sample_ids}};
  for (const auto& [name, tensor] : parts) {
    check(*tensor, op, name, ScalarType::Long, 1);
    STD_TORCH_CHECK(tensor->size(0) == p.batch, op, ": ", name, " must have one entry per sample");
  }
  STD_TORCH_CHECK(layout.max_key >= 0 && layout.max_key <= kMaxKeys && layout.max_query >= 0 &&
                      layout.max_query <= INT32_MAX,
                  op, ": max_query and max_key must be at least 0, max_key at most ", kMaxKeys);
  STD_TORCH_CHECK(n.limit >= 0 && n.limit <= int64_t{1} << 32, op, ": limit outside 0..2^32");
  p.query_start = layout.query_start.const_data_ptr<int64_t>();
  p.query_length = layout.query_length.const_data_ptr<int64_t>();
  p.key_start = layout.key_start.const_data_ptr<int64_t>();
  p.key_length = layout.key_length.const_data_ptr<int64_t>();
  p.sample_ids = layout.sample_ids.const_data_ptr<int64_t>();
  p.max_query = layout.max_query;
  p.max_key = layout.max_key;
  p.limit = static_cast<uint64_t>(n.limit);
  p.keep_scale = static_cast<float>(n.keep_scale);
  p.seed = static_cast<uint64_t>(n.seed);
  p.step = static_cast<uint32_t>(n.step);
  p.scale = static_cast<float>(n.scale);
  return p;
}

Tensor contiguous_like(const Tensor& t) {
  return torch::stable::new_empty(t, t.sizes(), t.scalar_type());
}

Tensor lse_like(const Tensor& query) {
  const int64_t shape[] = {query.size(0), query.size(1)};
  return torch::stable::new_empty(query, {shape, 2}, ScalarType::Float);
}

void check_lse(const Tensor& lse, const Params& p) {
  check(lse, kBackward, "lse", ScalarType::Float, 2);
  STD_TORCH_CHECK(lse.size(0) == p.query_rows && lse.size(1) == p.heads, kBackward,
                  ": lse must have the rows and heads of query");
}

// Rows of a tensor that no segment covers, as (start, count); refuses segments outside the tensor
// or over another, since two tasks would then write the same rows.
using Ranges = std::vector<std::pair<int64_t, int64_t>>;
Ranges gaps(const char* op, const char* name, const int64_t* start, const int64_t* length,
            int64_t batch, int64_t rows, int64_t most) {
  Ranges taken, free;
  for (int64_t b = 0; b < batch; ++b) {
    STD_TORCH_CHECK(fits(start[b], length[b], rows, most), op, ": the ", name, " of sample ", b,
                    " (start ", start[b], ", length ", length[b], ") do not fit ", rows,
                    " rows or exceed the stated maximum ", most);
    if (length[b] > 0) taken.emplace_back(start[b], length[b]);
  }
  std::sort(taken.begin(), taken.end());
  int64_t at = 0;
  for (const auto& [first, count] : taken) {
    STD_TORCH_CHECK(first >= at, op, ": two samples share ", name, " from row ", first);
    if (first > at) free.emplace_back(at, first - at);
    at = first + count;
  }
  if (at < rows) free.emplace_back(at, rows - at);
  return free;
}

// Checks the layout's values, zeroes rows outside segments of `queries` and `keys` (tensors with
// row sizes in bytes), and narrows the maxima to the true ones: buffers are sized by them.
using Targets = std::vector<std::pair<void*, int64_t>>;
void settle_cpu(const char* op, Params& p, const Targets& queries, const Targets& keys) {
  const Ranges free_queries = gaps(op, "queries", p.query_start, p.query_length, p.batch,
                                   p.query_rows, p.max_query);
  const Ranges free_keys =
      gaps(op, "keys", p.key_start, p.key_length, p.batch, p.key_rows, p.max_key);
  const auto clear = [](const Targets& targets, const Ranges& ranges) {
    for (const auto& [data, bytes] : targets)
      for (const auto& [start, count] : ranges)
        std::memset(static_cast<char*>(data) + start * bytes, 0, count * bytes);
  };
  clear(queries, free_queries);
  clear(keys, free_keys);
  p.max_query = p.batch == 0 ? 0 : *std::max_element(p.query_length, p.query_length + p.batch);
  p.max_key = p.batch == 0 ? 0 : *std::max_element(p.key_length, p.key_length + p.batch);
}

// Enough pairs per task that its work outweighs waking a thread (about a million multiplications).
int64_t grain_of(const Params& p) {
  const int64_t work = 2 * p.max_query * p.max_key * p.width + 1;
  return std::max<int64_t>(1, (int64_t{1} << 20) / work);
}

int64_t bytes_of(const Params& p) {
  return p.heads * p.width * (p.type == Type::f32 ? 4 : 2);
}

using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

Two forward_cpu(Tensor query, Tensor key, Tensor value, Tensor query_start, Tensor query_length,
                Tensor key_start, Tensor key_length, Tensor sample_ids, int64_t max_query,
                int64_t max_key, int64_t limit, double keep_scale, int64_t seed, int64_t step,
                double scale) {
  const Layout layout{query_start, query_length, key_start, key_length, sample_ids, max_query,
                      max_key};
  Params p = prepare(kForward, query, key, value, layout, {limit, keep_scale, seed, step, scale});
  Two out{contiguous_like(query), lse_like(query)};
  p.output = std::get<0>(out).mutable_data_ptr();
  p.lse = std::get<1>(out).mutable_data_ptr<float>();
  settle_cpu(kForward, p, {{p.output, bytes_of(p)}, {p.lse, p.heads * 4}}, {});
  torch::stable::parallel_for(0, p.batch * p.heads, grain_of(p), [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(forward_pairs)(p, begin, end);
  });
  return out;
}

struct Backward {
  Params params;
  Three grads;
};

Backward prepare_backward(const Tensor& output_grad, const Tensor& query, const Tensor& key,
                          const Tensor& value, const Tensor& output, const Tensor& lse,
                          const Layout& layout, const Numbers& numbers) {
  Params p = prepare(kBackward, query, key, value, layout, numbers);
  p.output_grad = view_of(output_grad, kBackward, "output_grad", query);
  view_of(output, kBackward, "output", query);
  STD_TORCH_CHECK(output.is_contiguous(), kBackward, ": output must be contiguous");
  STD_TORCH_CHECK(output.size(0) == p.query_rows && output_grad.size(0) == p.query_rows, kBackward,
                  ": output and output_grad must have the rows of query");
  check_lse(lse, p);
  p.output = const_cast<void*>(output.const_data_ptr());
  p.lse = const_cast<float*>(lse.const_data_ptr<float>());
  Three grads{contiguous_like(query), contiguous_like(key), contiguous_like(value)};
  p.query_grad = std::get<0>(grads).mutable_data_ptr();
  p.key_grad = std::get<1>(grads).mutable_data_ptr();
  p.value_grad = std::get<2>(grads).mutable_data_ptr();
  return {p, grads};
}

Three backward_cpu(Tensor output_grad, Tensor query, Tensor key, Tensor value, Tensor output,
                   Tensor lse, Tensor query_start, Tensor query_length, Tensor key_start,
                   Tensor key_length, Tensor sample_ids, int64_t max_query, int64_t max_key,
                   int64_t limit, double keep_scale, int64_t seed, int64_t step, double scale) {
  const Layout layout{query_start, query_length, key_start, key_length, sample_ids, max_query,
                      max_key};
  Backward ready = prepare_backward(output_grad, query, key, value, output, lse, layout,
                                    {limit, keep_scale, seed, step, scale});
  Params& p = ready.params;
  settle_cpu(kBackward, p, {{p.query_grad, bytes_of(p)}},
             {{p.key_grad, bytes_of(p)}, {p.value_grad, bytes_of(p)}});
  torch::stable::parallel_for(0, p.batch * p.heads, grain_of(p), [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(backward_pairs)(p, begin, end);
  });
  return ready.grads;
}

Two forward_gpu(Tensor query, Tensor key, Tensor value, Tensor query_start, Tensor query_length,
                Tensor key_start, Tensor key_length, Tensor sample_ids, int64_t max_query,
                int64_t max_key, int64_t limit, double keep_scale, int64_t seed, int64_t step,
                double scale) {
  const OnDevice device(query);
  const Layout layout{query_start, query_length, key_start, key_length, sample_ids, max_query,
                      max_key};
  Params p = prepare(kForward, query, key, value, layout, {limit, keep_scale, seed, step, scale});
  Two out{contiguous_like(query), lse_like(query)};
  torch::stable::zero_(std::get<0>(out));  // rows outside segments; only the device knows
  torch::stable::zero_(std::get<1>(out));  // which they are
  p.output = std::get<0>(out).mutable_data_ptr();
  p.lse = std::get<1>(out).mutable_data_ptr<float>();
  launched(forward_cuda(p, device.stream()), kForward);
  return out;
}

Three backward_gpu(Tensor output_grad, Tensor query, Tensor key, Tensor value, Tensor output,
                   Tensor lse, Tensor query_start, Tensor query_length, Tensor key_start,
                   Tensor key_length, Tensor sample_ids, int64_t max_query, int64_t max_key,
                   int64_t limit, double keep_scale, int64_t seed, int64_t step, double scale) {
  const OnDevice device(query);
  const Layout layout{query_start, query_length, key_start, key_length, sample_ids, max_query,
                      max_key};
  Backward ready = prepare_backward(output_grad, query, key, value, output, lse, layout,
                                    {limit, keep_scale, seed, step, scale});
  torch::stable::zero_(std::get<0>(ready.grads));
  torch::stable::zero_(std::get<1>(ready.grads));
  torch::stable::zero_(std::get<2>(ready.grads));
  launched(backward_cuda(ready.params, device.stream()), kBackward);
  return ready.grads;
}

ECAMP_REGISTER("attention_forward", forward_cpu, forward_gpu)
ECAMP_REGISTER("attention_backward", backward_cpu, backward_gpu)

}  // namespace
}  // namespace ecamp::attention
