// Checks, allocates, and hands images to threads or the batch to the device. Stable ABI only.
#include <tuple>

#include "common/register.h"
#include "common/torch.h"
#include "crop_resize/crop_resize.h"

namespace ecamp::crop_resize {
namespace {

struct Prepared {
  Params params;
  Tensor large, small;
};

Prepared prepare(const Tensor& images, const Tensor& crop, const Tensor& flip, const Tensor& scale,
                 const Tensor& shift, int64_t size, int64_t pool) {
  const char* op = "crop_resize";
  check(images, op, "images", ScalarType::Byte, 4);
  check(crop, op, "crop", ScalarType::Float, 2);
  check(flip, op, "flip", ScalarType::Bool, 1);
  check(scale, op, "scale", ScalarType::Float, 1);
  check(shift, op, "shift", ScalarType::Float, 1);
  const int64_t batch = images.size(0), channels = images.size(3);
  STD_TORCH_CHECK(crop.size(0) == batch && crop.size(1) == 4 && flip.size(0) == batch,
                  "crop_resize: crop must be (", batch, ", 4) and flip (", batch, ",)");
  STD_TORCH_CHECK(scale.size(0) == channels && shift.size(0) == channels,
                  "crop_resize: scale and shift must have ", channels, " entries");
  STD_TORCH_CHECK(size >= 0 && pool >= 1 && size % pool == 0,
                  "crop_resize: size must be a multiple of pool");
  STD_TORCH_CHECK(batch == 0 || (images.size(1) > 0 && images.size(2) > 0),
                  "crop_resize: an image has no pixels");
  const Tensor large =
      torch::stable::new_empty(images, {batch, channels, size, size}, ScalarType::Float);
  const int64_t few = pool == 1 ? 0 : size / pool;
  const Tensor small =
      torch::stable::new_empty(images, {batch, channels, few, few}, ScalarType::Float);
  const Params p{images.const_data_ptr<uint8_t>(),
                 crop.const_data_ptr<float>(),
                 flip.const_data_ptr<bool>(),
                 scale.const_data_ptr<float>(),
                 shift.const_data_ptr<float>(),
                 batch,
                 images.size(1),
                 images.size(2),
                 channels,
                 size,
                 pool,
                 large.mutable_data_ptr<float>(),
                 small.mutable_data_ptr<float>()};
  return {p, large, small};
}

std::tuple<Tensor, Tensor> crop_resize_cpu(Tensor images, Tensor crop, Tensor flip, Tensor scale,
                                           Tensor shift, int64_t size, int64_t pool) {
  const Prepared ready = prepare(images, crop, flip, scale, shift, size, pool);
  torch::stable::parallel_for(0, ready.params.batch, 1, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(crop_images)(ready.params, begin, end);
  });
  return {ready.large, ready.small};
}

std::tuple<Tensor, Tensor> crop_resize_cuda(Tensor images, Tensor crop, Tensor flip, Tensor scale,
                                            Tensor shift, int64_t size, int64_t pool) {
  const OnDevice device(images);
  const Prepared ready = prepare(images, crop, flip, scale, shift, size, pool);
  launched(crop_cuda(ready.params, device.stream()), "crop_resize");
  return {ready.large, ready.small};
}

ECAMP_REGISTER("crop_resize", crop_resize_cpu, crop_resize_cuda)

}  // namespace
}  // namespace ecamp::crop_resize
