// Checks, allocates, and hands row ranges to threads or the batch to the device. Stable ABI only.
#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "common/register.h"
#include "common/torch.h"
#include "mask_tokens/mask_tokens.h"

namespace ecamp::mask_tokens {
namespace {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct Prepared {
  Params params;
  Result out;
};

Prepared prepare(const Tensor& ids, const std::optional<Tensor>& starts, int64_t window,
                 const Tensor& lengths, const Tensor& sample_ids, int64_t step, int64_t seed, const Tensor& flags, const Tensor& patterns,
                 const Tensor& pattern_start, int64_t mask_id, int64_t t_entity, int64_t t_other,
                 int64_t t_plain, int64_t descriptor_words, double template_weight) {
  const char* op = "mask_tokens";
  check(ids, op, "ids", ScalarType::Long, starts ? 1 : 2);
  check(lengths, op, "lengths", ScalarType::Long, 1);
  check(sample_ids, op, "sample_ids", ScalarType::Long, 1);
  check(flags, op, "flags", ScalarType::Byte, 1);
  check(patterns, op, "patterns", ScalarType::Int, 2);
  check(pattern_start, op, "pattern_start", ScalarType::Int, 1);
  const int64_t batch = lengths.size(0);
  if (starts) {
    check(*starts, op, "starts", ScalarType::Long, 1);
    STD_TORCH_CHECK(starts->size(0) == batch, "mask_tokens: starts must have one entry per row");
  } else {
    STD_TORCH_CHECK(ids.size(0) == batch && ids.size(1) == window,
                    "mask_tokens: ids must be (", batch, ", ", window, ")");
  }
  STD_TORCH_CHECK(window >= 0 && lengths.size(0) == batch && sample_ids.size(0) == batch,
                  "mask_tokens: lengths and sample_ids must have one entry per row");
  STD_TORCH_CHECK(pattern_start.size(0) == flags.size(0) + 1,
                  "mask_tokens: pattern_start must have one entry more than flags");
  Result out{new_like(ids, ScalarType::Long), new_like(ids, ScalarType::Bool),
             new_like(ids, ScalarType::Float), new_like(ids, ScalarType::Byte)};
  Params p{};
  p.ids = ids.const_data_ptr<int64_t>();
  p.starts = starts ? starts->const_data_ptr<int64_t>() : nullptr;
  p.lengths = lengths.const_data_ptr<int64_t>();
  p.sample_ids = sample_ids.const_data_ptr<int64_t>();
  p.flags = flags.const_data_ptr<uint8_t>();
  p.patterns = patterns.const_data_ptr<int32_t>();
  p.pattern_start = pattern_start.const_data_ptr<int32_t>();
  p.batch = batch;
  p.window = window;
  p.vocabulary = flags.size(0);
  p.pattern_width = patterns.size(1);
  p.step = static_cast<uint32_t>(step);
  p.seed = static_cast<uint64_t>(seed);
  p.mask_id = mask_id;
  p.limit_entity = static_cast<uint64_t>(t_entity);
  p.limit_other = static_cast<uint64_t>(t_other);
  p.limit_plain = static_cast<uint64_t>(t_plain);
  p.descriptor_words = descriptor_words;
  p.template_weight = template_weight;
  p.out_ids = std::get<0>(out).mutable_data_ptr<int64_t>();
  p.out_mask = std::get<1>(out).mutable_data_ptr<bool>();
  p.out_weights = std::get<2>(out).mutable_data_ptr<float>();
  p.out_roles = std::get<3>(out).mutable_data_ptr<uint8_t>();
  return {p, out};
}

Result mask_tokens_cpu(Tensor ids, std::optional<Tensor> starts, int64_t window, Tensor lengths,
                       Tensor sample_ids, int64_t step, int64_t seed,
                       Tensor flags, Tensor patterns, Tensor pattern_start, int64_t mask_id,
                       int64_t t_entity, int64_t t_other, int64_t t_plain,
                       int64_t descriptor_words, double template_weight) {
  const Prepared ready =
      prepare(ids, starts, window, lengths, sample_ids, step, seed, flags, patterns, pattern_start, mask_id,
              t_entity, t_other, t_plain, descriptor_words, template_weight);
  const Params& p = ready.params;
  bool outside = false;  // no early exit, so that the loop vectorises
  for (int64_t i = 0; i < ids.numel(); ++i)
    outside |= static_cast<uint64_t>(p.ids[i]) >= static_cast<uint64_t>(p.vocabulary);
  STD_TORCH_CHECK(!outside, "mask_tokens: a token id lies outside 0..", p.vocabulary - 1);
  int64_t total = 0;
  bool apart = false;  // packed rows must be adjacent and fill ids
  for (int64_t b = 0; b < p.batch; ++b) {
    STD_TORCH_CHECK(p.lengths[b] >= 0 && p.lengths[b] <= p.window,
                    "mask_tokens: a length lies outside 0..", p.window);
    apart |= p.starts != nullptr && p.starts[b] != total;
    total += p.lengths[b];
  }
  STD_TORCH_CHECK(p.starts == nullptr || (!apart && total == ids.numel()),
                  "mask_tokens: lengths sum to ", total, ", but there are ", ids.numel(), " ids");
  // About 8,000 tokens per task: below that, waking a thread costs more than it brings.
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, p.window));
  torch::stable::parallel_for(0, p.batch, grain,
                              [&](int64_t begin, int64_t end) { ECAMP_LANE_CALL(mask_rows)(p, begin, end); });
  return ready.out;
}

Result mask_tokens_cuda(Tensor ids, std::optional<Tensor> starts, int64_t window, Tensor lengths,
                       Tensor sample_ids, int64_t step, int64_t seed,
                        Tensor flags, Tensor patterns, Tensor pattern_start, int64_t mask_id,
                        int64_t t_entity, int64_t t_other, int64_t t_plain,
                        int64_t descriptor_words, double template_weight) {
  const OnDevice device(ids);
  const Prepared ready =
      prepare(ids, starts, window, lengths, sample_ids, step, seed, flags, patterns, pattern_start, mask_id,
              t_entity, t_other, t_plain, descriptor_words, template_weight);
  STD_TORCH_CHECK(ready.params.window <= kMaxCudaWindow, "mask_tokens: at most ", kMaxCudaWindow,
                  " tokens per row on a GPU, got ", ready.params.window);
  launched(mask_batch_cuda(ready.params, device.stream()), "mask_tokens");
  return ready.out;
}

ECAMP_REGISTER("mask_tokens", mask_tokens_cpu, mask_tokens_cuda)

}  // namespace
}  // namespace ecamp::mask_tokens
