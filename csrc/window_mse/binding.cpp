// Checks, allocates, and hands strips to threads or the batch to the device. Stable ABI only.
#include "common/cast_torch.h"
#include "common/register.h"
#include "window_mse/window_mse.h"

namespace ecamp::window_mse {
namespace {

struct Ready {
  Params p;
  Tensor out;  // the loss, or the gradient of predicted
  Tensor error;  // keeps p.error alive
};

Params prepare(const char* op, const Tensor& predicted, const Tensor& images, const Tensor& row,
               const Tensor& column) {
  check_float(predicted, op, "predicted", 4);
  check(row, op, "row", ScalarType::Long, 1);
  check(column, op, "column", ScalarType::Long, 1);
  Params p{};
  p.predicted = in_of(predicted, op, "predicted");
  p.images = pixels_of(images, op, "images");
  STD_TORCH_CHECK(predicted.size(0) == p.images.batch && predicted.size(1) == p.images.channels, op,
                  ": predicted must have the batch and channels of images");
  STD_TORCH_CHECK(row.size(0) == p.images.batch && column.size(0) == p.images.batch, op,
                  ": row and column must have one entry per image");
  p.row = row.const_data_ptr<int64_t>();
  p.column = column.const_data_ptr<int64_t>();
  p.height = predicted.size(2);
  p.width = predicted.size(3);
  STD_TORCH_CHECK(p.height <= p.images.height && p.width <= p.images.width, op,
                  ": predicted must not be larger than images");
  p.strips = (p.height + kStrip - 1) / kStrip;
  return p;
}

Ready prepare_forward(const Tensor& predicted, const Tensor& images, const Tensor& row,
                      const Tensor& column) {
  Params p = prepare("window_mse", predicted, images, row, column);
  const Tensor loss = new_shape(predicted, {}, ScalarType::Float);
  const Tensor error =
      new_shape(predicted, {p.images.batch * p.images.channels * p.strips}, ScalarType::Double);
  p.loss = loss.mutable_data_ptr<float>();
  p.error = error.mutable_data_ptr<double>();
  return {p, loss, error};
}

Ready prepare_backward(const Tensor& grad, const Tensor& predicted, const Tensor& images,
                       const Tensor& row, const Tensor& column) {
  const char* op = "window_mse_backward";
  const Params p = prepare(op, predicted, images, row, column);
  check(grad, op, "grad", ScalarType::Float, 0);
  return {p, new_like(predicted, predicted.scalar_type()), grad};
}

void check_windows(const Params& p, const char* op) {
  const int64_t down = p.images.height - p.height, right = p.images.width - p.width;
  for (int64_t b = 0; b < p.images.batch; ++b) {
    STD_TORCH_CHECK(p.row[b] >= 0 && p.row[b] <= down, op, ": row[", b, "] = ", p.row[b],
                    " lies outside 0..", down);
    STD_TORCH_CHECK(p.column[b] >= 0 && p.column[b] <= right, op, ": column[", b, "] = ",
                    p.column[b], " lies outside 0..", right);
  }
}

int64_t strips_of(const Params& p) { return p.images.batch * p.images.channels * p.strips; }

Tensor forward_cpu(Tensor predicted, Tensor images, Tensor row, Tensor column) {
  const Ready ready = prepare_forward(predicted, images, row, column);
  const Params& p = ready.p;
  check_windows(p, "window_mse");
  torch::stable::parallel_for(0, strips_of(p), 8, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(forward_range)(p, begin, end);
  });
  double sum = 0.0;  // by one thread, so the order is always the same
  for (int64_t i = 0; i < strips_of(p); ++i) sum += p.error[i];
  *p.loss = static_cast<float>(sum / static_cast<double>(predicted.numel()));  // empty: NaN
  return ready.out;
}

Tensor backward_cpu(Tensor grad, Tensor predicted, Tensor images, Tensor row, Tensor column) {
  const char* op = "window_mse_backward";
  const Ready ready = prepare_backward(grad, predicted, images, row, column);
  const Params& p = ready.p;
  check_windows(p, op);
  const Out out = out_of(ready.out, op, "the result");
  const float scale =
      2.0f * *grad.const_data_ptr<float>() / static_cast<float>(predicted.numel());
  torch::stable::parallel_for(0, strips_of(p), 8, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(backward_range)(p, out, scale, begin, end);
  });
  return ready.out;
}

Tensor forward_gpu(Tensor predicted, Tensor images, Tensor row, Tensor column) {
  const OnDevice device(predicted);
  const Ready ready = prepare_forward(predicted, images, row, column);
  launched(forward_cuda(ready.p, device.stream()), "window_mse");
  return ready.out;
}

Tensor backward_gpu(Tensor grad, Tensor predicted, Tensor images, Tensor row, Tensor column) {
  const char* op = "window_mse_backward";
  const OnDevice device(predicted);
  const Ready ready = prepare_backward(grad, predicted, images, row, column);
  launched(backward_cuda(ready.p, in_of(grad, op, "grad"), out_of(ready.out, op, "the result"),
                         device.stream()),
           op);
  return ready.out;
}

ECAMP_REGISTER("window_mse", forward_cpu, forward_gpu)
ECAMP_REGISTER("window_mse_backward", backward_cpu, backward_gpu)

}  // namespace
}  // namespace ecamp::window_mse
