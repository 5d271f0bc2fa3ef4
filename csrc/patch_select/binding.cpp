// Checks, allocates, and hands ranges to threads or the batch to the device. Stable ABI only.
#include <algorithm>
#include <vector>

#include "common/cast_torch.h"
#include "common/register.h"
#include "patch_select/patch_select.h"

namespace ecamp::patch_select {
namespace {

void check_grid(const char* op, const Tensor& keep, int64_t batch, int64_t height, int64_t width,
                int64_t patch) {
  check(keep, op, "keep", ScalarType::Long, 2);
  STD_TORCH_CHECK(keep.size(0) == batch, op, ": keep must have one row per image");
  STD_TORCH_CHECK(patch > 0 && height % patch == 0 && width % patch == 0, op,
                  ": patch must divide height and width");
}

struct Forward {
  Params params;
  Tensor out;
};

Forward prepare(const Tensor& images, const Tensor& keep, int64_t patch, ScalarType dtype) {
  const char* op = "patch_select";
  Params p{};
  p.images = pixels_of(images, op, "images");
  check_grid(op, keep, p.images.batch, p.images.height, p.images.width, patch);
  p.keep = keep.const_data_ptr<int64_t>();
  p.kept = keep.size(1);
  p.patch = patch;
  p.across = p.images.width / patch;
  p.patches = p.images.height / patch * p.across;
  const Tensor out =
      new_shape(images, {p.images.batch, p.kept, p.images.channels * patch * patch}, dtype);
  p.out = out_of(out, op, "the result");
  return {p, out};
}

struct Backward {
  Gradient params;
  Tensor out;
};

Backward prepare_backward(const Tensor& grad, const Tensor& keep, int64_t patch, int64_t height,
                          int64_t width, ScalarType dtype) {
  const char* op = "patch_select_backward";
  check_float(grad, op, "grad", 3);
  Gradient g{};
  g.batch = grad.size(0);
  check_grid(op, keep, g.batch, height, width, patch);
  g.grad = in_of(grad, op, "grad");
  g.keep = keep.const_data_ptr<int64_t>();
  g.channels = grad.size(2) / (patch * patch);
  STD_TORCH_CHECK(grad.size(1) == keep.size(1) && g.channels * patch * patch == grad.size(2), op,
                  ": grad must have a patch for each entry of keep");
  g.height = height;
  g.width = width;
  g.kept = keep.size(1);
  g.patch = patch;
  g.across = width / patch;
  g.patches = height / patch * g.across;
  const Tensor out = new_shape(grad, {g.batch, g.channels, height, width}, dtype);
  g.out = out_of(out, op, "the result");
  return {g, out};
}

// Entries lie in the grid, and no patch of an image appears twice.
void check_keep(const char* op, const int64_t* keep, int64_t batch, int64_t kept, int64_t patches) {
  std::vector<int64_t> seen(patches, -1);
  for (int64_t i = 0; i < batch * kept; ++i) {
    const int64_t b = i / kept, k = i % kept;
    STD_TORCH_CHECK(keep[i] >= 0 && keep[i] < patches, op, ": keep[", b, ", ", k, "] = ", keep[i],
                    " lies outside 0..", patches - 1);
    STD_TORCH_CHECK(seen[keep[i]] != b, op, ": keep[", b, ", ", k, "] = ", keep[i],
                    " appears twice in its image");
    seen[keep[i]] = b;
  }
}

Tensor select_cpu(Tensor images, Tensor keep, int64_t patch, ScalarType dtype) {
  const Forward ready = prepare(images, keep, patch, dtype);
  const Params& p = ready.params;
  check_keep("patch_select", p.keep, p.images.batch, p.kept, p.patches);
  const int64_t values = std::max<int64_t>(1, p.images.channels * patch * patch);
  // About 32,000 values per task: below that, waking a thread costs more than it brings.
  torch::stable::parallel_for(
      0, p.images.batch * p.kept, std::max<int64_t>(1, 32768 / values),
      [&](int64_t begin, int64_t end) { ECAMP_LANE_CALL(select_range)(p, begin, end); });
  return ready.out;
}

Tensor spread_cpu(Tensor grad, Tensor keep, int64_t patch, int64_t height, int64_t width,
                  ScalarType dtype) {
  const Backward ready = prepare_backward(grad, keep, patch, height, width, dtype);
  const Gradient& g = ready.params;
  check_keep("patch_select_backward", g.keep, g.batch, g.kept, g.patches);
  torch::stable::parallel_for(0, g.batch * g.channels, 1, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(spread_range)(g, begin, end);
  });
  return ready.out;
}

Tensor select_gpu(Tensor images, Tensor keep, int64_t patch, ScalarType dtype) {
  const OnDevice device(images);
  const Forward ready = prepare(images, keep, patch, dtype);
  launched(select_cuda(ready.params, device.stream()), "patch_select");
  return ready.out;
}

Tensor spread_gpu(Tensor grad, Tensor keep, int64_t patch, int64_t height, int64_t width,
                  ScalarType dtype) {
  const OnDevice device(grad);
  const Backward ready = prepare_backward(grad, keep, patch, height, width, dtype);
  launched(spread_cuda(ready.params, device.stream()), "patch_select_backward");
  return ready.out;
}

ECAMP_REGISTER("patch_select", select_cpu, select_gpu)
ECAMP_REGISTER("patch_select_backward", spread_cpu, spread_gpu)

}  // namespace
}  // namespace ecamp::patch_select
