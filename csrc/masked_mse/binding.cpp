// Checks, allocates, and hands patches to threads or the batch to the device. Stable ABI only.
#include <algorithm>
#include <tuple>

#include "common/cast_torch.h"
#include "common/register.h"
#include "masked_mse/masked_mse.h"

namespace ecamp::masked_mse {
namespace {

using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Params prepare(const char* op, const Tensor& predicted, const Tensor& images, const Tensor& mask,
               int64_t patch) {
  check_float(predicted, op, "predicted", 3);
  check(mask, op, "mask", ScalarType::Bool, 2);
  Params p{};
  p.predicted = in_of(predicted, op, "predicted");
  p.images = pixels_of(images, op, "images");
  STD_TORCH_CHECK(patch > 0 && p.images.height % patch == 0 && p.images.width % patch == 0, op,
                  ": patch must divide height and width");
  p.mask = mask.const_data_ptr<bool>();
  p.patch = patch;
  p.across = p.images.width / patch;
  p.patches = p.images.height / patch * p.across;
  p.values = patch * patch * p.images.channels;
  const int64_t batch = p.images.batch;
  STD_TORCH_CHECK(predicted.size(0) == batch && predicted.size(1) == p.patches &&
                      predicted.size(2) == p.values,
                  op, ": predicted must hold every patch of images");
  STD_TORCH_CHECK(mask.size(0) == batch && mask.size(1) == p.patches, op,
                  ": mask must have an entry for every patch of images");
  return p;
}

struct Forward {
  Params p;
  Four out;
  Tensor error;  // keeps p.error alive
};

Forward prepare_forward(const Tensor& predicted, const Tensor& images, const Tensor& mask,
                        int64_t patch, bool normalise) {
  Params p = prepare("masked_mse", predicted, images, mask, patch);
  p.normalise = normalise;
  const auto shaped = [&](std::initializer_list<int64_t> shape) {
    return new_shape(predicted, shape, ScalarType::Float);
  };
  const int64_t batch = p.images.batch;
  const Four out{shaped({}), shaped({}), shaped({batch, p.patches}), shaped({batch, p.patches})};
  const Tensor error = shaped({batch, p.patches});
  p.loss = std::get<0>(out).mutable_data_ptr<float>();
  p.count = std::get<1>(out).mutable_data_ptr<float>();
  p.mean = std::get<2>(out).mutable_data_ptr<float>();
  p.rstd = std::get<3>(out).mutable_data_ptr<float>();
  p.error = error.mutable_data_ptr<float>();
  return {p, out, error};
}

struct Backward {
  Params p;
  Tensor out;
};

Backward prepare_backward(const Tensor& grad, const Tensor& predicted, const Tensor& images,
                          const Tensor& mask, const Tensor& count, const Tensor& mean,
                          const Tensor& rstd, int64_t patch) {
  const char* op = "masked_mse_backward";
  Params p = prepare(op, predicted, images, mask, patch);
  check(grad, op, "grad", ScalarType::Float, 0);
  check(count, op, "count", ScalarType::Float, 0);
  check(mean, op, "mean", ScalarType::Float, 2);
  check(rstd, op, "rstd", ScalarType::Float, 2);
  STD_TORCH_CHECK(mean.numel() == mask.numel() && rstd.numel() == mask.numel(), op,
                  ": mean and rstd must have the shape of mask");
  p.count = count.mutable_data_ptr<float>();
  p.mean = mean.mutable_data_ptr<float>();
  p.rstd = rstd.mutable_data_ptr<float>();
  return {p, new_like(predicted, predicted.scalar_type())};
}

// About 32,000 values per task: below that, waking a thread costs more than it brings.
int64_t grain(const Params& p) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, p.values)); }

Four forward_cpu(Tensor predicted, Tensor images, Tensor mask, int64_t patch, bool normalise) {
  const Forward ready = prepare_forward(predicted, images, mask, patch, normalise);
  const Params& p = ready.p;
  const int64_t total = p.images.batch * p.patches;
  torch::stable::parallel_for(0, total, grain(p), [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(forward_range)(p, begin, end);
  });
  double sum = 0.0;  // by one thread, so the order is always the same
  int64_t count = 0;
  for (int64_t i = 0; i < total; ++i) {
    sum += p.error[i];
    count += p.mask[i];
  }
  *p.count = static_cast<float>(std::max<int64_t>(1, count));
  *p.loss = count == 0 ? 0.0f : static_cast<float>(sum / (static_cast<double>(count) * p.values));
  return ready.out;
}

Tensor backward_cpu(Tensor grad, Tensor predicted, Tensor images, Tensor mask, Tensor count,
                    Tensor mean, Tensor rstd, int64_t patch) {
  const Backward ready = prepare_backward(grad, predicted, images, mask, count, mean, rstd, patch);
  const Params& p = ready.p;
  const Out out = out_of(ready.out, "masked_mse_backward", "the result");
  const float scale = 2.0f * *grad.const_data_ptr<float>() / (*p.count * static_cast<float>(p.values));
  torch::stable::parallel_for(0, p.images.batch * p.patches, grain(p), [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(backward_range)(p, out, scale, begin, end);
  });
  return ready.out;
}

Four forward_gpu(Tensor predicted, Tensor images, Tensor mask, int64_t patch, bool normalise) {
  const OnDevice device(predicted);
  const Forward ready = prepare_forward(predicted, images, mask, patch, normalise);
  launched(forward_cuda(ready.p, device.stream()), "masked_mse");
  return ready.out;
}

Tensor backward_gpu(Tensor grad, Tensor predicted, Tensor images, Tensor mask, Tensor count,
                    Tensor mean, Tensor rstd, int64_t patch) {
  const char* op = "masked_mse_backward";
  const OnDevice device(predicted);
  const Backward ready = prepare_backward(grad, predicted, images, mask, count, mean, rstd, patch);
  launched(backward_cuda(ready.p, in_of(grad, op, "grad"), out_of(ready.out, op, "the result"),
                         device.stream()),
           op);
  return ready.out;
}

ECAMP_REGISTER("masked_mse", forward_cpu, forward_gpu)
ECAMP_REGISTER("masked_mse_backward", backward_cpu, backward_gpu)

}  // namespace
}  // namespace ecamp::masked_mse
