#include <algorithm>

#include "common/cast_torch.h"
#include "common/register.h"
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
                  "dropout_rows: samples and positions must have one entry per row of x");
  return {type_of(x, op, "x"),
          x.const_data_ptr(),
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

Tensor dropout_rows_cpu(Tensor x, Tensor samples, Tensor positions, int64_t limit, double scale,
                        int64_t seed, int64_t step) {
  const Tensor out = new_like(x, x.scalar_type());
  const Params p = prepare(x, out, samples, positions, limit, scale, seed, step);
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, p.width));
  torch::stable::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(drop_rows)(p, begin, end);
  });
  return out;
}

Tensor dropout_rows_cuda(Tensor x, Tensor samples, Tensor positions, int64_t limit, double scale,
                         int64_t seed, int64_t step) {
  const OnDevice device(x);
  const Tensor out = new_like(x, x.scalar_type());
  const Params p = prepare(x, out, samples, positions, limit, scale, seed, step);
  launched(drop_cuda(p, device.stream()), "dropout_rows");
  return out;
}

ECAMP_REGISTER("dropout_rows", dropout_rows_cpu, dropout_rows_cuda)

}  // namespace
}  // namespace ecamp::dropout_rows
