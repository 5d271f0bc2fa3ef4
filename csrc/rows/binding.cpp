// Checks, allocates, and hands row ranges to threads or the batch to the device. Stable ABI only.
#include <algorithm>
#include <vector>

#include "common/cast_torch.h"
#include "common/register.h"
#include "rows/rows.h"

namespace ecamp::rows {
namespace {

// Arguments of a kernel, and the result that they point into.
struct Ready {
  Params params;
  Tensor out;
};

// Checks the arguments and allocates the result. `rows_out`: rows of a scatter's result; -1: a gather.
Ready prepare(const char* op, const Tensor& x, const Tensor& index, int64_t rows_out) {
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must have 2 axes, has ", x.dim());
  STD_TORCH_CHECK(x.is_contiguous(), op, ": x must be contiguous");
  check(index, op, "index", ScalarType::Long, 1);
  const bool gather = rows_out < 0;
  STD_TORCH_CHECK(gather || index.size(0) == x.size(0), op, ": index must have one entry per row of x");
  Params p{};
  p.rows_in = x.size(0);
  p.rows_out = gather ? index.size(0) : rows_out;
  p.bytes = x.size(1) * static_cast<int64_t>(x.element_size());
  const Tensor out = new_shape(x, {p.rows_out, x.size(1)}, x.scalar_type());
  p.x = static_cast<const char*>(x.const_data_ptr());
  p.index = index.const_data_ptr<int64_t>();
  p.out = static_cast<char*>(out.mutable_data_ptr());
  return {p, out};
}

// Checks that entries lie in -1..rows-1 and only -1 repeats. Returns the inverse: for each row the
// position of the entry that names it, -1 without one.
std::vector<int64_t> inverse(const char* op, const int64_t* index, int64_t count, int64_t rows) {
  std::vector<int64_t> position(rows, -1);
  for (int64_t i = 0; i < count; ++i) {
    if (index[i] == -1) continue;
    STD_TORCH_CHECK(index[i] >= 0 && index[i] < rows, op, ": index[", i, "] = ", index[i],
                    " lies outside -1..", rows - 1);
    STD_TORCH_CHECK(position[index[i]] < 0, op, ": index[", i, "] = ", index[i],
                    " appears twice, also at ", position[index[i]]);
    position[index[i]] = i;
  }
  return position;
}

void run(const Params& p) {
  // About 128 KB per task: below that, waking a thread costs more than it gains.
  const int64_t grain = std::max<int64_t>(1, (1 << 17) / std::max<int64_t>(1, p.bytes));
  torch::stable::parallel_for(0, p.rows_out, grain, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(gather_range)(p, begin, end);
  });
}

Tensor gather_cpu(Tensor x, Tensor index) {
  const Ready ready = prepare("gather_rows", x, index, -1);
  inverse("gather_rows", ready.params.index, ready.params.rows_out, ready.params.rows_in);
  run(ready.params);
  return ready.out;
}

Tensor scatter_cpu(Tensor x, Tensor index, int64_t rows) {
  STD_TORCH_CHECK(rows >= 0, "scatter_rows: rows must not be negative");
  Ready ready = prepare("scatter_rows", x, index, rows);
  Params& p = ready.params;
  const std::vector<int64_t> source = inverse("scatter_rows", p.index, p.rows_in, rows);
  p.index = source.data();
  run(p);
  return ready.out;
}

Tensor gather_gpu(Tensor x, Tensor index) {
  const OnDevice device(x);
  const Ready ready = prepare("gather_rows", x, index, -1);
  launched(gather_cuda(ready.params, device.stream()), "gather_rows");
  return ready.out;
}

Tensor scatter_gpu(Tensor x, Tensor index, int64_t rows) {
  STD_TORCH_CHECK(rows >= 0, "scatter_rows: rows must not be negative");
  const OnDevice device(x);
  const Ready ready = prepare("scatter_rows", x, index, rows);
  launched(scatter_cuda(ready.params, device.stream()), "scatter_rows");
  return ready.out;
}

ECAMP_REGISTER("gather_rows", gather_cpu, gather_gpu)
ECAMP_REGISTER("scatter_rows", scatter_cpu, scatter_gpu)

}  // namespace
}  // namespace ecamp::rows
