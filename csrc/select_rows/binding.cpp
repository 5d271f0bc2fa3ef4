// Checks, allocates, and hands ranges to threads or the mask to the device.
#include <algorithm>
#include <vector>

#include "common/register.h"
#include "common/torch.h"
#include "select_rows/select_rows.h"

namespace ecamp::select_rows {
namespace {

constexpr int64_t kRange = 1 << 16;  // bytes per task; a smaller mask is one thread's work

Tensor prepare(const Tensor& mask, int64_t count) {
  check(mask, "select_rows", "mask", ScalarType::Bool, 2);
  STD_TORCH_CHECK(count >= 0 && count <= mask.numel(), "select_rows: count must lie in 0..",
                  mask.numel(), ", got ", count);
  return torch::stable::new_empty(mask, {count}, ScalarType::Long);
}

Tensor select_rows_cpu(Tensor mask, int64_t count) {
  const Tensor out = prepare(mask, count);
  const uint8_t* bytes = static_cast<const uint8_t*>(mask.const_data_ptr());
  int64_t* places = out.mutable_data_ptr<int64_t>();
  const int64_t size = mask.numel(), ranges = (size + kRange - 1) / kRange;
  std::vector<int64_t> first(ranges + 1, 0);
  torch::stable::parallel_for(0, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      first[r + 1] =
          ECAMP_LANE_CALL(count_true)(bytes, r * kRange, std::min(size, (r + 1) * kRange));
  });
  for (int64_t r = 0; r < ranges; ++r) first[r + 1] += first[r];
  STD_TORCH_CHECK(first[ranges] == count, "select_rows: count is ", count, " but mask holds ",
                  first[ranges], " true entries");
  torch::stable::parallel_for(0, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      ECAMP_LANE_CALL(write_true)
    (bytes, r * kRange, std::min(size, (r + 1) * kRange), places + first[r],
     first[r + 1] - first[r]);
  });
  return out;
}

Tensor select_rows_cuda(Tensor mask, int64_t count) {
  const OnDevice device(mask);
  const Tensor out = prepare(mask, count);
  launched(select_cuda(static_cast<const uint8_t*>(mask.const_data_ptr()), mask.numel(),
                       out.mutable_data_ptr<int64_t>(), count, device.stream()),
           "select_rows");
  return out;
}

ECAMP_REGISTER("select_rows", select_rows_cpu, select_rows_cuda)

}  // namespace
}  // namespace ecamp::select_rows
