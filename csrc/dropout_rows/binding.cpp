#include <algorithm>

#include "common/torch.h"
#include "dropout_rows/dropout_rows.h"

namespace ecamp::dropout_rows {
namespace {

Params prepare(const Tensor& x, const Tensor& out, const Tensor& samples, const Tensor& positions,
               int64_t limit, double scale, int64_t seed, int64_t step) {
  const char* op = "dropout_rows";
  check(x, op, "x", x.scalar_type(), 2);
  check(samples, op, "samples", ScalarType::Long, 1);
  check(positions, op, "positions", ScalarType::Long, 1);
  STD_TORCH_CHECK(samples.size(0) == x.size(0) && positions.size(0) == x.size(0),
                  "dropout_rows: samples and positions must have one entry a row of x");
  return {x.const_data_ptr(),
          out.mutable_data_ptr(),
          samples.const_data_ptr<int64_t>(),
          positions.const_data_ptr<int64_t>(),
          x.size(0),
          x.size(1),
          static_cast<uint32_t>(step),
          static_cast<uint64_t>(seed),
          static_cast<uint64_t>(limit),
          static_cast<float>(scale)};
}

void rows_of(const Params& p, float, int64_t begin, int64_t end) {
  ECAMP_LANE_CALL(drop_float)(p, begin, end);
}
void rows_of(const Params& p, BFloat16, int64_t begin, int64_t end) {
  ECAMP_LANE_CALL(drop_bfloat16)(p, begin, end);
}
void rows_of(const Params& p, Half, int64_t begin, int64_t end) {
  ECAMP_LANE_CALL(drop_half)(p, begin, end);
}

Tensor dropout_rows_cpu(Tensor x, Tensor samples, Tensor positions, int64_t limit, double scale,
                        int64_t seed, int64_t step) {
  const Tensor out = new_like(x, x.scalar_type());
  const Params p = prepare(x, out, samples, positions, limit, scale, seed, step);
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, p.width));
  with_float_type(x.scalar_type(), "dropout_rows", [&](auto kind) {
    torch::stable::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
      rows_of(p, kind, begin, end);
    });
  });
  return out;
}

#ifdef ECAMP_WITH_CUDA
Tensor dropout_rows_cuda(Tensor x, Tensor samples, Tensor positions, int64_t limit, double scale,
                         int64_t seed, int64_t step) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Tensor out = new_like(x, x.scalar_type());
  const Params p = prepare(x, out, samples, positions, limit, scale, seed, step);
  const int kind = x.scalar_type() == ScalarType::Float      ? 0
                   : x.scalar_type() == ScalarType::BFloat16 ? 1
                                                             : 2;
  with_float_type(x.scalar_type(), "dropout_rows", [](auto) {});
  const int status = drop_cuda(p, kind, current_cuda_stream(x.get_device_index()));
  STD_TORCH_CHECK(status == 0, "dropout_rows: launch failed, cudaError ", status);
  return out;
}
#endif

}  // namespace
}  // namespace ecamp::dropout_rows

STABLE_TORCH_LIBRARY_IMPL(ecamp, CPU, m) {
  m.impl("dropout_rows", TORCH_BOX(&ecamp::dropout_rows::dropout_rows_cpu));
}

#ifdef ECAMP_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(ecamp, CUDA, m) {
  m.impl("dropout_rows", TORCH_BOX(&ecamp::dropout_rows::dropout_rows_cuda));
}
#endif
