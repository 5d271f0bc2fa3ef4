// Checks, allocates the losses, and hands row ranges to threads or the chunk to the device.
#include <algorithm>
#include <optional>

#include "common/cast_torch.h"
#include "common/register.h"
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
                  "ce_rows_: labels and weights must have one entry per row of logits");
  if (bias.has_value()) {
    check(*bias, op, "bias", logits.scalar_type(), 1);
    STD_TORCH_CHECK(bias->size(0) == vocabulary, "ce_rows_: bias must have ", vocabulary,
                    " entries, has ", bias->size(0));
  }
  Params p{};
  p.type = type_of(logits, op, "logits");
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

Tensor ce_rows_cpu(Tensor logits, std::optional<Tensor> bias, Tensor labels, Tensor weights,
                   double scale, bool gradient) {
  const Tensor losses = new_like(labels, ScalarType::Float);
  const Params p = prepare(logits, bias, labels, weights, losses, scale, gradient);
  for (int64_t i = 0; i < p.rows; ++i)
    STD_TORCH_CHECK(p.labels[i] >= 0 && p.labels[i] < p.vocabulary, "ce_rows_: labels[", i, "] = ",
                    p.labels[i], " lies outside 0..", p.vocabulary - 1);
  // About 16,000 exponentials per task: below that, waking a thread costs more than it brings.
  const int64_t grain = std::max<int64_t>(1, 16384 / p.vocabulary);
  torch::stable::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(ce_range)(p, begin, end);
  });
  return losses;
}

Tensor ce_rows_cuda(Tensor logits, std::optional<Tensor> bias, Tensor labels, Tensor weights,
                    double scale, bool gradient) {
  const OnDevice device(logits);
  const Tensor losses = new_like(labels, ScalarType::Float);
  const Params p = prepare(logits, bias, labels, weights, losses, scale, gradient);
  launched(ce_cuda(p, device.stream()), "ce_rows_");
  return losses;
}

ECAMP_REGISTER("ce_rows_", ce_rows_cpu, ce_rows_cuda)

}  // namespace
}  // namespace ecamp::weighted_ce
