// Checks, allocates the losses, and hands row ranges to threads or the chunk to the device.
#include <algorithm>
#include <optional>

#include "common/torch.h"
#include "weighted_ce/weighted_ce.h"

namespace ecamp::weighted_ce {
namespace {

Params prepare(const Tensor& logits, const std::optional<Tensor>& bias, const Tensor& labels,
               const Tensor& weights, const Tensor& losses, double scale, bool gradient) {
  const char* op = "ce_rows_";
  STD_TORCH_CHECK(logits.dim() == 2, "ce_rows_: logits must have 2 axes, has ", logits.dim());
  const int64_t rows = logits.size(0), vocabulary = logits.size(1);
  STD_TORCH_CHECK(vocabulary > 0, "ce_rows_: logits must have at least one column");
  STD_TORCH_CHECK(logits.stride(1) == 1 || vocabulary == 1,
                  "ce_rows_: logits must have adjacent columns");
  STD_TORCH_CHECK(logits.stride(0) >= vocabulary || rows < 2, "ce_rows_: rows of logits overlap");
  check(labels, op, "labels", ScalarType::Long, 1);
  check(weights, op, "weights", ScalarType::Float, 1);
  STD_TORCH_CHECK(labels.size(0) == rows && weights.size(0) == rows,
                  "ce_rows_: labels and weights must have one entry a row of logits");
  if (bias.has_value()) {
    check(*bias, op, "bias", logits.scalar_type(), 1);
    STD_TORCH_CHECK(bias->size(0) == vocabulary, "ce_rows_: bias must have ", vocabulary,
                    " entries, has ", bias->size(0));
  }
  Params p{};
  p.logits = logits.mutable_data_ptr();
  p.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  p.labels = labels.const_data_ptr<int64_t>();
  p.weights = weights.const_data_ptr<float>();
  p.losses = losses.mutable_data_ptr<float>();
  p.rows = rows;
  p.vocabulary = vocabulary;
  p.stride = logits.stride(0);
  p.scale = static_cast<float>(scale);
  p.gradient = gradient;
  return p;
}

void rows_of(const Params& p, float, int64_t begin, int64_t end) {
  ECAMP_LANE_CALL(ce_float)(p, begin, end);
}
void rows_of(const Params& p, BFloat16, int64_t begin, int64_t end) {
  ECAMP_LANE_CALL(ce_bfloat16)(p, begin, end);
}
void rows_of(const Params& p, Half, int64_t begin, int64_t end) {
  ECAMP_LANE_CALL(ce_half)(p, begin, end);
}

Tensor ce_rows_cpu(Tensor logits, std::optional<Tensor> bias, Tensor labels, Tensor weights,
                   double scale, bool gradient) {
  const Tensor losses = new_like(labels, ScalarType::Float);
  const Params p = prepare(logits, bias, labels, weights, losses, scale, gradient);
  for (int64_t i = 0; i < p.rows; ++i)
    STD_TORCH_CHECK(p.labels[i] >= 0 && p.labels[i] < p.vocabulary, "ce_rows_: labels[", i, "] = ",
                    p.labels[i], " lies outside 0..", p.vocabulary - 1);
  // About 16,000 exponentials a task: below that, waking a thread costs more than it brings.
  const int64_t grain = std::max<int64_t>(1, 16384 / p.vocabulary);
  with_float_type(logits.scalar_type(), "ce_rows_", [&](auto kind) {
    torch::stable::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
      rows_of(p, kind, begin, end);
    });
  });
  return losses;
}

#ifdef ECAMP_WITH_CUDA
Tensor ce_rows_cuda(Tensor logits, std::optional<Tensor> bias, Tensor labels, Tensor weights,
                    double scale, bool gradient) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Tensor losses = new_like(labels, ScalarType::Float);
  const Params p = prepare(logits, bias, labels, weights, losses, scale, gradient);
  with_float_type(logits.scalar_type(), "ce_rows_", [](auto) {});
  const int kind = logits.scalar_type() == ScalarType::Float      ? 0
                   : logits.scalar_type() == ScalarType::BFloat16 ? 1
                                                                  : 2;
  const int status = ce_cuda(p, kind, current_cuda_stream(logits.get_device_index()));
  STD_TORCH_CHECK(status == 0, "ce_rows_: launch failed, cudaError ", status);
  return losses;
}
#endif

}  // namespace
}  // namespace ecamp::weighted_ce

STABLE_TORCH_LIBRARY_IMPL(ecamp, CPU, m) {
  m.impl("ce_rows_", TORCH_BOX(&ecamp::weighted_ce::ce_rows_cpu));
}

#ifdef ECAMP_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(ecamp, CUDA, m) {
  m.impl("ce_rows_", TORCH_BOX(&ecamp::weighted_ce::ce_rows_cuda));
}
#endif
